package envelope

import (
	"fmt"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// xor encrypts or decrypts, in place, what lies in payload between nonce and
// MAC: with ChaCha20 from block 0. The MAC's bytes are overwritten.
//
// x/crypto has fast assembly for amd64 only inside its AEAD, whose keystream
// begins with block 1. So block 0 is done by the plain cipher, and the AEAD
// leaves its tag where the MAC is not yet or no longer needed. That takes a
// fraction of the plain cipher's time.
func (k *messageKeys) xor(payload []byte) error {
	const block = 64
	first, err := chacha20.NewUnauthenticatedCipher(k.cipher[:], k.nonce[:])
	if err != nil {
		return fmt.Errorf("envelope: chacha20: %w", err)
	}
	text := payload[payloadStart : len(payload)-macSize]
	n := min(block, len(text))
	first.XORKeyStream(text[:n], text[:n])
	if text = text[n:]; len(text) == 0 {
		return nil
	}
	rest, err := chacha20poly1305.New(k.cipher[:])
	if err != nil {
		return fmt.Errorf("envelope: chacha20: %w", err)
	}
	rest.Seal(text[:0], k.nonce[:], text, nil)
	return nil
}
