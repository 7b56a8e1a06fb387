package admission

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Bounds of the file.
const (
	maxBans    = 10_000
	maxInvites = 1_000
	maxHolders = 20_000 // of all invitations together
	// MaxUses bounds the identities that one invitation may be for.
	MaxUses = 1_000
	// MaxNote bounds a ban's reason and an invitation's name, in bytes.
	MaxNote = 200
	maxFile = 16 << 20
	// keepExpired is how long an invitation is still listed, and its holders are
	// told that it is over.
	keepExpired = 30 * 24 * time.Hour
)

// Ban shuts an identity out. Banning the key that was made up for a session would
// shut nobody out.
type Ban struct {
	Key    envelope.PublicKey `json:"-"`
	Since  time.Time          `json:"since"`
	Until  time.Time          `json:"until,omitzero"` // zero for ever
	Reason string             `json:"reason,omitempty"`
}

func (b *Ban) over(now time.Time) bool { return !b.Until.IsZero() && !now.Before(b.Until) }

// Invitation is what the exit knows of one: not its token.
type Invitation struct {
	ID      string               `json:"-"` // names it among the others
	Name    string               `json:"name,omitempty"`
	Created time.Time            `json:"created"`
	Expires time.Time            `json:"expires,omitzero"` // zero for never
	Uses    int                  `json:"uses"`             // identities that it is for
	Holders []envelope.PublicKey `json:"-"`                // who have taken it
}

func (i *Invitation) over(now time.Time) bool { return !i.Expires.IsZero() && !now.Before(i.Expires) }

// hash is that of a token.
type hash [32]byte

// id is enough of a hash to tell invitations apart.
func (h hash) id() string { return hex.EncodeToString(h[:4]) }

// state is what the file holds. It has no lock of its own.
type state struct {
	bans    map[envelope.PublicKey]*Ban
	invites map[hash]*Invitation
	held    map[envelope.PublicKey][]hash // by holder
	holders int
}

func newState() *state {
	return &state{
		bans: make(map[envelope.PublicKey]*Ban), invites: make(map[hash]*Invitation),
		held: make(map[envelope.PublicKey][]hash),
	}
}

// ban returns the ban that holds for a key, or nil.
func (s *state) ban(key envelope.PublicKey, now time.Time) *Ban {
	if b := s.bans[key]; b != nil && !b.over(now) {
		return b
	}
	return nil
}

// holds reports whether a key has taken an invitation that is good, or at least
// when the last one was over.
func (s *state) holds(key envelope.PublicKey, now time.Time) (good bool, until time.Time) {
	for _, h := range s.held[key] {
		i := s.invites[h]
		if !i.over(now) {
			return true, i.Expires
		}
		if i.Expires.After(until) {
			until = i.Expires
		}
	}
	return false, until
}

// Why a token does not help. The texts are for whoever has shown it.
var (
	errUnknown = errors.New("this exit does not know your invitation, or it was revoked: ask its operator for another one")
	errTaken   = errors.New("your invitation was taken by another identity already: ask this exit's operator for another one")
	errFull    = errors.New("this exit has no room for another guest: tell its operator")
)

// mayTake says why a key may not take the invitation, or nil.
func (s *state) mayTake(h hash, now time.Time) error {
	i := s.invites[h]
	switch {
	case i == nil:
		return errUnknown
	case i.over(now):
		return fmt.Errorf("your invitation was good until %s: ask this exit's operator for another one", date(i.Expires))
	case len(i.Holders) >= i.Uses:
		return errTaken
	case s.holders >= maxHolders:
		return errFull
	}
	return nil
}

func (s *state) take(h hash, key envelope.PublicKey) {
	i := s.invites[h]
	if slices.Contains(i.Holders, key) {
		return
	}
	i.Holders = append(i.Holders, key)
	s.held[key] = append(s.held[key], h)
	s.holders++
}

func (s *state) remove(h hash) {
	for _, key := range s.invites[h].Holders {
		s.held[key] = slices.DeleteFunc(s.held[key], func(other hash) bool { return other == h })
		if len(s.held[key]) == 0 {
			delete(s.held, key)
		}
		s.holders--
	}
	delete(s.invites, h)
}

