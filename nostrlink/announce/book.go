package announce

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Book collects the newest announcement of each exit. It holds a bounded number
// of them, and strangers cannot fill the place of those whom the user trusts.
// All methods may be called concurrently, Add from the callback of a
// subscription.
type Book struct {
	opts BookOptions

	mu      sync.Mutex
	entries map[envelope.PublicKey]*entry
}

// BookOptions are the choices of a Book; the zero value works.
type BookOptions struct {
	Max int // entries; 0 for 1,000
	// Admits says which exits the user trusts: they are always taken up, in a
	// stranger's place if need be. Its answers may change with time, and it must
	// not call the Book. nil trusts nobody.
	Admits func(key envelope.PublicKey) bool
	// Allow permits addresses that are not public; see Parse.
	Allow func(address string) bool
}

// Entry is an announced exit.
type Entry struct {
	Announcement
	Seen    []string // the relays where it was found, in the order it was
	Trusted bool     // what BookOptions.Admits says now
}

type entry struct {
	Entry
	id    [32]byte
	until time.Time
}

const (
	defaultMax = 1000
	maxSeen    = 8
	// grace is for clocks that differ and for the way that an announcement
	// takes: exits of the reference implementation announce for ten seconds.
	grace = 30 * time.Second
)

// Why Add does not take an event up.
var (
	ErrOld  = errors.New("announce: a newer one is known")
	ErrFull = errors.New("announce: too many strangers announce themselves")
)

// NewBook returns an empty book.
func NewBook(opts BookOptions) *Book {
	if opts.Max <= 0 {
		opts.Max = defaultMax
	}
	if opts.Admits == nil {
		opts.Admits = func(envelope.PublicKey) bool { return false }
	}
	return &Book{opts: opts, entries: make(map[envelope.PublicKey]*entry)}
}

// Add takes an event up that a relay sent: an announcement, or the deletion of
// one (kind 5). It verifies what it would take up, and returns nil when that
// changed the book or the relay was noted, [ErrOld], [ErrFull], or what Parse
// returns. A relay that sends forged events is for the caller to leave.
func (b *Book) Add(ev *envelope.Event, relay string, now time.Time) error {
	if ev.Kind == kindDeletion {
		return b.remove(ev, now)
	}
	known, err := b.wants(ev, relay, now)
	if known || err != nil {
		return err
	}
	a, err := parse(ev, now, now.Add(-grace), b.opts.Allow)
	if err != nil {
		return err
	}
	if err := ev.Verify(); err != nil {
		return err
	}
	e := &entry{id: ev.ID, until: a.Expires.Add(grace)}
	if a.Closed {
		// Remembered longer, so that nobody brings an older one back.
		e.until = a.Created.Add(maxLife)
	}
	e.Announcement, e.Seen = a, note(nil, relay)
	return b.put(e, now)
}

// wants reports whether the event is in the book already, with the relay noted,
// or returns why it is not worth verifying.
func (b *Book) wants(ev *envelope.Event, relay string, now time.Time) (known bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[ev.PubKey]
	if e == nil {
		_, err := b.room(ev.PubKey, now)
		return false, err
	}
	if e.id == ev.ID {
		e.Seen = note(e.Seen, relay)
		return true, nil
	}
	if !e.olderThan(time.Unix(ev.CreatedAt, 0), ev.ID) {
		return false, ErrOld
	}
	return false, nil
}

// olderThan reports whether the entry gives way to another event. (NIP-01)
func (e *entry) olderThan(created time.Time, id [32]byte) bool {
	if !e.Created.Equal(created) {
		return e.Created.Before(created)
	}
	return bytes.Compare(id[:], e.id[:]) < 0
}

