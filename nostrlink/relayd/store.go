package relayd

import (
	"bytes"
	"container/list"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// store holds the events that are kept, all of them in memory, and a copy on
// disk if there is one. When it is full the one that came first goes.
type store struct {
	maxEvents, maxBytes int
	maxAge              time.Duration // since created_at, 0: any
	disk                *disk         // or nil
	changes             []change      // to be written together; empty between calls

	mu        sync.RWMutex
	byAddress map[address]*stored
	byID      map[[32]byte]*stored
	all       shelf
	byAuthor  map[envelope.PublicKey]shelf
	byKind    map[int]shelf
	byTag     map[tagValue]shelf
	deletions deletions
	arrivals  *list.List // of *stored, oldest first
	next      uint64     // place of the next arrival
	bytes     int
	swept     time.Time
}

// address is what a replaceable or addressable event is the newest of.
type address struct {
	kind   int
	author envelope.PublicKey
	d      string
}

// stored is an event that is kept.
type stored struct {
	event   envelope.Event
	raw     []byte  // immutable, shared with the queues of connections
	address address // of kinds that have one
	tags    tagSet  // that it is indexed by
	expires int64   // unix seconds, or 0
	place   uint64  // among all arrivals; its key on disk
	ticket  uint64  // of the write that puts it on disk
	arrival *list.Element
}

// overhead is about what a tag in an index costs, in bytes.
const overhead = 64

// size is what the event counts for against the limit.
func (e *stored) size() int { return len(e.raw) + overhead*len(e.tags) }

func newStore(l *Limits) *store {
	s := &store{
		byAddress: make(map[address]*stored),
		byID:      make(map[[32]byte]*stored),
		byAuthor:  make(map[envelope.PublicKey]shelf),
		byKind:    make(map[int]shelf),
		byTag:     make(map[tagValue]shelf),
		deletions: newDeletions(),
		arrivals:  list.New(),
	}
	s.bound(l)
	return s
}

func (s *store) bound(l *Limits) {
	s.maxEvents, s.maxBytes, s.maxAge = l.MaxStored, l.MaxStoredBytes, l.MaxStoredAge
}

// setLimits has other limits hold, and what is beyond them go.
func (s *store) setLimits(l *Limits, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound(l)
	s.swept = time.Time{}
	s.shrink(now)
	s.flush()
}

// outcome is what became of an event that was to be kept.
type outcome int

const (
	added     outcome = iota
	duplicate         // it is here already
	outdated          // a newer one of its address is here
	deleted           // its author has deleted it
	unkept            // there is no room, or no disk
)

// put keeps a verified event, of which it makes a copy. It must not be promised
// to anybody before the ticket, unless that is 0, has been waited for; so for a
// duplicate.
func (s *store) put(e *envelope.Event, raw []byte, now time.Time) (outcome, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byID[e.ID]; old != nil {
		return duplicate, old.ticket
	}
	at, hasAddress := addressOf(e)
	if s.deletions.concern(e, at, hasAddress) {
		return deleted, 0
	}
	if hasAddress {
		// NIP-01: of the same second the lowest id stays.
		if old := s.byAddress[at]; old != nil && newer(&old.event, e) {
			return outdated, 0
		}
	}
	n, err := newStored(bytes.Clone(raw))
	if err != nil || n.size() > s.maxBytes || s.disk != nil && s.disk.full() {
		return unkept, 0
	}
	if old := s.byAddress[at]; hasAddress && old != nil {
		s.drop(old)
	}
	if e.Kind == kindDeletion {
		s.obey(n)
	}
	n.place = s.next
	s.add(n)
	s.note(change{n.place, n.raw})
	s.shrink(now)
	n.ticket = s.flush()
	return added, n.ticket
}

// note remembers a change for the disk, flush hands over all of them. What
// belongs together must reach the disk together: an event that takes another's
// place, and the end of the other.
func (s *store) note(c change) {
	if s.disk != nil {
		s.changes = append(s.changes, c)
	}
}

func (s *store) flush() (ticket uint64) {
	if len(s.changes) > 0 {
		ticket = s.disk.write(s.changes)
		s.changes = s.changes[:0]
	}
	return ticket
}

// newer reports whether a is to be kept rather than b, which has its address.
func newer(a, b *envelope.Event) bool {
	return a.CreatedAt > b.CreatedAt || a.CreatedAt == b.CreatedAt && bytes.Compare(a.ID[:], b.ID[:]) < 0
}

// newStored makes an event ready to be kept. It takes raw over.
func newStored(raw []byte) (*stored, error) {
	e, err := envelope.ParseEvent(raw)
	if err != nil {
		return nil, err
	}
	n := &stored{event: e, raw: raw, expires: expiration(&e)}
	n.address, _ = addressOf(&e)
	n.tags = slices.Clone(tagsOf(&e, nil)) // no larger than need be
	return n, nil
}

// addressOf returns the event's address, if events of its kind have one.
func addressOf(e *envelope.Event) (at address, ok bool) {
	at = address{kind: e.Kind, author: e.PubKey}
	switch classOf(e.Kind) {
	case addressable:
		at.d = firstTag(e, "d")
		return at, true
	case replaceable:
		return at, true
	}
	return address{}, false
}

func (s *store) add(n *stored) {
	s.next = max(s.next, n.place+1)
	n.arrival = s.arrivals.PushBack(n)
	s.byID[n.event.ID] = n
	if _, ok := addressOf(&n.event); ok {
		s.byAddress[n.address] = n
	}
	s.all.add(n)
	change := func(sh shelf) shelf { sh.add(n); return sh }
	s.byAuthor[n.event.PubKey] = change(s.byAuthor[n.event.PubKey])
	s.byKind[n.event.Kind] = change(s.byKind[n.event.Kind])
	for _, t := range n.tags {
		at := tagValue{t.letter, string(t.value)}
		s.byTag[at] = change(s.byTag[at])
	}
	if n.event.Kind == kindDeletion {
		s.deletions.note(n)
	}
	s.bytes += n.size()
}

// drop removes an event, from the disk too.
func (s *store) drop(old *stored) {
	s.arrivals.Remove(old.arrival)
	delete(s.byID, old.event.ID)
	if s.byAddress[old.address] == old {
		delete(s.byAddress, old.address)
	}
	s.all.remove(old)
	takeFrom(s.byAuthor, old.event.PubKey, old)
	takeFrom(s.byKind, old.event.Kind, old)
	for _, t := range old.tags {
		takeFrom(s.byTag, tagValue{t.letter, string(t.value)}, old)
	}
	if old.event.Kind == kindDeletion {
		s.deletions.forget(old)
	}
	s.bytes -= old.size()
	s.note(change{place: old.place})
}

// shrink removes what has expired, once a minute, and then what came first,
// until the limits are kept.
func (s *store) shrink(now time.Time) {
	if now.Sub(s.swept) >= time.Minute {
		s.swept = now
		for el := s.arrivals.Front(); el != nil; {
			e := el.Value.(*stored)
			el = el.Next()
			if e.expired(now) || s.tooOld(e, now) {
				s.drop(e)
			}
		}
	}
	for s.arrivals.Len() > s.maxEvents || s.bytes > s.maxBytes {
		s.drop(s.arrivals.Front().Value.(*stored))
	}
}

// tidy is shrink for when nothing is put.
func (s *store) tidy(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shrink(now)
	s.flush()
}

func (e *stored) expired(now time.Time) bool { return e.expires != 0 && e.expires <= now.Unix() }

func (s *store) tooOld(e *stored, now time.Time) bool {
	return s.maxAge > 0 && now.Sub(time.Unix(e.event.CreatedAt, 0)) > s.maxAge
}

func (s *store) size() (events, bytes int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.arrivals.Len(), s.bytes
}

// firstTag is the value of the event's first tag of that name, or "".
func firstTag(e *envelope.Event, tag string) string {
	for name, value := range e.Tags {
		if string(name) == tag {
			return string(value)
		}
	}
	return ""
}

// hasTag reports whether the event has a tag of that name.
func hasTag(e *envelope.Event, tag string) bool {
	for name := range e.Tags {
		if string(name) == tag {
			return true
		}
	}
	return false
}

// expiration is when the event expires (NIP-40) in unix seconds, or 0.
func expiration(e *envelope.Event) int64 {
	n, err := strconv.ParseInt(firstTag(e, "expiration"), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
