package envelope

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/segmentio/asm/base64"
)

// Sealer makes encrypted, signed events from one author to one peer. It keeps a
// buffer for the ciphertext, as large as the longest so far. Not for concurrent
// use.
type Sealer struct {
	author  SecretKey
	to      PublicKey
	key     ConversationKey
	scratch []byte
}

// NewSealer returns a Sealer of events signed by author, addressed to the key
// to, and encrypted under key. Sealing fails when author or key is the zero
// value.
func NewSealer(author SecretKey, to PublicKey, key ConversationKey) *Sealer {
	return &Sealer{author: author, to: to, key: key}
}

// Seal appends to dst a complete signed event of kind [KindNWS] whose content
// is plaintext, 1 to [MaxPlaintext] bytes of it, encrypted, and whose only tag
// is a p tag with the peer's key. It returns the event and its id; on error dst
// as it was. Nothing is kept of plaintext. With room enough in dst, nothing of
// the event's size is allocated.
func (s *Sealer) Seal(dst, plaintext []byte, now time.Time) (event []byte, id [32]byte, err error) {
	return s.SealTo(dst, Template{Kind: KindNWS, CreatedAt: now, Content: plaintext})
}

// SealTo is Seal for events of any kind: t.Content is the plaintext, and t.Tags
// follow the p tag.
func (s *Sealer) SealTo(dst []byte, t Template) (event []byte, id [32]byte, err error) {
	key := s.key.bytes()
	if key == nil {
		return dst, id, errNoKey
	}
	if n := len(t.Content); n == 0 || n > MaxPlaintext {
		return dst, id, fmt.Errorf("envelope: seal: %d bytes: an event takes 1 to %d", n, MaxPlaintext)
	}
	size := payloadLen(len(t.Content))
	if cap(s.scratch) < size {
		s.scratch = make([]byte, size)
	}
	payload := s.scratch[:size]
	var nonce [nonceSize]byte
	rand.Read(nonce[:])
	if err := encrypt(payload, t.Content, key, &nonce); err != nil {
		return dst, id, err
	}

	var w writer
	text := base64.StdEncoding.EncodedLen(size)
	if err := w.begin(dst, s.author, &t, &s.to, text); err != nil {
		return dst, id, err
	}
	n := len(w.buf)
	w.buf = w.buf[:n+text]
	base64.StdEncoding.Encode(w.buf[n:], payload)
	event, id = w.finish()
	return event, id, nil
}

// Format prints a placeholder whatever the verb: a Sealer holds keys.
func (Sealer) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[sealer]") }
