package envelope

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"

	"github.com/segmentio/asm/base64"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/chacha"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/sha2x"
)

// A NIP-44 version 2 payload, before base64:
//
//	version 2 (1) | nonce (32) | ciphertext | HMAC-SHA-256 of nonce and ciphertext (32)
//
// The ciphertext is ChaCha20, from block 0, over
//
//	length, big endian (2) | plaintext | zeros up to the padded length
const (
	nip44Version = 2
	nonceSize    = 32
	macSize      = 32
	payloadStart = 1 + nonceSize // of the ciphertext
	maxOpen      = 65535         // what 16 bits of length can tell
	minPayload   = payloadStart + 2 + 32 + macSize
	maxPayload   = payloadStart + 2 + 65536 + macSize
	minContent   = (minPayload + 2) / 3 * 4
	maxContent   = (maxPayload + 2) / 3 * 4
)

var (
	errPayload = errors.New("envelope: open: not a NIP-44 payload: wrong length or encoding")
	errVersion = errors.New("envelope: open: encrypted in a version of NIP-44 other than 2")
	errMAC     = errors.New("envelope: open: wrong MAC: altered on the way, or sealed under another key")
	errPadding = errors.New("envelope: open: wrong padding")
)

// Open decrypts content, a NIP-44 version 2 payload in base64, appends the
// plaintext to dst and returns the longer slice. On error it returns dst as it
// was. The capacity of dst behind its length is used as scratch: with 64 KiB of
// it nothing of the payload's size is allocated. content is only read and must
// not overlap that.
//
// The MAC is compared in constant time, before anything is decrypted.
func Open(dst, content []byte, key ConversationKey) ([]byte, error) {
	var s sealed
	if err := s.read(dst, content, key); err != nil {
		return dst, err
	}
	if err := s.open(keyedHash(&s.keys.mac, s.hashed())); err != nil {
		return dst, err
	}
	return s.dst, nil
}

// sealed is a payload that is being opened.
type sealed struct {
	dst     []byte // with the payload in its capacity
	payload []byte
	keys    messageKeys
}

// read decodes content into the capacity of dst, which it makes larger if need
// be, and derives the keys.
func (s *sealed) read(dst, content []byte, key ConversationKey) error {
	k := key.bytes()
	if k == nil {
		return errNoKey
	}
	if len(content) > 0 && content[0] == '#' {
		return errVersion
	}
	if len(content) < minContent || len(content) > maxContent || len(content)%4 != 0 {
		return errPayload
	}
	size := base64.StdEncoding.DecodedLen(len(content))
	s.dst = slices.Grow(dst, size)
	payload := s.dst[len(dst) : len(dst)+size]
	n, err := base64.StdEncoding.Decode(payload, content)
	// The decoder skips line ends, which no payload has: its size tells.
	if err != nil || n != size-padding(content) || n < minPayload || n > maxPayload {
		return errPayload
	}
	s.payload = payload[:n]
	if payload[0] != nip44Version {
		return errVersion
	}
	s.keys.derive(k, (*[nonceSize]byte)(payload[1:payloadStart]))
	return nil
}

// hashed is what the MAC is of.
func (s *sealed) hashed() []byte { return s.payload[1 : len(s.payload)-macSize] }

// open checks the MAC, decrypts and appends the plaintext to dst.
func (s *sealed) open(mac [macSize]byte) error {
	n := len(s.payload) - macSize
	if !hmac.Equal(mac[:], s.payload[n:]) {
		return errMAC
	}
	padded := s.payload[payloadStart:n]
	chacha.XOR(padded, &s.keys.cipher, &s.keys.nonce)
	length := int(binary.BigEndian.Uint16(padded))
	if length == 0 || len(padded) != 2+paddedLen(length) {
		return errPadding
	}
	copy(s.payload, padded[2:2+length])
	s.dst = s.dst[:len(s.dst)+length]
	return nil
}

