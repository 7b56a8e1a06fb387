package envelope

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/secp"
)

// Template is an event before it is signed.
type Template struct {
	Kind      int // 0 to 65535
	CreatedAt time.Time
	Tags      [][]string
	Content   []byte // UTF-8 for Sign, anything for SealTo
}

const maxKind = 65535

var errTemplate = errors.New("envelope: sign: a kind outside 0…65535, a time before 1970 or text that is not UTF-8")

// Sign appends the complete JSON of the event that t describes, signed by
// author, to dst, and returns it with the event's id. On error it returns dst
// as it was.
func Sign(dst []byte, author SecretKey, t Template) (event []byte, id [32]byte, err error) {
	if !utf8.Valid(t.Content) {
		return dst, id, errTemplate
	}
	var w writer
	if err := w.begin(dst, author, &t, nil, len(t.Content)); err != nil {
		return dst, id, err
	}
	w.buf = appendEscaped(w.buf, t.Content)
	id = w.close()
	return w.sign(&id), id, nil
}

// writer writes one event's JSON, canonical (NIP-01) in all that is hashed:
//
//	{"id":"…","pubkey":"…","created_at":…,"kind":…,"tags":[…],"content":"…","sig":"…"}
//
// begin writes up to the content's opening quote, the caller appends the
// escaped content to buf, close computes the id, and sign writes the rest and
// fills the holes.
type writer struct {
	author    *secret
	buf       []byte
	id        int // where the id's digits go
	pubkey    int // where its quoted value begins
	createdAt int
	kind      int
	tags      int
	content   int // where its opening quote is
}

// begin writes t, but for its content, for which it makes room. to, if not nil,
// becomes a p tag before the others.
func (w *writer) begin(dst []byte, author SecretKey, t *Template, to *PublicKey, content int) error {
	w.author = author.secret()
	if w.author == nil {
		return errNoKey
	}
	createdAt := t.CreatedAt.Unix()
	if t.Kind < 0 || t.Kind > maxKind || createdAt < 0 {
		return errTemplate
	}
	size := 448 + content // of an event with one p tag
	for _, tag := range t.Tags {
		for _, s := range tag {
			if !utf8.ValidString(s) {
				return errTemplate
			}
			size += len(s) + 8
		}
	}
	b := slices.Grow(dst, size)
	b = append(b, `{"id":"`...)
	w.id = len(b)
	b = append(b, make([]byte, 64)...)
	b = append(b, `","pubkey":`...)
	w.pubkey = len(b)
	b = append(b, '"')
	b = hex.AppendEncode(b, w.author.pub[:])
	b = append(b, `","created_at":`...)
	w.createdAt = len(b)
	b = strconv.AppendInt(b, createdAt, 10)
	b = append(b, `,"kind":`...)
	w.kind = len(b)
	b = strconv.AppendInt(b, int64(t.Kind), 10)
	b = append(b, `,"tags":`...)
	w.tags = len(b)
	b = appendTags(b, to, t.Tags)
	b = append(b, `,"content":`...)
	w.content = len(b)
	w.buf = append(b, '"')
	return nil
}

func appendTags(b []byte, to *PublicKey, tags [][]string) []byte {
	b = append(b, '[')
	if to != nil {
		b = append(b, `["p","`...)
		b = hex.AppendEncode(b, to[:])
		b = append(b, `"]`...)
	}
	for i, tag := range tags {
		if i > 0 || to != nil {
			b = append(b, ',')
		}
		b = append(b, '[')
		for j, s := range tag {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(b, '"')
			b = appendEscaped(b, s)
			b = append(b, '"')
		}
		b = append(b, ']')
	}
	return append(b, ']')
}

// close ends the content and returns the id.
func (w *writer) close() (id [32]byte) {
	w.buf = append(w.buf, '"')
	return w.hash()
}

// hash is the id of an event that is closed.
func (w *writer) hash() (id [32]byte) {
	h := sha256.New()
	for _, part := range w.head() {
		h.Write(part)
	}
	h.Write(w.buf[w.content:])
	h.Write([]byte("]"))
	h.Sum(id[:0])
	return id
}

// head is what is hashed before the content.
func (w *writer) head() [5][]byte {
	b := w.buf
	return [...][]byte{
		[]byte("[0,"),
		b[w.pubkey : w.createdAt-len(`"created_at":`)], // with the comma
		b[w.createdAt : w.kind-len(`"kind":`)],
		b[w.kind : w.tags-len(`"tags":`)],
		b[w.tags : w.content-len(`"content":`)],
	}
}

// sign returns the whole event.
func (w *writer) sign(id *[32]byte) (event []byte) {
	b := w.buf
	hex.Encode(b[w.id:], id[:])

	var aux [32]byte
	var sig [64]byte
	rand.Read(aux[:])
	k := w.author
	secp.Sign(&sig, &k.d, (*[32]byte)(&k.pub), k.odd, id, &aux)
	b = append(b, `,"sig":"`...)
	b = hex.AppendEncode(b, sig[:])
	return append(b, `"}`...)
}

// appendEscaped appends s as the inside of a JSON string, in the one spelling
// that NIP-01 hashes; s must be UTF-8.
func appendEscaped[T ~string | ~[]byte](b []byte, s T) []byte {
	const digits = "0123456789abcdef"
	begin := 0
	for i := range len(s) {
		ch := s[i]
		if ch >= 0x20 && ch != '"' && ch != '\\' {
			continue
		}
		b = append(b, s[begin:i]...)
		begin = i + 1
		switch ch {
		case '"', '\\':
			b = append(b, '\\', ch)
		case '\b':
			b = append(b, '\\', 'b')
		case '\t':
			b = append(b, '\\', 't')
		case '\n':
			b = append(b, '\\', 'n')
		case '\f':
			b = append(b, '\\', 'f')
		case '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', 'u', '0', '0', digits[ch>>4], digits[ch&15])
		}
	}
	return append(b, s[begin:]...)
}
