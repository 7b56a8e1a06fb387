package secp

import "math/bits"

// The lattice of pairs (a, b) with a + bλ = 0 modulo the group order n has the
// short basis (a1, b1), (a2, b2) with b1 negative and b2 = a1; g1 and g2 are
// b2·2³⁸⁴/n and −b1·2³⁸⁴/n, rounded.
var (
	a1      = [3]uint64{0xe86c90e49284eb15, 0x3086d221a7d46bcd}
	minusB1 = [3]uint64{0x6f547fa90abfe4c3, 0xe4437ed6010e8828}
	a2      = [3]uint64{0x57c1108d9d44cfd8, 0x14ca50f7a8e2f3f6, 1}
	g1      = [4]uint64{0xe893209a45dbb031, 0x3daa8a1471e8ca7f, 0xe86c90e49284eb15, 0x3086d221a7d46bcd}
	g2      = [4]uint64{0x1571b4ae8ac47f71, 0x221208ac9df506c6, 0x6f547fa90abfe4c4, 0xe4437ed6010e8828}
)

// split finds e1 and e2 of at most 128 bits with e = ±e1 ± e2·λ: it subtracts
// from (e, 0) the lattice point c1·(a1, b1) + c2·(a2, b2) that lies next to it.
func split(e *Scalar) (e1, e2 [2]uint64, neg1, neg2 bool) {
	l := limbs(e)
	c1, c2 := mulHigh(&l, &g1), mulHigh(&l, &g2)
	r1 := sub192([3]uint64{l[0], l[1], l[2]}, mul192(c1, &a1))
	r1 = sub192(r1, mul192(c2, &a2))
	r2 := sub192(mul192(c1, &minusB1), mul192(c2, &a1))
	e1, neg1 = magnitude(r1)
	e2, neg2 = magnitude(r2)
	return e1, e2, neg1, neg2
}

// mulHigh returns x·y/2³⁸⁴, rounded.
func mulHigh(x, y *[4]uint64) (z [2]uint64) {
	var t [8]uint64
	for i := range x {
		var carry uint64
		for j := range y {
			h, l := bits.Mul64(x[i], y[j])
			l, k := bits.Add64(l, carry, 0)
			h += k
			t[i+j], k = bits.Add64(t[i+j], l, 0)
			carry = h + k
		}
		t[i+4] = carry
	}
	var k uint64
	z[0], k = bits.Add64(t[6], t[5]>>63, 0)
	z[1] = t[7] + k
	return z
}

// mul192 returns x·y modulo 2¹⁹².
func mul192(x [2]uint64, y *[3]uint64) (z [3]uint64) {
	h, l := bits.Mul64(x[0], y[0])
	z[0], z[1] = l, h
	h, l = bits.Mul64(x[0], y[1])
	var k uint64
	z[1], k = bits.Add64(z[1], l, 0)
	z[2] = h + k + x[0]*y[2]
	h, l = bits.Mul64(x[1], y[0])
	z[1], k = bits.Add64(z[1], l, 0)
	z[2] += h + k + x[1]*y[1]
	return z
}

func sub192(x, y [3]uint64) (z [3]uint64) {
	var k uint64
	z[0], k = bits.Sub64(x[0], y[0], 0)
	z[1], k = bits.Sub64(x[1], y[1], k)
	z[2], _ = bits.Sub64(x[2], y[2], k)
	return z
}

// magnitude reads x as a signed number below 2¹²⁸ in size.
func magnitude(x [3]uint64) (m [2]uint64, negative bool) {
	negative = x[2]>>63 == 1
	if negative {
		x = sub192([3]uint64{}, x)
	}
	return [2]uint64{x[0], x[1]}, negative
}

// beta is the cube root of one in the field that belongs to λ.
var beta = fe{0xc1396c28719501ee, 0x9cf0497512f58995, 0x6e64479eac3434e9, 0x7ae96a2b657c0710}
