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

// Book collects the newest announcement of each exit, and of each instance of
// those that share a key. It holds a bounded number of them, and strangers cannot
// fill the place of those whom the user trusts.
// All methods may be called concurrently, Add from the callback of a
// subscription.
type Book struct {
	opts BookOptions

	mu      sync.Mutex
	entries map[envelope.PublicKey][]*entry // of each instance one, in no order
	size    int                             // of all entries
}

// BookOptions are the choices of a Book; the zero value works.
type BookOptions struct {
	Max int // entries, one for each instance; 0 for 1,000
	// Admits says which exits the user trusts: they are always taken up, in a
	// stranger's place if need be. Its answers may change with time, and it must
	// not call the Book. nil trusts nobody.
	Admits func(key envelope.PublicKey) bool
	// Allow permits addresses that are not public; see Parse.
	Allow func(address string) bool
}

// Entry is an announced exit: of several instances the one that announced itself
// last.
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
	// maxInstances bounds what one key takes up.
	maxInstances = 8
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
	return &Book{opts: opts, entries: make(map[envelope.PublicKey][]*entry)}
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
	created := time.Unix(ev.CreatedAt, 0)
	e := b.instance(ev.PubKey, instanceOf(ev))
	if e == nil {
		_, err := b.room(ev.PubKey, created, ev.ID, now)
		return false, err
	}
	if e.id == ev.ID {
		e.Seen = note(e.Seen, relay)
		return true, nil
	}
	if !e.olderThan(created, ev.ID) {
		return false, ErrOld
	}
	return false, nil
}

// instance returns, with b.mu held, the entry of one instance, or nil.
func (b *Book) instance(key envelope.PublicKey, instance string) *entry {
	for _, e := range b.entries[key] {
		if e.Instance == instance {
			return e
		}
	}
	return nil
}

// instanceOf is what parse takes for the announcement's instance.
func instanceOf(ev *envelope.Event) string {
	for tag, value := range ev.Tags {
		if string(tag) == "d" {
			return string(value)
		}
	}
	return ""
}

// olderThan reports whether the entry gives way to another event. (NIP-01)
func (e *entry) olderThan(created time.Time, id [32]byte) bool {
	if !e.Created.Equal(created) {
		return e.Created.Before(created)
	}
	return bytes.Compare(id[:], e.id[:]) < 0
}

// room returns, with b.mu held, whether there is a place for another instance of
// an exit, and who must go for it: of a key that has many the oldest, else the
// stranger whose announcement ends first, or nobody.
func (b *Book) room(key envelope.PublicKey, created time.Time, id [32]byte, now time.Time) (out *entry, err error) {
	if len(b.entries[key]) >= maxInstances || b.size >= b.opts.Max {
		b.sweep(now)
	}
	switch own := b.entries[key]; {
	case len(own) >= maxInstances:
		for _, e := range own {
			if out == nil || e.olderThan(out.Created, out.id) {
				out = e
			}
		}
		if !out.olderThan(created, id) {
			return nil, ErrOld
		}
		return out, nil
	case b.size < b.opts.Max:
		return nil, nil
	case !b.opts.Admits(key):
		return nil, ErrFull
	}
	for key, list := range b.entries {
		if b.opts.Admits(key) {
			continue
		}
		for _, e := range list {
			if out == nil || e.until.Before(out.until) {
				out = e
			}
		}
	}
	if out == nil {
		return nil, ErrFull
	}
	return out, nil
}

// sweep drops, with b.mu held, what no longer counts.
func (b *Book) sweep(now time.Time) {
	for key := range b.entries {
		b.drop(key, func(e *entry) bool { return !e.until.After(now) })
	}
}

// drop takes, with b.mu held, entries of a key out.
func (b *Book) drop(key envelope.PublicKey, which func(*entry) bool) {
	list := b.entries[key]
	left := slices.DeleteFunc(list, which)
	b.size -= len(list) - len(left)
	if len(left) == 0 {
		delete(b.entries, key)
		return
	}
	b.entries[key] = left
}

// put enters a verified announcement.
func (b *Book) put(e *entry, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.instance(e.Key, e.Instance)
	if out == nil {
		var err error
		if out, err = b.room(e.Key, e.Created, e.id, now); err != nil {
			return err
		}
	} else {
		if !out.olderThan(e.Created, e.id) {
			return ErrOld
		}
		for _, relay := range out.Seen { // it will come there, too
			e.Seen = note(e.Seen, relay)
		}
	}
	if out != nil {
		b.drop(out.Key, func(old *entry) bool { return old == out })
	}
	b.entries[e.Key] = append(b.entries[e.Key], e)
	b.size++
	return nil
}

func note(seen []string, relay string) []string {
	if relay == "" || len(seen) >= maxSeen || slices.Contains(seen, relay) {
		return seen
	}
	return append(seen, relay)
}

// remove follows a deletion of announcements that the book has.
func (b *Book) remove(ev *envelope.Event, now time.Time) error {
	at := time.Unix(ev.CreatedAt, 0)
	if at.After(now.Add(maxAhead)) {
		return ErrFuture
	}
	b.mu.Lock()
	about := slices.ContainsFunc(b.entries[ev.PubKey], func(e *entry) bool { return e.deletedBy(ev) })
	b.mu.Unlock()
	if !about {
		return ErrOld
	}
	if err := ev.Verify(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries[ev.PubKey] {
		if e.deletedBy(ev) {
			e.Closed, e.Created, e.until = true, at, at.Add(maxLife)
		}
	}
	return nil
}

// deletedBy reports whether a deletion is about the entry.
func (e *entry) deletedBy(ev *envelope.Event) bool {
	if e.Closed || e.Created.Unix() > ev.CreatedAt {
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

// Find returns the announcement of one exit, if there is one that counts: of its
// instances' the newest.
func (b *Book) Find(key envelope.PublicKey, now time.Time) (Entry, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := newest(b.entries[key], now)
	if e == nil {
		return Entry{}, false
	}
	return b.copy(e), true
}

// newest returns the newest entry that counts, or nil.
func newest(list []*entry, now time.Time) (best *entry) {
	for _, e := range list {
		if !e.Closed && e.until.After(now) && (best == nil || best.olderThan(e.Created, e.id)) {
			best = e
		}
	}
	return best
}

// Snapshot returns what counts at now, of each exit what Find does: those whom the
// user trusts first, then by key. It is the caller's.
func (b *Book) Snapshot(now time.Time) []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []Entry
	b.sweep(now)
	for _, of := range b.entries {
		if e := newest(of, now); e != nil {
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
