//go:build !amd64

package chacha

import "golang.org/x/crypto/chacha20"

const wide = false

func xorWide([]byte, *[32]byte, *[12]byte) { panic("chacha: not available") }

func xorPlain(text []byte, key *[32]byte, nonce *[12]byte) {
	c, err := chacha20.NewUnauthenticatedCipher(key[:], nonce[:])
	if err != nil {
		panic(err) // says that a length is wrong
	}
	c.XORKeyStream(text, text)
}
