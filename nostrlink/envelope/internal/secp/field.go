package secp

import (
	"encoding/binary"
	"math/bits"
)

// fe is an element of the field of p = 2²⁵⁶ − c elements: four limbs, least
// significant first, holding any representative below 2²⁵⁶. Only normal
// reduces it below p. No operation branches on a value, and every destination
// may be one of the operands.
type fe [4]uint64

// c is what 2²⁵⁶ is congruent to modulo p.
const c = 1<<32 + 977

var feOne = fe{1}

// setBytes reads 32 bytes, most significant first, and reports whether they
// are below p.
func (z *fe) setBytes(b *[32]byte) bool {
	for i := range z {
		z[i] = binary.BigEndian.Uint64(b[24-8*i:])
	}
	n := *z
	n.normal()
	return n == *z
}

func (z *fe) bytes() (b [32]byte) {
	n := *z
	n.normal()
	for i := range n {
		binary.BigEndian.PutUint64(b[24-8*i:], n[i])
	}
	return b
}

// normal reduces z below p. z + c carries out of 256 bits just when z ≥ p, and
// what remains is then z − p.
func (z *fe) normal() {
	t0, k := bits.Add64(z[0], c, 0)
	t1, k := bits.Add64(z[1], 0, k)
	t2, k := bits.Add64(z[2], 0, k)
	t3, k := bits.Add64(z[3], 0, k)
	m := -k
	z[0] ^= (z[0] ^ t0) & m
	z[1] ^= (z[1] ^ t1) & m
	z[2] ^= (z[2] ^ t2) & m
	z[3] ^= (z[3] ^ t3) & m
}

func (z *fe) isZero() bool {
	n := *z
	n.normal()
	return n[0]|n[1]|n[2]|n[3] == 0
}

// odd returns 1 when z, reduced, is odd.
func (z *fe) odd() uint64 {
	n := *z
	n.normal()
	return n[0] & 1
}

func (z *fe) equal(x *fe) bool {
	var d fe
	d.sub(z, x)
	return d.isZero()
}

// choose sets z to x where mask is all ones and leaves it where mask is zero.
func (z *fe) choose(x *fe, mask uint64) {
	z[0] ^= (z[0] ^ x[0]) & mask
	z[1] ^= (z[1] ^ x[1]) & mask
	z[2] ^= (z[2] ^ x[2]) & mask
	z[3] ^= (z[3] ^ x[3]) & mask
}

func (z *fe) add(x, y *fe) {
	t0, k := bits.Add64(x[0], y[0], 0)
	t1, k := bits.Add64(x[1], y[1], k)
	t2, k := bits.Add64(x[2], y[2], k)
	t3, k := bits.Add64(x[3], y[3], k)
	t0, k = bits.Add64(t0, -k&c, 0)
	t1, k = bits.Add64(t1, 0, k)
	t2, k = bits.Add64(t2, 0, k)
	t3, k = bits.Add64(t3, 0, k)
	// A second carry leaves less than c, to which c adds without another.
	z[0], z[1], z[2], z[3] = t0+-k&c, t1, t2, t3
}

func (z *fe) sub(x, y *fe) {
	t0, k := bits.Sub64(x[0], y[0], 0)
	t1, k := bits.Sub64(x[1], y[1], k)
	t2, k := bits.Sub64(x[2], y[2], k)
	t3, k := bits.Sub64(x[3], y[3], k)
	t0, k = bits.Sub64(t0, -k&c, 0)
	t1, k = bits.Sub64(t1, 0, k)
	t2, k = bits.Sub64(t2, 0, k)
	t3, k = bits.Sub64(t3, 0, k)
	// A second borrow leaves more than 2²⁵⁶ − c: no third.
	z[0], z[1], z[2], z[3] = t0-(-k&c), t1, t2, t3
}

func (z *fe) neg(x *fe) { z.sub(&fe{}, x) }

// half sets z to x/2.
func (z *fe) half(x *fe) {
	m := -(x[0] & 1) // an odd x becomes even by adding p, whose last limb is ^(c−1)
	t0, k := bits.Add64(x[0], m&^(c-1), 0)
	t1, k := bits.Add64(x[1], m, k)
	t2, k := bits.Add64(x[2], m, k)
	t3, k := bits.Add64(x[3], m, k)
	z[0] = t0>>1 | t1<<63
	z[1] = t1>>1 | t2<<63
	z[2] = t2>>1 | t3<<63
	z[3] = t3>>1 | k<<63
}

