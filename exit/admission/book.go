package admission

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Mode is who is admitted.
type Mode int

// The modes. Bans hold in each, and so do invitations.
const (
	Open   Mode = iota // everybody
	Listed             // those who are listed
	Trust              // and those who are followed by people the operator names
)

// Rules are the operator's.
type Rules struct {
	Mode Mode
	// Listed are admitted in the modes Listed and Trust; FollowsOf in the mode
	// Trust, with all whom they follow (NIP-02).
	Listed    []envelope.PublicKey
	FollowsOf []envelope.PublicKey
}

// Book decides who is admitted. All methods may be called concurrently.
type Book struct {
	path string

	mu      sync.Mutex
	rules   Rules
	follows map[envelope.PublicKey]announce.Follows // by author
	trust   *announce.Trust                         // of rules and follows
	state   *state
	seen    fs.FileInfo   // of the file when it was read
	news    chan struct{} // for Watch
	ruled   chan struct{} // for KeepFollows

	// What waits for the file waits without mu, so that nobody waits for it.
	writing chan struct{} // held while the file is changed, or its lock waited for
	taking  chan struct{} // one for each who takes an invitation
}

// OpenBook opens the book whose bans and invitations are in the file at path, which
// need not exist; its directory must.
func OpenBook(path string, rules Rules) (*Book, error) {
	s, info, err := load(path)
	if err != nil {
		return nil, err
	}
	b := &Book{
		path: path, rules: rules, state: s, seen: info, follows: make(map[envelope.PublicKey]announce.Follows),
		news: make(chan struct{}, 1), ruled: make(chan struct{}, 1),
		writing: make(chan struct{}, 1), taking: make(chan struct{}, maxTaking),
	}
	b.retrust()
	return b, nil
}

// SetRules puts other rules in the place of those before.
func (b *Book) SetRules(rules Rules) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rules = rules
	maps.DeleteFunc(b.follows, func(author envelope.PublicKey, _ announce.Follows) bool {
		return !slices.Contains(rules.FollowsOf, author)
	})
	b.retrust()
	tell(b.ruled)
}

// SetFollows takes follow lists. A list that is missing, or older than what is
// known, changes nothing: a relay may have lost it.
func (b *Book) SetFollows(lists []announce.Follows) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, list := range lists {
		old, known := b.follows[list.Key]
		if slices.Contains(b.rules.FollowsOf, list.Key) && (!known || list.Created.After(old.Created)) {
			b.follows[list.Key] = list
		}
	}
	b.retrust()
}

// retrust works out whom the rules admit. The book is locked.
func (b *Book) retrust() {
	listed := b.rules.Listed
	if b.rules.Mode == Trust {
		listed = slices.Concat(listed, b.rules.FollowsOf)
	}
	b.trust = announce.NewTrust(listed, slices.Collect(maps.Values(b.follows)))
	tell(b.news)
}

func tell(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Admit decides about somebody who greets the exit and shows a token, or none. An
// error is a *wire.Error with what to tell him. Whoever takes an invitation waits
// until that is in the file, lockTimeout at most; nobody else waits for him.
func (b *Book) Admit(who nostrlink.Client, token string, now time.Time) error {
	h := hash(sha256.Sum256([]byte(token)))
	wants, err := b.judge(who, token != "", h, now)
	if !wants {
		return err
	}
	err = b.take(h, who.Key, now)
	if judged := b.Check(who, now); judged == nil || err == nil {
		return judged
	}
	return denied(err)
}

// judge decides, unless there is an invitation that he may take.
func (b *Book) judge(who nostrlink.Client, hasToken bool, h hash, now time.Time) (wants bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refresh() // a file that cannot be read changes nothing, and Watch says so
	if !hasToken || !who.Proven || b.state.ban(who.Key, now) != nil {
		return false, b.check(who, hasToken, now)
	}
	if b.rules.Mode != Open && b.trust.Admits(who.Key) {
		return false, nil
	}
	if good, _ := b.state.holds(who.Key, now); good {
		return false, nil
	}
	err = b.state.mayTake(h, now)
	if err != nil && b.rules.Mode == Open {
		return false, nil
	}
	return err == nil, denied(err)
}

func denied(err error) error {
	var known *wire.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &wire.Error{Code: wire.CodeDenied, Text: err.Error()}
}

// Check decides about somebody who was admitted before: nil if he may stay, else
// what to tell him.
func (b *Book) Check(who nostrlink.Client, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.check(who, false, now)
}

func (b *Book) check(who nostrlink.Client, hasToken bool, now time.Time) error {
	if who.Proven {
		if ban := b.state.ban(who.Key, now); ban != nil {
			return denied(ban.told())
		}
	}
	if b.rules.Mode == Open {
		return nil
	}
	if !who.Proven {
		if hasToken {
			return denied(errors.New("an invitation counts with an identity only: import it with `nws-vpn join`"))
		}
		return denied(errors.New("this exit serves only those it knows: ask its operator for an invitation, and `nws-vpn join` it; or show who you are (identity_file)"))
	}
	if b.trust.Admits(who.Key) {
		return nil
	}
	good, until := b.state.holds(who.Key, now)
	switch {
	case good:
		return nil
	case !until.IsZero():
		return denied(fmt.Errorf("your invitation was good until %s: ask this exit's operator for another one", date(until)))
	}
	return denied(fmt.Errorf("this exit does not admit %s: ask its operator for an invitation", who.Key.NPub()))
}

func (b *Ban) told() error {
	text := "you are banned from this exit"
	if !b.Until.IsZero() {
		text += " until " + date(b.Until)
	}
	if b.Reason != "" {
		text += ": " + b.Reason
	}
	return errors.New(text)
}

// Block bans an identity until a time, zero for ever, for a reason that it is
// told. Another ban of it is replaced.
func (b *Book) Block(key envelope.PublicKey, until time.Time, reason string, now time.Time) error {
	if err := CheckNote(reason); err != nil {
		return err
	}
	return b.change(lockTimeout, now, func(s *state) error {
		s.expire(now)
		if len(s.bans) >= maxBans && s.bans[key] == nil {
			return fmt.Errorf("admission: %d are banned already, which is all that fit: admit by a list rather", maxBans)
		}
		s.bans[key] = &Ban{Key: key, Since: now.UTC().Truncate(time.Second), Until: utc(until), Reason: reason}
		return nil
	})
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Second)
}

