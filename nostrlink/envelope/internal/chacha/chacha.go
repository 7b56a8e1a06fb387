// Package chacha is ChaCha20 (RFC 8439) as NIP-44 uses it: from block 0, over
// one message per key.
//
// golang.org/x/crypto has fast code for amd64 in its AEAD only, which also
// authenticates and stops at AVX2. Where the processor has AVX-512, sixteen
// blocks at a time take a third of the time.
package chacha

// XOR encrypts or decrypts text in place.
func XOR(text []byte, key *[32]byte, nonce *[12]byte) {
	if wide {
		xorWide(text, key, nonce)
	} else {
		xorPlain(text, key, nonce)
	}
}