// openBoth is open for two payloads, MACs included. For long ones it takes less
// time than one after the other.
func openBoth(a, b *sealed) (errA, errB error) {
	if !sha2x.Available() {
		return a.open(keyedHash(&a.keys.mac, a.hashed())), b.open(keyedHash(&b.keys.mac, b.hashed()))
	}
	var x, y sha2x.Digest
	padA, padB := innerPad(&a.keys.mac), innerPad(&b.keys.mac)
	sha2x.Write2(&x, padA[:], &y, padB[:])
	sha2x.Write2(&x, a.hashed(), &y, b.hashed())
	innerA, innerB := x.Sum(), y.Sum()
	return a.open(outerHash(&a.keys.mac, &innerA)), b.open(outerHash(&b.keys.mac, &innerB))
}

// padding returns how many bytes short of a multiple of three the base64 text
// says it is.
func padding(text []byte) int {
	n := len(text)
	switch {
	case text[n-1] != '=':
		return 0
	case text[n-2] != '=':
		return 1
	}
	return 2
}

// payloadLen returns the length of a payload, before base64.
func payloadLen(plaintext int) int {
	return payloadStart + 2 + paddedLen(plaintext) + macSize
}

// encrypt writes all of the payload that seals plaintext, but for its MAC, to
// payload, which must have its length, and fills in the keys.
func (k *messageKeys) encrypt(payload, plaintext []byte, key *[32]byte, nonce *[nonceSize]byte) {
	payload[0] = nip44Version
	copy(payload[1:], nonce[:])
	padded := payload[payloadStart : len(payload)-macSize]
	binary.BigEndian.PutUint16(padded, uint16(len(plaintext)))
	clear(padded[2+copy(padded[2:], plaintext):])
	k.derive(key, nonce)
	chacha.XOR(padded, &k.cipher, &k.nonce)
}

// paddedLen returns the length that NIP-44 pads n > 0 bytes to: a multiple of
// an eighth of the next power of two, of 32 at least.
func paddedLen(n int) int {
	step := max(32, 1<<bits.Len(uint(n-1))/8)
	return (n + step - 1) / step * step
}

// messageKeys are the keys of one payload.
type messageKeys struct {
	cipher [32]byte
	nonce  [12]byte
	mac    [32]byte
}

// derive fills k by HKDF-Expand (RFC 5869) of the conversation key, the nonce
// being the info: 76 bytes, hence three rounds.
func (k *messageKeys) derive(key *[32]byte, nonce *[nonceSize]byte) {
	t1 := keyedHash(key, nonce[:], []byte{1})
	t2 := keyedHash(key, t1[:], nonce[:], []byte{2})
	t3 := keyedHash(key, t2[:], nonce[:], []byte{3})
	k.cipher = t1
	copy(k.nonce[:], t2[:12])
	copy(k.mac[:], t2[12:])
	copy(k.mac[20:], t3[:12])
}

// keyedHash is HMAC-SHA-256 (RFC 2104) for keys of 32 bytes. It differs from
// crypto/hmac in that it allocates nothing: a payload needs four.
func keyedHash(key *[32]byte, parts ...[]byte) (sum [sha256.Size]byte) {
	inner := sha256.New()
	pad := innerPad(key)
	inner.Write(pad[:])
	for _, p := range parts {
		inner.Write(p)
	}
	inner.Sum(sum[:0])
	return outerHash(key, &sum)
}

// innerPad is the block that the inner hash of HMAC begins with.
func innerPad(key *[32]byte) (pad [sha256.BlockSize]byte) {
	for i := range pad {
		pad[i] = 0x36
	}
	for i, b := range key {
		pad[i] ^= b
	}
	return pad
}

// outerHash makes the HMAC of its inner hash.
func outerHash(key *[32]byte, inner *[sha256.Size]byte) [sha256.Size]byte {
	var b [sha256.BlockSize + sha256.Size]byte
	pad := innerPad(key)
	for i := range pad {
		b[i] = pad[i] ^ 0x36 ^ 0x5c
	}
	copy(b[sha256.BlockSize:], inner[:])
	return sha256.Sum256(b[:])
}