func (z *fe) mul(x, y *fe) {
	x0, x1, x2, x3 := x[0], x[1], x[2], x[3]
	y0, y1, y2, y3 := y[0], y[1], y[2], y[3]

	h0, t0 := bits.Mul64(x0, y0)
	h1, l1 := bits.Mul64(x1, y0)
	h2, l2 := bits.Mul64(x2, y0)
	h3, l3 := bits.Mul64(x3, y0)
	t1, k := bits.Add64(l1, h0, 0)
	t2, k := bits.Add64(l2, h1, k)
	t3, k := bits.Add64(l3, h2, k)
	t4 := h3 + k

	h0, l0 := bits.Mul64(x0, y1)
	h1, l1 = bits.Mul64(x1, y1)
	h2, l2 = bits.Mul64(x2, y1)
	h3, l3 = bits.Mul64(x3, y1)
	l1, k = bits.Add64(l1, h0, 0)
	l2, k = bits.Add64(l2, h1, k)
	l3, k = bits.Add64(l3, h2, k)
	h3 += k
	t1, k = bits.Add64(t1, l0, 0)
	t2, k = bits.Add64(t2, l1, k)
	t3, k = bits.Add64(t3, l2, k)
	t4, k = bits.Add64(t4, l3, k)
	t5 := h3 + k

	h0, l0 = bits.Mul64(x0, y2)
	h1, l1 = bits.Mul64(x1, y2)
	h2, l2 = bits.Mul64(x2, y2)
	h3, l3 = bits.Mul64(x3, y2)
	l1, k = bits.Add64(l1, h0, 0)
	l2, k = bits.Add64(l2, h1, k)
	l3, k = bits.Add64(l3, h2, k)
	h3 += k
	t2, k = bits.Add64(t2, l0, 0)
	t3, k = bits.Add64(t3, l1, k)
	t4, k = bits.Add64(t4, l2, k)
	t5, k = bits.Add64(t5, l3, k)
	t6 := h3 + k

	h0, l0 = bits.Mul64(x0, y3)
	h1, l1 = bits.Mul64(x1, y3)
	h2, l2 = bits.Mul64(x2, y3)
	h3, l3 = bits.Mul64(x3, y3)
	l1, k = bits.Add64(l1, h0, 0)
	l2, k = bits.Add64(l2, h1, k)
	l3, k = bits.Add64(l3, h2, k)
	h3 += k
	t3, k = bits.Add64(t3, l0, 0)
	t4, k = bits.Add64(t4, l1, k)
	t5, k = bits.Add64(t5, l2, k)
	t6, k = bits.Add64(t6, l3, k)
	t7 := h3 + k

	// The upper half comes down as c times itself, twice. (sqr repeats these
	// lines: called as a function they cost a tenth of a verification.)
	h0, l0 = bits.Mul64(t4, c)
	h1, l1 = bits.Mul64(t5, c)
	h2, l2 = bits.Mul64(t6, c)
	h3, l3 = bits.Mul64(t7, c)
	l1, k = bits.Add64(l1, h0, 0)
	l2, k = bits.Add64(l2, h1, k)
	l3, k = bits.Add64(l3, h2, k)
	h3 += k
	t0, k = bits.Add64(t0, l0, 0)
	t1, k = bits.Add64(t1, l1, k)
	t2, k = bits.Add64(t2, l2, k)
	t3, k = bits.Add64(t3, l3, k)

	h0, l0 = bits.Mul64(h3+k, c)
	t0, k = bits.Add64(t0, l0, 0)
	t1, k = bits.Add64(t1, h0, k)
	t2, k = bits.Add64(t2, 0, k)
	t3, k = bits.Add64(t3, 0, k)
	// A carry leaves less than 2⁶⁸, to which c adds without another.
	t0, k = bits.Add64(t0, -k&c, 0)
	z[0], z[1], z[2], z[3] = t0, t1+k, t2, t3
}