// Unblock ends a ban. It fails when there is none.
func (b *Book) Unblock(key envelope.PublicKey, now time.Time) error {
	return b.change(lockTimeout, now, func(s *state) error {
		if s.ban(key, now) == nil {
			return fmt.Errorf("admission: %s is not banned", key.NPub())
		}
		delete(s.bans, key)
		return nil
	})
}

// Bans lists those that hold, by key.
func (b *Book) Bans(now time.Time) ([]Ban, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.refresh()
	var list []Ban
	for key := range b.state.bans {
		if ban := b.state.ban(key, now); ban != nil {
			list = append(list, *ban)
		}
	}
	slices.SortFunc(list, func(x, y Ban) int { return slices.Compare(x.Key[:], y.Key[:]) })
	return list, err
}

// Invite makes an invitation of a token, which it forgets, for some identities
// until a time, zero for ever. name is the operator's word for it, which no other one
// that is not over has for a name or an ID.
func (b *Book) Invite(token, name string, uses int, expires, now time.Time) (Invitation, error) {
	if err := CheckNote(name); err != nil {
		return Invitation{}, err
	}
	if uses < 1 || uses > MaxUses {
		return Invitation{}, fmt.Errorf("admission: an invitation for %d, 1 to %d are allowed", uses, MaxUses)
	}
	h := hash(sha256.Sum256([]byte(token)))
	i := Invitation{ID: h.id(), Name: name, Created: now.UTC().Truncate(time.Second), Expires: utc(expires), Uses: uses}
	return i, b.change(lockTimeout, now, func(s *state) error {
		s.expire(now)
		if len(s.invites) >= maxInvites {
			return fmt.Errorf("admission: there are %d invitations already: revoke some", maxInvites)
		}
		for _, other := range s.invites {
			if name != "" && (other.Name == name || other.ID == name) && !other.over(now) {
				return fmt.Errorf("admission: invitation %s has the name %q already: take another name, or revoke that one", other.ID, name)
			}
		}
		kept := i
		s.invites[h] = &kept
		return nil
	})
}

// Invites lists the invitations, also those that were over lately, oldest first.
func (b *Book) Invites(now time.Time) ([]Invitation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.refresh()
	var list []Invitation
	for _, i := range b.state.invites {
		if !i.over(now.Add(-keepExpired)) {
			copied := *i
			copied.Holders = slices.Clone(i.Holders)
			list = append(list, copied)
		}
	}
	slices.SortFunc(list, func(x, y Invitation) int {
		if c := x.Created.Compare(y.Created); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return list, err
}

// Revoke takes back the invitations with an ID or a name: those who came by them
// alone are not admitted any more. It returns them, and fails when there is none.
func (b *Book) Revoke(which string, now time.Time) ([]Invitation, error) {
	var gone []Invitation
	err := b.change(lockTimeout, now, func(s *state) error {
		for h, i := range s.invites {
			if i.ID == which || which != "" && i.Name == which {
				gone = append(gone, *i)
				s.remove(h)
			}
		}
		if len(gone) == 0 {
			return fmt.Errorf("admission: no invitation has the ID or name %q: `nws-vpn exit invites` lists them", which)
		}
		return nil
	})
	return gone, err
}
