//go:build !amd64

package envelope

import (
	"fmt"

	"golang.org/x/crypto/chacha20"
)

// xor encrypts or decrypts, in place, what lies in payload between nonce and
// MAC: with ChaCha20 from block 0. The MAC's bytes may be overwritten (amd64
// does).
func (k *messageKeys) xor(payload []byte) error {
	c, err := chacha20.NewUnauthenticatedCipher(k.cipher[:], k.nonce[:])
	if err != nil {
		return fmt.Errorf("envelope: chacha20: %w", err)
	}
	text := payload[payloadStart : len(payload)-macSize]
	c.XORKeyStream(text, text)
	return nil
}