func (z *fe) sqr(x *fe) {
	x0, x1, x2, x3 := x[0], x[1], x[2], x[3]

	// The products of different limbs, once each.
	h0, t1 := bits.Mul64(x0, x1)
	h1, l1 := bits.Mul64(x0, x2)
	h2, l2 := bits.Mul64(x0, x3)
	t2, k := bits.Add64(l1, h0, 0)
	t3, k := bits.Add64(l2, h1, k)
	t4 := h2 + k
	h0, l0 := bits.Mul64(x1, x2)
	h1, l1 = bits.Mul64(x1, x3)
	l1, k = bits.Add64(l1, h0, 0)
	h1 += k
	t3, k = bits.Add64(t3, l0, 0)
	t4, k = bits.Add64(t4, l1, k)
	t5 := h1 + k
	h0, l0 = bits.Mul64(x2, x3)
	t5, k = bits.Add64(t5, l0, 0)
	t6 := h0 + k

	// Twice that, and the squares.
	t7 := t6 >> 63
	t6 = t6<<1 | t5>>63
	t5 = t5<<1 | t4>>63
	t4 = t4<<1 | t3>>63
	t3 = t3<<1 | t2>>63
	t2 = t2<<1 | t1>>63
	t1 <<= 1
	h0, t0 := bits.Mul64(x0, x0)
	h1, l1 = bits.Mul64(x1, x1)
	h2, l2 = bits.Mul64(x2, x2)
	h3, l3 := bits.Mul64(x3, x3)
	t1, k = bits.Add64(t1, h0, 0)
	t2, k = bits.Add64(t2, l1, k)
	t3, k = bits.Add64(t3, h1, k)
	t4, k = bits.Add64(t4, l2, k)
	t5, k = bits.Add64(t5, h2, k)
	t6, k = bits.Add64(t6, l3, k)
	t7 += h3 + k

	// As in mul.
	h0, l0 = bits.Mul64(t4, c)
	h1, l1 = bits.Mul64(t5, c)
	h2, l2 = bits.Mul64(t6, c)
	h3, l3 = bits.Mul64(t7, c)
	l1, k = bits.Add64(l1, h0, 0)
	l2, k = bits.Add64(l2, h1, k)
	l3, k = bits.Add64(l3, h2, k)
	h3 += k
	t0, k = bits.Add64(t0, l0, 0)
	t1, k = bits.Add64(t1, l1, k)
	t2, k = bits.Add64(t2, l2, k)
	t3, k = bits.Add64(t3, l3, k)

	h0, l0 = bits.Mul64(h3+k, c)
	t0, k = bits.Add64(t0, l0, 0)
	t1, k = bits.Add64(t1, h0, k)
	t2, k = bits.Add64(t2, 0, k)
	t3, k = bits.Add64(t3, 0, k)
	// A carry leaves less than 2⁶⁸, to which c adds without another.
	t0, k = bits.Add64(t0, -k&c, 0)
	z[0], z[1], z[2], z[3] = t0, t1+k, t2, t3
}

// sqrN squares x n times.
func (z *fe) sqrN(x *fe, n int) {
	z.sqr(x)
	for range n - 1 {
		z.sqr(z)
	}
}

// powers returns x to the powers 2²−1, 2²²−1 and 2²²³−1, the common part of the
// exponents of sqrt and inv.
func (x *fe) powers() (x2, x22, x223 fe) {
	raise := func(a *fe, n int, b *fe) (z fe) { // a^(2ⁿ) · b
		z.sqrN(a, n)
		z.mul(&z, b)
		return z
	}
	x2 = raise(x, 1, x)
	x3 := raise(&x2, 1, x)
	x6 := raise(&x3, 3, &x3)
	x9 := raise(&x6, 3, &x3)
	x11 := raise(&x9, 2, &x2)
	x22 = raise(&x11, 11, &x11)
	x44 := raise(&x22, 22, &x22)
	x88 := raise(&x44, 44, &x44)
	x176 := raise(&x88, 88, &x88)
	x220 := raise(&x176, 44, &x44)
	x223 = raise(&x220, 3, &x3)
	return x2, x22, x223
}

// inv sets z to 1/x = x^(p−2), and to 0 for x = 0.
func (z *fe) inv(x *fe) {
	x2, x22, t := x.powers()
	a := *x
	t.sqrN(&t, 23)
	t.mul(&t, &x22)
	t.sqrN(&t, 5)
	t.mul(&t, &a)
	t.sqrN(&t, 3)
	t.mul(&t, &x2)
	t.sqrN(&t, 2)
	z.mul(&t, &a)
}

// sqrt sets z to a square root of x, x^((p+1)/4), and reports whether x has one.
func (z *fe) sqrt(x *fe) bool {
	x2, x22, t := x.powers()
	a := *x
	t.sqrN(&t, 23)
	t.mul(&t, &x22)
	t.sqrN(&t, 6)
	t.mul(&t, &x2)
	z.sqrN(&t, 2)
	t.sqr(z)
	return t.equal(&a)
}