// expire forgets what was over long ago.
func (s *state) expire(now time.Time) {
	for key, b := range s.bans {
		if b.over(now) {
			delete(s.bans, key)
		}
	}
	for h, i := range s.invites {
		if i.over(now.Add(-keepExpired)) {
			s.remove(h)
		}
	}
}

// date writes a time for people: to the minute, as bans and invitations are.
func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// CheckNote says why a text may not stand in the file, or be told to others.
func CheckNote(s string) error {
	if len(s) > MaxNote {
		return fmt.Errorf("admission: a text of %d bytes, at most %d are allowed", len(s), MaxNote)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return errors.New("admission: a text with characters that cannot be printed")
	}
	return nil
}

// fileVersion is that of the file's format.
const fileVersion = 1

// The file as it is in JSON.
type (
	file struct {
		Version int          `json:"version"`
		Bans    []fileBan    `json:"bans"`
		Invites []fileInvite `json:"invitations"`
	}
	fileBan struct {
		NPub string `json:"npub"`
		Ban
	}
	fileInvite struct {
		Hash string `json:"token_sha256"`
		Invitation
		Holders []string `json:"holders,omitempty"`
	}
)

func (s *state) encode() ([]byte, error) {
	f := file{Version: fileVersion, Bans: []fileBan{}, Invites: []fileInvite{}}
	for key, b := range s.bans {
		f.Bans = append(f.Bans, fileBan{key.NPub(), *b})
	}
	for h, i := range s.invites {
		e := fileInvite{Hash: hex.EncodeToString(h[:]), Invitation: *i}
		for _, key := range i.Holders {
			e.Holders = append(e.Holders, key.NPub())
		}
		f.Invites = append(f.Invites, e)
	}
	slices.SortFunc(f.Bans, func(a, b fileBan) int { return strings.Compare(a.NPub, b.NPub) })
	slices.SortFunc(f.Invites, func(a, b fileInvite) int { return strings.Compare(a.Hash, b.Hash) })
	text, err := json.MarshalIndent(f, "", " ")
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("admission: the file would have more than %d bytes", maxFile)
	}
	return append(text, '\n'), err
}

func decode(text []byte) (*state, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("longer than %d bytes", maxFile)
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("something follows it")
	}
	if f.Version != fileVersion {
		return nil, fmt.Errorf("of version %d, which this program does not know", f.Version)
	}
	s := newState()
	for n, b := range f.Bans {
		if err := s.readBan(b); err != nil {
			return nil, fmt.Errorf("ban %d: %w", n+1, err)
		}
	}
	for n, i := range f.Invites {
		if err := s.readInvite(i); err != nil {
			return nil, fmt.Errorf("invitation %d: %w", n+1, err)
		}
	}
	if len(s.bans) > maxBans || len(s.invites) > maxInvites || s.holders > maxHolders {
		return nil, errors.New("it has more entries than are allowed")
	}
	return s, nil
}

func (s *state) readBan(b fileBan) error {
	key, err := envelope.ParsePublicKey(b.NPub)
	if err != nil {
		return err
	}
	b.Key = key
	if s.bans[key] != nil {
		return errors.New("of a key that is banned already")
	}
	s.bans[key] = &b.Ban
	return CheckNote(b.Reason)
}

func (s *state) readInvite(e fileInvite) error {
	raw, err := hex.DecodeString(e.Hash)
	if err != nil || len(raw) != len(hash{}) {
		return errors.New("token_sha256 is no hash")
	}
	h := hash(raw)
	switch {
	case s.invites[h] != nil:
		return errors.New("it is there already")
	case e.Uses < 1 || e.Uses > MaxUses || len(e.Holders) > e.Uses:
		return fmt.Errorf("for %d identities, and taken by %d", e.Uses, len(e.Holders))
	}
	i := e.Invitation
	i.ID, i.Holders = h.id(), nil
	s.invites[h] = &i
	for _, npub := range e.Holders {
		key, err := envelope.ParsePublicKey(npub)
		if err != nil {
			return err
		}
		s.take(h, key)
	}
	return CheckNote(i.Name)
}
