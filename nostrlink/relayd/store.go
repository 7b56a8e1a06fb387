package relayd

import (
	"bytes"
	"cmp"
	"container/list"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// class is what NIP-01 has a relay do with a kind.
type class int

const (
	regular     class = iota // not kept here
	replaceable              // the newest of an author and kind is kept
	ephemeral                // never kept
	addressable              // the newest of an author, kind and d tag is kept
)

func classOf(kind int) class {
	switch {
	case kind == 0 || kind == 3 || 10000 <= kind && kind < 20000:
		return replaceable
	case 20000 <= kind && kind < 30000:
		return ephemeral
	case 30000 <= kind && kind < 40000:
		return addressable
	}
	return regular
}

// store holds replaceable and addressable events in memory. When it is full
// the one that came first goes: what matters is published again and again.
type store struct {
	maxEvents, maxBytes int

	mu        sync.Mutex
	byAddress map[address]*stored
	byAuthor  map[envelope.PublicKey]map[*stored]bool
	byID      map[[32]byte]*stored
	arrivals  *list.List // of *stored, oldest first
	bytes     int
	swept     time.Time
}

type address struct {
	kind   int
	author envelope.PublicKey
	d      string
}

type stored struct {
	event   envelope.Event
	raw     []byte // immutable, shared with the queues of connections
	address address
	expires int64 // unix seconds, or 0
	arrival *list.Element
}

func newStore(maxEvents, maxBytes int) *store {
	return &store{
		maxEvents: maxEvents,
		maxBytes:  maxBytes,
		byAddress: make(map[address]*stored),
		byAuthor:  make(map[envelope.PublicKey]map[*stored]bool),
		byID:      make(map[[32]byte]*stored),
		arrivals:  list.New(),
	}
}

// put keeps a verified event, of which it makes a copy, unless it is here
// already (duplicate) or a newer one of its address is (outdated).
func (s *store) put(e *envelope.Event, raw []byte, expires int64, now time.Time) (duplicate, outdated bool) {
	at := address{kind: e.Kind, author: e.PubKey}
	if classOf(e.Kind) == addressable {
		at.d = firstTag(e, "d")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byAddress[at]; old != nil {
		switch {
		case old.event.ID == e.ID:
			return true, false
		case old.event.CreatedAt > e.CreatedAt,
			// NIP-01: of the same second the lowest id stays.
			old.event.CreatedAt == e.CreatedAt && bytes.Compare(old.event.ID[:], e.ID[:]) < 0:
			return false, true
		}
		s.remove(old)
	}
	if len(raw) > s.maxBytes {
		return false, true
	}
	raw = bytes.Clone(raw)
	parsed, err := envelope.ParseEvent(raw)
	if err != nil {
		return false, true // impossible: it has been parsed before
	}
	n := &stored{event: parsed, raw: raw, address: at, expires: expires}
	s.add(n)
	s.shrink(now)
	return false, false
}

func (s *store) add(n *stored) {
	n.arrival = s.arrivals.PushBack(n)
	s.byAddress[n.address] = n
	s.byID[n.event.ID] = n
	of := s.byAuthor[n.event.PubKey]
	if of == nil {
		of = make(map[*stored]bool)
		s.byAuthor[n.event.PubKey] = of
	}
	of[n] = true
	s.bytes += len(n.raw)
}

func (s *store) remove(old *stored) {
	s.arrivals.Remove(old.arrival)
	delete(s.byAddress, old.address)
	delete(s.byID, old.event.ID)
	of := s.byAuthor[old.event.PubKey]
	if delete(of, old); len(of) == 0 {
		delete(s.byAuthor, old.event.PubKey)
	}
	s.bytes -= len(old.raw)
}

// shrink removes what has expired, once a minute or when room is needed, and
// then what came first, until the limits are kept.
func (s *store) shrink(now time.Time) {
	full := func() bool { return s.arrivals.Len() > s.maxEvents || s.bytes > s.maxBytes }
	if now.Sub(s.swept) >= time.Minute {
		s.swept = now
		for el := s.arrivals.Front(); el != nil; {
			e := el.Value.(*stored)
			el = el.Next()
			if e.expired(now) {
				s.remove(e)
			}
		}
	}
	for full() {
		s.remove(s.arrivals.Front().Value.(*stored))
	}
}

func (e *stored) expired(now time.Time) bool { return e.expires != 0 && e.expires <= now.Unix() }

// query returns the events that match any of the filters, each once, newest
// first, of each filter at most its limit.
func (s *store) query(filters []*filter, now time.Time) []*stored {
	var found []*stored
	var seen map[*stored]bool
	for _, f := range filters {
		if f.limit == 0 || f.filed == nowhere {
			continue
		}
		matching := s.matching(f, now)
		slices.SortFunc(matching, newestFirst)
		matching = matching[:min(len(matching), f.limit)]
		if len(filters) == 1 {
			return matching
		}
		if seen == nil {
			seen = make(map[*stored]bool)
		}
		for _, e := range matching {
			if !seen[e] {
				seen[e] = true
				found = append(found, e)
			}
		}
	}
	slices.SortFunc(found, newestFirst)
	return found
}

func newestFirst(a, b *stored) int {
	if c := cmp.Compare(b.event.CreatedAt, a.event.CreatedAt); c != 0 {
		return c
	}
	return bytes.Compare(a.event.ID[:], b.event.ID[:])
}

// matching looks at the candidates of the narrowest condition.
func (s *store) matching(f *filter, now time.Time) (found []*stored) {
	consider := func(e *stored) {
		if e != nil && f.matchesAll(&e.event) && !e.expired(now) {
			found = append(found, e)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(f.ids) > 0:
		for _, id := range f.ids {
			consider(s.byID[id])
		}
	case len(f.authors) > 0:
		for _, a := range f.authors {
			for e := range s.byAuthor[a] {
				consider(e)
			}
		}
	default:
		for el := s.arrivals.Front(); el != nil; el = el.Next() {
			consider(el.Value.(*stored))
		}
	}
	return found
}

func (s *store) size() (events, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
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

// expiration is when the event expires (NIP-40) in unix seconds, or 0.
func expiration(e *envelope.Event) int64 {
	n, err := strconv.ParseInt(firstTag(e, "expiration"), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
