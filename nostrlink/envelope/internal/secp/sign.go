package secp

import "crypto/sha256"

var (
	auxTag   = tag("BIP0340/aux")
	nonceTag = tag("BIP0340/nonce")
)

// Sign writes the BIP-340 signature of msg to sig: by the key d, whose public
// key is pub and odd as [PublicKey] returned them. aux is fresh randomness; the
// nonce depends on it, the key and the message, so that even a repeated aux
// reveals nothing.
func Sign(sig *[64]byte, d *Scalar, pub *[32]byte, odd bool, msg, aux *[32]byte) {
	key := *d
	if odd {
		key.Negate()
	}
	var k, e Scalar
	nonce(&k, &key, pub, msg, aux)
	r := multiplyBase(&k)
	if r.y.odd() == 1 { // which of k and −k it was tells nothing of either
		k.Negate()
	}
	x := r.x.bytes()
	challenge(&e, &x, pub, msg)
	e.Mul(&key).Add(&k)
	copy(sig[:32], x[:])
	e.PutBytesUnchecked(sig[32:])
	k.Zero()
	key.Zero()
}

// nonce sets k to BIP-340's nonce.
func nonce(k, key *Scalar, pub, msg, aux *[32]byte) {
	var b [160]byte
	copy(b[:], auxTag[:])
	copy(b[64:], aux[:])
	mask := sha256.Sum256(b[:96])

	copy(b[:], nonceTag[:])
	key.PutBytesUnchecked(b[64:96])
	for i := range mask {
		b[64+i] ^= mask[i]
	}
	copy(b[96:], pub[:])
	copy(b[128:], msg[:])
	h := sha256.Sum256(b[:])
	k.SetBytes(&h)
	clear(b[:])
	clear(h[:])
	if k.IsZero() { // has probability 2⁻²⁵⁶; the standard says to fail
		k.SetInt(1)
	}
}
