package secp

import "crypto/sha256"

// Verify reports whether sig is pub's BIP-340 signature of msg.
func Verify(pub, msg *[32]byte, sig *[64]byte) bool {
	var p affine
	var c claim
	if !p.lift(pub) || !c.read(pub, msg, sig) {
		return false
	}
	sum := combine(&c.s, &c.e, &p)
	return c.holds(&sum)
}

// claim is a signature's: that s·G + e·P is the point with the x coordinate r
// and an even y.
type claim struct {
	r    fe
	s, e Scalar
}

func (c *claim) read(pub, msg *[32]byte, sig *[64]byte) bool {
	r := (*[32]byte)(sig[:32])
	if !c.r.setBytes(r) || c.s.SetBytes((*[32]byte)(sig[32:])) != 0 {
		return false
	}
	challenge(&c.e, r, pub, msg)
	c.e.Negate()
	return true
}

func (c *claim) holds(sum *jacobian) bool {
	if sum.z == (fe{}) {
		return false
	}
	// Whether x is r can be told without the inversion that y needs.
	var t fe
	t.sqr(&sum.z)
	t.mul(&t, &c.r)
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
