package chacha

import (
	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// xorPlain uses the AEAD, whose keystream begins with block 1. So block 0 is
// done by the plain cipher, and what is short or at the end as well: the AEAD
// puts its tag behind the text, for which there must be room within.
func xorPlain(text []byte, key *[32]byte, nonce *[12]byte) {
	const block = 64
	c, err := chacha20.NewUnauthenticatedCipher(key[:], nonce[:])
	if err != nil {
		panic(err) // says that a length is wrong
	}
	n := len(text) / block
	if n < 8 {
		c.XORKeyStream(text, text)
		return
	}
	c.XORKeyStream(text[:block], text[:block])
	// The tag falls on the last block, which is put back and done by itself.
	last := (n - 1) * block
	var kept [2 * block]byte
	rest := kept[:copy(kept[:], text[last:])]
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic(err)
	}
	aead.Seal(text[block:block], nonce[:], text[block:last], nil)
	c.SetCounter(uint32(n - 1))
	c.XORKeyStream(text[last:], rest)
}
