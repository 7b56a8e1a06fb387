//go:build !amd64

package envelope

import (
	"fmt"

	"golang.org/x/crypto/chacha20"
)

// xorKeyStream encrypts or decrypts data in place with ChaCha20 from block 0.
// The 16 bytes of capacity behind data may be overwritten (amd64 does).
func xorKeyStream(key *[32]byte, nonce *[12]byte, data []byte) error {
	c, err := chacha20.NewUnauthenticatedCipher(key[:], nonce[:])
	if err != nil {
		return fmt.Errorf("envelope: chacha20: %w", err)
	}
	c.XORKeyStream(data, data)
	return nil
}
