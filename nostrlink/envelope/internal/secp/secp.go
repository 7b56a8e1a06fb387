// Package secp is the arithmetic that Nostr needs of the curve secp256k1:
// BIP-340 signatures and the shared x coordinate of NIP-44.
//
// It exists because of speed and of timing. Its field has four 64-bit limbs,
// which multiply three times as fast as the ten 26-bit limbs of decred's
// package, and the operations on secrets (PublicKey, Sign, SharedX) neither
// branch on them nor index memory by them, which decred's do. Verify takes
// what time it takes: all its inputs are public. Arithmetic modulo the group
// order is decred's ModNScalar; its Add, Mul and Negate are constant-time.
package secp

import (
	"encoding/binary"
	"math/bits"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// Scalar is a number modulo the group order.
type Scalar = secp256k1.ModNScalar

// limbs returns k with its least significant limb first.
func limbs(k *Scalar) (l [4]uint64) {
	b := k.Bytes()
	for i := range l {
		l[i] = binary.BigEndian.Uint64(b[24-8*i:])
	}
	clear(b[:])
	return l
}

// PublicKey returns the x coordinate of d·G and whether its y is odd. d must
// not be zero.
func PublicKey(d *Scalar) (x [32]byte, odd bool) {
	p := multiplyBase(d)
	return p.x.bytes(), p.y.odd() == 1
}

// OnCurve reports whether a point has this x coordinate.
func OnCurve(x *[32]byte) bool {
	var p affine
	return p.lift(x)
}

// SharedX returns the x coordinate of d·P, P being a point with the x
// coordinate given, and false when there is none. d must not be zero.
func SharedX(d *Scalar, x *[32]byte) ([32]byte, bool) {
	var p affine
	if !p.lift(x) {
		return [32]byte{}, false
	}
	shared := multiply(d, &p)
	return shared.x.bytes(), true
}

// digits is an odd scalar in signed digits: the sum of (2u−15)·16ⁱ over its 64
// nibbles u. All digits are odd, so no step of a multiplication can be told
// from another, and none meets the point at infinity.
type digits [4]uint64

// recode returns the digits of d if it is odd and of −d otherwise, and a mask
// that is all ones in the latter case.
//
// The sum over all i of 2u·16ⁱ − 15·16ⁱ is 2U − 2²⁵⁶ + 1 for U made of the
// nibbles, which is d for U = (d >> 1) + 2²⁵⁵.
func recode(d *Scalar) (u digits, negative uint64) {
	var minus Scalar
	minus.NegateVal(d)
	l, m := limbs(d), limbs(&minus)
	negative = l[0]&1 - 1
	for i := range l {
		l[i] ^= (l[i] ^ m[i]) & negative
	}
	minus.Zero()
	u[0] = l[0]>>1 | l[1]<<63
	u[1] = l[1]>>1 | l[2]<<63
	u[2] = l[2]>>1 | l[3]<<63
	u[3] = l[3]>>1 | 1<<63
	return u, negative
}

// at returns digit i as an index into a table of the odd multiples 1, 3 … 15,
// and a mask that is all ones when it is negative.
func (u *digits) at(i int) (index, negative uint64) {
	n := u[i/16] >> (i % 16 * 4) & 15
	negative = n>>3 - 1
	return (n ^ negative) & 7, negative
}

// maskEqual returns all ones if a = b, both below 2³², else zero.
func maskEqual(a, b uint64) uint64 {
	_, borrow := bits.Sub64(a^b, 1, 0)
	return -borrow
}
