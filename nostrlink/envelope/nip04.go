package envelope

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"log/slog"
	"slices"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/secp"
)

// A NIP-04 content is AES-256 in CBC mode with PKCS #7 padding:
//
//	base64(ciphertext) ?iv= base64(initialization vector, 16 bytes)
//
// NIP-04 is deprecated and here only to be read: programs that know the older
// text of NWS still write it.
const (
	nip04Mark       = "?iv="
	nip04IV         = 24 // base64 of 16 bytes
	maxNIP04Content = (maxOpen+aes.BlockSize)/3*4 + 4 + len(nip04Mark) + nip04IV
)

// errNIP04 is all that the opener says of a bad content: what exactly was wrong
// would be an oracle for whoever may send variations.
var errNIP04 = errors.New("envelope: open: not a NIP-04 content that this key opens")

// NIP04Key is the secret that two keys share in NIP-04: the bare x coordinate
// of their shared point. The zero value holds none. As with [SecretKey], copies
// share it and nothing prints it.
type NIP04Key struct{ k **[32]byte }

// ConversationNIP04 computes the key that sk and pk share in NIP-04; both ends
// get the same. It costs a point multiplication. It fails when sk holds no key
// or pk is not a point of the curve.
func ConversationNIP04(sk SecretKey, pk PublicKey) (NIP04Key, error) {
	k := sk.secret()
	if k == nil {
		return NIP04Key{}, errNoKey
	}
	x, ok := secp.SharedX(&k.d, (*[32]byte)(&pk))
	if !ok {
		return NIP04Key{}, errOffCurve
	}
	own := &x
	return NIP04Key{&own}, nil
}

// IsNIP04 reports whether content is meant to be NIP-04's. No payload of
// NIP-44 is.
func IsNIP04(content []byte) bool {
	return len(content) > nip04IV+len(nip04Mark) &&
		bytes.HasPrefix(content[len(content)-nip04IV-len(nip04Mark):], []byte(nip04Mark))
}

// OpenNIP04 decrypts content as NIP-04 has it, appends the plaintext to dst and
// returns the longer slice; on error dst as it was. content is only read.
//
// NIP-04 has no MAC: whoever carries a content can alter it. So the event
// around it must have been verified, and even then the author alone vouches for
// what comes out. The sender must not learn whether a content opened.
func OpenNIP04(dst, content []byte, key NIP04Key) ([]byte, error) {
	if key.k == nil || **key.k == ([32]byte{}) {
		return dst, errNoKey
	}
	if !IsNIP04(content) || len(content) > maxNIP04Content {
		return dst, errNIP04
	}
	split := len(content) - nip04IV - len(nip04Mark)
	var iv [aes.BlockSize + 2]byte // as the decoder counts
	if n, ok := decodeStrictly(iv[:], content[split+len(nip04Mark):]); !ok || n != aes.BlockSize {
		return dst, errNIP04
	}
	text := slices.Grow(dst, base64.StdEncoding.DecodedLen(split))
	text = text[len(dst):cap(text)]
	n, ok := decodeStrictly(text, content[:split])
	if !ok || n == 0 || n%aes.BlockSize != 0 {
		return dst, errNIP04
	}
	text = text[:n]
	block, err := aes.NewCipher((*key.k)[:])
	if err != nil {
		return dst, errNIP04
	}
	cipher.NewCBCDecrypter(block, iv[:aes.BlockSize]).CryptBlocks(text, text)
	plain, ok := unpad(text)
	if !ok {
		clear(text)
		return dst, errNIP04
	}
	return append(dst, plain...), nil
}

// decodeStrictly decodes base64 in the one way to write it.
func decodeStrictly(dst, text []byte) (n int, ok bool) {
	if len(text) == 0 || len(text)%4 != 0 {
		return 0, false
	}
	n, err := base64.StdEncoding.Strict().Decode(dst, text)
	// The decoder skips line ends: the size tells.
	return n, err == nil && n == base64.StdEncoding.DecodedLen(len(text))-padding(text)
}

// unpad takes the padding off (RFC 5652, section 6.3), in the same time for
// every padding. text is at least a block.
func unpad(text []byte) (plain []byte, ok bool) {
	size := int(text[len(text)-1])
	good := subtle.ConstantTimeLessOrEq(1, size) & subtle.ConstantTimeLessOrEq(size, aes.BlockSize)
	for i := range aes.BlockSize {
		inside := subtle.ConstantTimeLessOrEq(i+1, size)
		same := subtle.ConstantTimeByteEq(text[len(text)-1-i], byte(size))
		good &= subtle.ConstantTimeSelect(inside, same, 1)
	}
	if good == 0 {
		return nil, false
	}
	return text[:len(text)-size], true
}

// Wipe overwrites the key in memory, in every copy of k.
func (k NIP04Key) Wipe() {
	if k.k != nil {
		clear((*k.k)[:])
	}
}

// String returns a placeholder.
func (NIP04Key) String() string { return "[secret]" }

// GoString returns a placeholder.
func (NIP04Key) GoString() string { return "[secret]" }

// LogValue returns a placeholder.
func (NIP04Key) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText always fails.
func (NIP04Key) MarshalText() ([]byte, error) { return nil, errNotMarshalled }
