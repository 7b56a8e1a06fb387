package envelope

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/segmentio/asm/base64"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/sha2x"
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
	var nonce [nonceSize]byte
	rand.Read(nonce[:])
	return s.seal(dst, &t, key, &nonce)
}

func (s *Sealer) seal(dst []byte, t *Template, key *[32]byte, nonce *[nonceSize]byte) (event []byte, id [32]byte, err error) {
	size := payloadLen(len(t.Content))
	if cap(s.scratch) < size {
		s.scratch = make([]byte, size)
	}
	payload := s.scratch[:size]
	var w writer
	text := base64.StdEncoding.EncodedLen(size)
	if err := w.begin(dst, s.author, t, &s.to, text); err != nil {
		return dst, id, err
	}
	var keys messageKeys
	keys.encrypt(payload, t.Content, key, nonce)
	if sha2x.Available() {
		id = w.closeTogether(&keys, payload)
	} else {
		id = w.closeApart(&keys, payload)
	}
	return w.sign(&id), id, nil
}

// closeApart completes payload by its MAC, writes it as the content and returns
// the event's id.
func (w *writer) closeApart(keys *messageKeys, payload []byte) (id [32]byte) {
	end := len(payload) - macSize
	mac := keyedHash(&keys.mac, payload[1:end])
	copy(payload[end:], mac[:])
	w.encode(payload)
	return w.close()
}

// closeTogether does the same in less time. The MAC and the id are hashes of the
// same bytes, all but the last few, so they can be computed side by side.
func (w *writer) closeTogether(keys *messageKeys, payload []byte) [32]byte {
	end := len(payload) - macSize
	early := end - end%3 // bytes whose base64 does not depend on the MAC
	w.encode(payload[:early])

	var mac, id sha2x.Digest
	pad := innerPad(&keys.mac)
	mac.Write(pad[:])
	for _, part := range w.head() {
		id.Write(part)
	}
	sha2x.Write2(&mac, payload[1:end], &id, w.buf[w.content:])
	inner := mac.Sum()
	sum := outerHash(&keys.mac, &inner)
	copy(payload[end:], sum[:])

	late := len(w.buf)
	w.encode(payload[early:])
	w.buf = append(w.buf, '"')
	id.Write(w.buf[late:])
	id.Write([]byte("]"))
	return id.Sum()
}

// encode appends b in base64.
func (w *writer) encode(b []byte) {
	n := len(w.buf)
	w.buf = w.buf[:n+base64.StdEncoding.EncodedLen(len(b))]
	base64.StdEncoding.Encode(w.buf[n:], b)
}

// Format prints a placeholder whatever the verb: a Sealer holds keys.
func (Sealer) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[sealer]") }
