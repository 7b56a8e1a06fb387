package chacha

import (
	"bytes"
	"testing"

	"golang.org/x/crypto/chacha20"
)

// TestAgainstTheirs compares both ways with golang.org/x/crypto's cipher, for
// lengths around blocks and chunks.
func TestAgainstTheirs(t *testing.T) {
	for seed := range byte(8) {
		var key [32]byte
		var nonce [12]byte
		for i := range key {
			key[i] = byte(i)*11 + seed*37
		}
		for i := range nonce {
			nonce[i] = byte(i)*7 ^ seed*91
		}
		for n := range 3*1024 + 70 {
			if n%63 != int(seed) && n%64 > 1 {
				continue
			}
			compare(t, n, &key, &nonce)
		}
		compare(t, 65536+34, &key, &nonce)
	}
}

func compare(t *testing.T, n int, key *[32]byte, nonce *[12]byte) {
	t.Helper()
	text := make([]byte, n+64) // what follows the n bytes stays
	for i := range text {
		text[i] = byte(i * 5)
	}
	want := bytes.Clone(text)
	c, err := chacha20.NewUnauthenticatedCipher(key[:], nonce[:])
	if err != nil {
		t.Fatal(err)
	}
	c.XORKeyStream(want[:n], want[:n])
	ways := map[string]func([]byte, *[32]byte, *[12]byte){"plain": xorPlain}
	if wide {
		ways["wide"] = xorWide
	}
	for name, xor := range ways {
		got := bytes.Clone(text)
		xor(got[:n], key, nonce)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes differ", name, n)
		}
	}
}

// TestStandardVector is RFC 8439, A.1, test vectors 1 and 2: blocks 0 and 1.
func TestStandardVector(t *testing.T) {
	text := make([]byte, 128)
	XOR(text, new([32]byte), new([12]byte))
	if want := []byte{0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90}; !bytes.HasPrefix(text, want) {
		t.Errorf("block 0 begins with %x, want %x", text[:8], want)
	}
	if want := []byte{0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a}; !bytes.HasPrefix(text[64:], want) {
		t.Errorf("block 1 begins with %x, want %x", text[64:72], want)
	}
}

func BenchmarkXOR(b *testing.B) {
	text := make([]byte, 40962)
	b.Run("plain", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			xorPlain(text, new([32]byte), new([12]byte))
		}
	})
	if !wide {
		return
	}
	b.Run("wide", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			xorWide(text, new([32]byte), new([12]byte))
		}
	})
}
