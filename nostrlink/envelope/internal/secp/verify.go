package secp

import (
	"crypto/sha256"
	"math/bits"
	"sync"
)

// Verify reports whether sig is pub's BIP-340 signature of msg.
func Verify(pub, msg *[32]byte, sig *[64]byte) bool {
	var p affine
	if !p.lift(pub) {
		return false
	}
	var r fe
	if !r.setBytes((*[32]byte)(sig[:32])) {
		return false
	}
	var s, e Scalar
	if s.SetBytes((*[32]byte)(sig[32:])) != 0 {
		return false
	}
	challenge(&e, (*[32]byte)(sig[:32]), pub, msg)
	e.Negate()

	sum := multiplyTwo(&s, &e, &p)
	if sum.z == (fe{}) {
		return false
	}
	// Whether x is r can be told without the inversion that y needs.
	var t fe
	t.sqr(&sum.z)
	t.mul(&t, &r)
	if !t.equal(&sum.x) {
		return false
	}
	a := sum.toAffine()
	return a.y[0]&1 == 0
}

// challengeTag begins the hash of the challenge: SHA-256("BIP0340/challenge") twice.
var challengeTag = tag("BIP0340/challenge")

// tag returns the beginning of a BIP-340 tagged hash.
func tag(name string) (t [64]byte) {
	h := sha256.Sum256([]byte(name))
	copy(t[:32], h[:])
	copy(t[32:], h[:])
	return t
}

func challenge(e *Scalar, r, pub, msg *[32]byte) {
	var b [160]byte
	copy(b[:], challengeTag[:])
	copy(b[64:], r[:])
	copy(b[96:], pub[:])
	copy(b[128:], msg[:])
	h := sha256.Sum256(b[:])
	e.SetBytes(&h)
}

// Widths of the non-adjacent forms: of the halves for G, whose tables are made
// once, and of those for a key, whose tables are made for each signature.
const (
	baseWidth = 10
	keyWidth  = 5
)

// baseMultiples are the odd multiples of G and of 2¹²⁸·G below 2^(baseWidth−1):
// 32 KB, made on first use and never changed.
var baseMultiples = sync.OnceValue(func() *[2][1 << (baseWidth - 2)]affine {
	const n = 1 << (baseWidth - 2)
	var base jacobian
	base.set(&generator)
	points := oddMultiples(&base, n)
	for range 128 {
		base.double(&base)
	}
	points = append(points, oddMultiples(&base, n)...)
	t := new([2][n]affine)
	for i, a := range allAffine(points) {
		t[i/n][i%n] = a
	}
	return t
})

// multiplyTwo returns s·G + e·p, in time that depends on all of them.
//
// s is cut into two halves of 128 bits. So is e, by the curve's endomorphism:
// λ·(x, y) = (β·x, y), see split. The four halves share 128 doublings.
func multiplyTwo(s, e *Scalar, p *affine) (sum jacobian) {
	table := baseMultiples()
	var keys [1 << (keyWidth - 2)]jacobian
	var turned [1 << (keyWidth - 2)]fe // β·x
	e1, e2, neg1, neg2 := split(e)
	fillMultiples(&keys, p)
	for i := range keys {
		turned[i].mul(&keys[i].x, &beta)
	}

	var nafs [4]naf
	sl := limbs(s)
	n := nafs[0].set(sl[0], sl[1], false, baseWidth)
	n = max(n, nafs[1].set(sl[2], sl[3], false, baseWidth))
	n = max(n, nafs[2].set(e1[0], e1[1], neg1, keyWidth))
	n = max(n, nafs[3].set(e2[0], e2[1], neg2, keyWidth))

	for i := n - 1; i >= 0; i-- {
		sum.double(&sum)
		for j := range 2 {
			if d := nafs[j][i]; d != 0 {
				a := table[j][abs(d)/2]
				if d < 0 {
					a.y.neg(&a.y)
				}
				sum.addAffine(&sum, &a)
			}
		}
		for j := 2; j < 4; j++ {
			if d := nafs[j][i]; d != 0 {
				a := keys[abs(d)/2]
				if j == 3 {
					a.x = turned[abs(d)/2]
				}
				if d < 0 {
					a.y.neg(&a.y)
				}
				sum.add(&sum, &a)
			}
		}
	}
	return sum
}

func fillMultiples(out *[1 << (keyWidth - 2)]jacobian, p *affine) {
	var twice jacobian
	out[0].set(p)
	twice.double(&out[0])
	for i := 1; i < len(out); i++ {
		out[i].add(&out[i-1], &twice)
	}
}

func abs(d int16) int16 { return max(d, -d) }

// naf is a number below 2¹²⁹ in width-w non-adjacent form, least significant
// digit first: its digits are zero or odd and below 2^(w−1), and of w in a row
// at most one is not zero.
type naf [130]int16

// set fills n, which must be zero, with the form of hi·2⁶⁴ + lo, or of minus
// that, and returns the number of digits.
func (n *naf) set(lo, hi uint64, negative bool, w uint) (length int) {
	sign := int16(1)
	if negative {
		sign = -1
	}
	var top uint64 // bit 128, which rounding up may reach
	for i := 0; lo|hi|top != 0; {
		if skip := bits.TrailingZeros64(lo); skip > 0 {
			skip = min(skip, 63)
			lo = lo>>skip | hi<<(64-skip)
			hi = hi>>skip | top<<(64-skip)
			top = 0
			i += skip
			continue
		}
		d := int16(lo & (1<<w - 1))
		lo -= uint64(d)
		if d >= 1<<(w-1) {
			d -= 1 << w
			var k uint64
			lo, k = bits.Add64(lo, 1<<w, 0)
			hi, top = bits.Add64(hi, 0, k)
		}
		n[i] = sign * d
		length = i + 1
	}
	return length
}

// beta is the cube root of one in the field that belongs to λ.
var beta = fe{0xc1396c28719501ee, 0x9cf0497512f58995, 0x6e64479eac3434e9, 0x7ae96a2b657c0710}
