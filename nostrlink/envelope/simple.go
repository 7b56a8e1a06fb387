package envelope

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip44"
)

// Template is an event before it is signed.
type Template struct {
	Kind      int
	CreatedAt time.Time
	Tags      [][]string
	Content   []byte
}

// Sign appends the complete JSON of the event that t describes, signed by
// author, to dst, and returns it with the event's id.
func Sign(dst []byte, author SecretKey, t Template) (event []byte, id [32]byte, err error) {
	if author.IsZero() {
		return dst, id, errNoKey
	}
	ev := nostr.Event{Kind: t.Kind, CreatedAt: nostr.Timestamp(t.CreatedAt.Unix()), Content: string(t.Content), Tags: nostr.Tags{}}
	for _, tag := range t.Tags {
		ev.Tags = append(ev.Tags, nostr.Tag(tag))
	}
	d := author.k.d.Bytes()
	if err := ev.Sign(hex.EncodeToString(d[:])); err != nil {
		return dst, id, fmt.Errorf("envelope: sign: %w", err)
	}
	hex.Decode(id[:], []byte(ev.ID))
	return append(dst, ev.String()...), id, nil
}

// Sealer encrypts and signs events from one author to one peer. Not for
// concurrent use.
type Sealer struct {
	author SecretKey
	to     PublicKey
	key    ConversationKey
}

// NewSealer returns a Sealer of events from author to the key to, encrypted
// under key.
func NewSealer(author SecretKey, to PublicKey, key ConversationKey) *Sealer {
	return &Sealer{author, to, key}
}

// Seal appends a complete signed event of kind [KindNWS] with one p tag to dst.
func (s *Sealer) Seal(dst, plaintext []byte, now time.Time) (event []byte, id [32]byte, err error) {
	return s.SealTo(dst, Template{Kind: KindNWS, CreatedAt: now, Content: plaintext})
}

// SealTo is Seal for any kind: t.Content is the plaintext, and t.Tags follow
// the p tag.
func (s *Sealer) SealTo(dst []byte, t Template) (event []byte, id [32]byte, err error) {
	if s.key.IsZero() {
		return dst, id, errNoKey
	}
	if len(t.Content) > MaxPlaintext {
		return dst, id, errors.New("envelope: seal: too long")
	}
	content, err := nip44.Encrypt(string(t.Content), *s.key.k)
	if err != nil {
		return dst, id, fmt.Errorf("envelope: seal: %w", err)
	}
	t.Content = []byte(content)
	t.Tags = append([][]string{{"p", s.to.Hex()}}, t.Tags...)
	return Sign(dst, s.author, t)
}

// Open decrypts a NIP-44 version 2 payload and appends the plaintext to dst.
func Open(dst, content []byte, key ConversationKey) ([]byte, error) {
	if key.IsZero() {
		return dst, errNoKey
	}
	plain, err := nip44.Decrypt(string(content), *key.k)
	if err != nil {
		return dst, fmt.Errorf("envelope: open: %w", err)
	}
	return append(dst, plain...), nil
}

// Event is a parsed event. Its slices borrow from what it was parsed from.
type Event struct {
	ID        [32]byte
	PubKey    PublicKey
	CreatedAt int64
	Kind      int
	Content   []byte
	Sig       [64]byte

	ev nostr.Event
}

// Tags iterates over the first two elements of every tag that has any; value
// is empty when there is no second.
func (e *Event) Tags(yield func(name, value []byte) bool) {
	for _, t := range e.ev.Tags {
		if len(t) == 0 {
			continue
		}
		var v []byte
		if len(t) > 1 {
			v = []byte(t[1])
		}
		if !yield([]byte(t[0]), v) {
			return
		}
	}
}

// ParseEvent reads one event's JSON. It does not verify it.
func ParseEvent(raw []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(raw, &e.ev); err != nil {
		return e, fmt.Errorf("envelope: event: %w", err)
	}
	for _, f := range []struct {
		dst []byte
		src string
	}{{e.ID[:], e.ev.ID}, {e.PubKey[:], e.ev.PubKey}, {e.Sig[:], e.ev.Sig}} {
		if len(f.src) != 2*len(f.dst) {
			return Event{}, errors.New("envelope: event: wrong length of id, pubkey or sig")
		}
		if _, err := hex.Decode(f.dst, []byte(f.src)); err != nil {
			return Event{}, fmt.Errorf("envelope: event: %w", err)
		}
	}
	e.CreatedAt, e.Kind, e.Content = int64(e.ev.CreatedAt), e.ev.Kind, []byte(e.ev.Content)
	return e, nil
}

// Verify checks the event's id and signature.
func (e *Event) Verify() error {
	if !e.ev.CheckID() {
		return errors.New("envelope: the event's id is not the hash of its fields")
	}
	if ok, err := e.ev.CheckSignature(); err != nil || !ok {
		return errors.New("envelope: the event's signature is wrong")
	}
	return nil
}
