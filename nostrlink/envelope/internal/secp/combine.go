package secp

import "sync"

// Verification computes s·G + e·P in time that depends on all of them, cutting
// the scalars into pieces that share the doublings. Each piece is written in
// non-adjacent form and has a table of odd multiples of its point.
const (
	pieces    = 8
	pieceBits = 32

	baseWidth  = 9 // of the forms for G, whose tables are made once
	knownWidth = 6 // for a key that is known
	freshWidth = 5 // for one that is not: its table is made for one signature
)

// combs are the tables of one point: row i belongs to piece i.
type combs [pieces][]affine

// baseCombs are the tables of 2³²ⁱ·G: 64 KB, made on first use, never changed.
var baseCombs = sync.OnceValue(func() *combs {
	var p jacobian
	p.set(&generator)
	return newCombs(&p, pieces, baseWidth)
})

// newCombs makes the tables of n points, each 2³² times the one before.
func newCombs(p *jacobian, n int, width uint) *combs {
	perRow := 1 << (width - 2)
	points := make([]jacobian, 0, n*perRow)
	base := *p
	for range n {
		points = append(points, oddMultiples(&base, perRow)...)
		for range pieceBits {
			base.double(&base)
		}
	}
	t := new(combs)
	all := allAffine(points)
	for i := range n {
		t[i] = all[i*perRow : (i+1)*perRow]
	}
	return t
}

// Key is a public key whose signatures are verified in half of Verify's time,
// for 8 KB of tables that take as long to make as two verifications. It may be
// used concurrently.
type Key struct {
	pub   [32]byte
	table *combs
}

// NewKey makes the tables of pub. It returns nil if there is no such point.
func NewKey(pub *[32]byte) *Key {
	var a affine
	if !a.lift(pub) {
		return nil
	}
	var p jacobian
	p.set(&a)
	table := newCombs(&p, pieces/2, knownWidth)
	for i := range pieces / 2 {
		turned := make([]affine, len(table[i]))
		for j, a := range table[i] {
			turned[j].x.mul(&a.x, &beta)
			turned[j].y = a.y
		}
		table[pieces/2+i] = turned
	}
	return &Key{*pub, table}
}

// Verify reports whether sig is the key's BIP-340 signature of msg.
func (k *Key) Verify(msg *[32]byte, sig *[64]byte) bool {
	var c claim
	if !c.read(&k.pub, msg, sig) {
		return false
	}
	sum := k.combine(&c.s, &c.e)
	return c.holds(&sum)
}

// combine returns s·G + e·P, from sixteen pieces of 32 bits. e is first split
// by the curve's endomorphism, λ·(x, y) = (β·x, y).
func (k *Key) combine(s, e *Scalar) (sum jacobian) {
	var base, key [pieces]naf
	l := limbs(s)
	n := cut(base[:], l[:], false, baseWidth)
	e1, e2, neg1, neg2 := split(e)
	n = max(n, cut(key[:pieces/2], e1[:], neg1, knownWidth))
	n = max(n, cut(key[pieces/2:], e2[:], neg2, knownWidth))
	table := baseCombs()
	for i := n - 1; i >= 0; i-- {
		sum.double(&sum)
		for j := range pieces {
			sum.addDigit(base[j][i], table[j])
			sum.addDigit(key[j][i], k.table[j])
		}
	}
	return sum
}

// combine returns s·G + e·p: s in pieces of 32 bits, e in the two of 128 bits
// that the endomorphism gives.
func combine(s, e *Scalar, p *affine) (sum jacobian) {
	var base [pieces]naf
	var straight, turned naf
	l := limbs(s)
	n := cut(base[:], l[:], false, baseWidth)
	e1, e2, neg1, neg2 := split(e)
	m := straight.set(e1[0], e1[1], neg1, freshWidth)
	m = max(m, turned.set(e2[0], e2[1], neg2, freshWidth))

	const size = 1 << (freshWidth - 2)
	var multiples [size]jacobian
	var turnedX [size]fe
	var first jacobian
	first.set(p)
	fillMultiples(multiples[:], &first)
	for i := range multiples {
		turnedX[i].mul(&multiples[i].x, &beta)
	}
	table := baseCombs()
	for i := max(n, m) - 1; i >= 0; i-- {
		sum.double(&sum)
		if i < n {
			for j := range pieces {
				sum.addDigit(base[j][i], table[j])
			}
		}
		if d := straight[i]; d != 0 {
			a := multiples[abs(d)/2]
			a.addTo(&sum, d < 0)
		}
		if d := turned[i]; d != 0 {
			a := multiples[abs(d)/2]
			a.x = turnedX[abs(d)/2]
			a.addTo(&sum, d < 0)
		}
	}
	return sum
}

// addDigit adds d times the point whose odd multiples row holds.
func (p *jacobian) addDigit(d int16, row []affine) {
	if d == 0 {
		return
	}
	a := &row[abs(d)/2]
	if d < 0 {
		minus := affine{x: a.x}
		minus.y.neg(&a.y)
		a = &minus
	}
	p.addAffine(p, a)
}

// addTo adds p, or −p, to sum.
func (p *jacobian) addTo(sum *jacobian, negative bool) {
	if negative {
		p.y.neg(&p.y)
	}
	sum.add(sum, p)
}