// room returns, with b.mu held, whether there is a place for an exit, and who
// must go for it: the stranger whose announcement ends first, or nobody.
func (b *Book) room(key envelope.PublicKey, now time.Time) (out *entry, err error) {
	if len(b.entries) < b.opts.Max {
		return nil, nil
	}
	b.sweep(now)
	if len(b.entries) < b.opts.Max {
		return nil, nil
	}
	if !b.opts.Admits(key) {
		return nil, ErrFull
	}
	for _, e := range b.entries {
		if (out == nil || e.until.Before(out.until)) && !b.opts.Admits(e.Key) {
			out = e
		}
	}
	if out == nil {
		return nil, ErrFull
	}
	return out, nil
}

// sweep drops, with b.mu held, what no longer counts.
func (b *Book) sweep(now time.Time) {
	for key, e := range b.entries {
		if !e.until.After(now) {
			delete(b.entries, key)
		}
	}
}

// put enters a verified announcement.
func (b *Book) put(e *entry, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.entries[e.Key]
	if old == nil {
		out, err := b.room(e.Key, now)
		if err != nil {
			return err
		}
		if out != nil {
			delete(b.entries, out.Key)
		}
		b.entries[e.Key] = e
		return nil
	}
	if !old.olderThan(e.Created, e.id) {
		return ErrOld
	}
	for _, relay := range old.Seen { // it will come there, too
		e.Seen = note(e.Seen, relay)
	}
	b.entries[e.Key] = e
	return nil
}

func note(seen []string, relay string) []string {
	if relay == "" || len(seen) >= maxSeen || slices.Contains(seen, relay) {
		return seen
	}
	return append(seen, relay)
}

// remove follows a deletion of the announcement that the book has.
func (b *Book) remove(ev *envelope.Event, now time.Time) error {
	at := time.Unix(ev.CreatedAt, 0)
	if at.After(now.Add(maxAhead)) {
		return ErrFuture
	}
	b.mu.Lock()
	about := b.entries[ev.PubKey].deletedBy(ev)
	b.mu.Unlock()
	if !about {
		return ErrOld
	}
	if err := ev.Verify(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[ev.PubKey]; e.deletedBy(ev) {
		e.Closed, e.Created, e.until = true, at, at.Add(maxLife)
	}
	return nil
}

// deletedBy reports whether a deletion is about the entry, which may be nil.
func (e *entry) deletedBy(ev *envelope.Event) bool {
	if e == nil || e.Closed || e.Created.Unix() > ev.CreatedAt {
		return false
	}
	for tag, value := range ev.Tags {
		if string(tag) == "a" && string(value) == address(e.Key, e.Instance) ||
			string(tag) == "e" && string(value) == hex.EncodeToString(e.id[:]) {
			return true
		}
	}
	return false
}

// Find returns the announcement of one exit, if there is one that counts.
func (b *Book) Find(key envelope.PublicKey, now time.Time) (Entry, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[key]
	if e == nil || e.Closed || !e.until.After(now) {
		return Entry{}, false
	}
	return b.copy(e), true
}

// Snapshot returns what counts at now: those whom the user trusts first, then by
// key. It is the caller's.
func (b *Book) Snapshot(now time.Time) []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []Entry
	b.sweep(now)
	for _, e := range b.entries {
		if !e.Closed {
			list = append(list, b.copy(e))
		}
	}
	slices.SortFunc(list, func(x, y Entry) int {
		if x.Trusted != y.Trusted {
			if x.Trusted {
				return -1
			}
			return 1
		}
		return bytes.Compare(x.Key[:], y.Key[:])
	})
	return list
}

// copy returns an Entry that shares nothing with e.
func (b *Book) copy(e *entry) Entry {
	c := e.Entry
	c.Trusted = b.opts.Admits(c.Key)
	c.Seen = slices.Clone(c.Seen)
	c.Relays = slices.Clone(c.Relays)
	c.Transports = slices.Clone(c.Transports)
	c.Versions = slices.Clone(c.Versions)
	c.Policy.Ports = slices.Clone(c.Policy.Ports)
	return c
}
