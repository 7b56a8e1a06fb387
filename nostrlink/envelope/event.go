package envelope

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/secp"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/internal/sha2x"
)

// What [Event.Verify] may find wrong.
var (
	ErrID        = errors.New("envelope: the event's id is not the hash of its fields")
	ErrSignature = errors.New("envelope: the event's signature is not its author's")
)

// Event is one event of NIP-01, as [ParseEvent] found it. Unverified, it says
// only what its sender liked it to say. Its slices belong to the text it was
// parsed from.
type Event struct {
	ID        [32]byte
	PubKey    PublicKey // need not be a point of the curve
	CreatedAt int64     // seconds since 1970, not negative
	Kind      int       // 0 to 65535
	Content   []byte    // without quotes and escapes
	Sig       [64]byte

	tags   []byte // canonical JSON
	quoted []byte // the content as canonical JSON
}

// Verify checks that the id is the hash of the other fields and that the
// signature is the author's. It returns nil, [ErrID] or [ErrSignature].
func (e *Event) Verify() error {
	if e.hash() != e.ID {
		return ErrID
	}
	if !secp.Verify((*[32]byte)(&e.PubKey), &e.ID, &e.Sig) {
		return ErrSignature
	}
	return nil
}

// CheckID checks only that the id is the hash of the other fields: who signed
// the event remains unknown. It returns nil or [ErrID].
func (e *Event) CheckID() error {
	if e.hash() != e.ID {
		return ErrID
	}
	return nil
}

// CheckBothIDs is CheckID for two events, in less time than the two would take.
func CheckBothIDs(e, f *Event) (errE, errF error) {
	idE, idF := hashBoth(e, f)
	if idE != e.ID {
		errE = ErrID
	}
	if idF != f.ID {
		errF = ErrID
	}
	return errE, errF
}

// hash computes the id: the hash of [0,"pubkey",created_at,kind,tags,"content"].
func (e *Event) hash() (id [32]byte) {
	var buf [headSize]byte
	h := sha256.New()
	h.Write(e.head(buf[:0]))
	h.Write(e.tags)
	h.Write([]byte(","))
	h.Write(e.quoted)
	h.Write([]byte("]"))
	h.Sum(id[:0])
	return id
}

const headSize = 128

// head appends what is hashed before the tags, at most headSize bytes.
func (e *Event) head(b []byte) []byte {
	b = append(b, `[0,"`...)
	b = hex.AppendEncode(b, e.PubKey[:])
	b = append(b, `",`...)
	b = strconv.AppendInt(b, e.CreatedAt, 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, int64(e.Kind), 10)
	return append(b, ',')
}

// hashBoth is hash for two events. For long ones it takes little more time
// than for one.
func hashBoth(e, f *Event) (idE, idF [32]byte) {
	if !sha2x.Available() {
		return e.hash(), f.hash()
	}
	var buf [headSize]byte
	var x, y sha2x.Digest
	for _, h := range [...]struct {
		event *Event
		sum   *sha2x.Digest
	}{{e, &x}, {f, &y}} {
		h.sum.Write(h.event.head(buf[:0]))
		h.sum.Write(h.event.tags)
		h.sum.Write([]byte(","))
	}
	sha2x.Write2(&x, e.quoted, &y, f.quoted)
	x.Write([]byte("]"))
	y.Write([]byte("]"))
	return x.Sum(), y.Sum()
}

// Tags iterates over the name and the first value of every tag, in order; the
// value is empty when there is none. Tags without a name are left out. Only
// what was escaped is allocated.
func (e *Event) Tags(yield func(name, value []byte) bool) {
	s := scanner{text: e.tags, pos: 1}
	for s.accept('[') {
		var pair [2][]byte
		n := 0
		for s.peek() == '"' {
			text := s.canonicalString()
			if n < len(pair) {
				pair[n] = unescape(text)
			}
			n++
			s.accept(',')
		}
		s.accept(']')
		s.accept(',')
		if n > 0 && !yield(pair[0], pair[1]) {
			return
		}
	}
}

// TagStrings returns a copy of all tags with all their elements.
func (e *Event) TagStrings() [][]string {
	var tags [][]string
	if err := json.Unmarshal(e.tags, &tags); err != nil {
		return nil // cannot happen: ParseEvent has read them
	}
	return tags
}

// unescape returns the string that text is the canonical inside of.
func unescape(text []byte) []byte {
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	var s string
	quoted := append(append([]byte{'"'}, text...), '"')
	if err := json.Unmarshal(quoted, &s); err != nil {
		return nil // cannot happen, see TagStrings
	}
	return []byte(s)
}
