package envelope

import (
	"fmt"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// xorKeyStream encrypts or decrypts data in place with ChaCha20 from block 0.
// The 16 bytes of capacity behind data, which it must have, are overwritten: in
// a payload the MAC is there, not yet written or no longer needed.
//
// x/crypto has fast assembly for amd64 only inside its AEAD, whose keystream
// begins with block 1: so block 0 is done by the plain cipher, and the AEAD's
// tag thrown away. This takes a quarter of the time of the plain cipher.
func xorKeyStream(key *[32]byte, nonce *[12]byte, data []byte) error {
	const block = 64
	first, err := chacha20.NewUnauthenticatedCipher(key[:], nonce[:])
	if err != nil {
		return fmt.Errorf("envelope: chacha20: %w", err)
	}
	n := min(block, len(data))
	first.XORKeyStream(data[:n], data[:n])
	if len(data) <= block {
		return nil
	}
	rest, err := chacha20poly1305.New(key[:])
	if err != nil {
		return fmt.Errorf("envelope: chacha20: %w", err)
	}
	rest.Seal(data[block:block], nonce[:], data[block:], nil)
	return nil
}
