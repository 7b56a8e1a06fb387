package relayd

import (
	"slices"
	"sync"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// index finds the subscriptions that an event may concern without looking at
// the others. Each filter is filed under the values of one of its conditions,
// the most selective: ids, a tag, authors, kinds, or none.
type index struct {
	limit int // of all filter values

	mu      sync.RWMutex
	values  int
	byID    map[[32]byte][]*filing
	byTag   map[tagValue][]*filing
	tags    [128]int // how many filters are filed under a tag, by its letter
	byKey   map[envelope.PublicKey][]*filing
	byKind  map[int][]*filing
	general []*filing
}

type tagValue struct {
	letter byte
	value  string
}

// filing is a filter of a subscription in the index.
type filing struct {
	sub    *subscription
	filter *filter
}

func newIndex(limit int) *index {
	return &index{
		limit:  limit,
		byID:   make(map[[32]byte][]*filing),
		byTag:  make(map[tagValue][]*filing),
		byKey:  make(map[envelope.PublicKey][]*filing),
		byKind: make(map[int][]*filing),
	}
}

// replace files a subscription instead of the one that had its id, either of
// which may be nil. It reports false, and changes nothing, when that would be
// too much.
func (x *index) replace(old, sub *subscription) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	values := x.values
	if old != nil {
		values -= old.values
	}
	if sub != nil {
		if values += sub.values; values > x.limit {
			return false
		}
	}
	x.values = values
	if old != nil {
		for _, f := range old.filings {
			x.change(f, -1)
		}
	}
	if sub != nil {
		for _, f := range sub.filings {
			x.change(f, 1)
		}
	}
	return true
}

// change files f (by 1) or takes it out (by -1).
func (x *index) change(f *filing, by int) {
	switch f.filter.filed {
	case underID:
		for _, id := range f.filter.ids {
			put(x.byID, id, f, by)
		}
	case underTag:
		t := f.filter.tags[0]
		x.tags[t.letter] += by
		for _, v := range t.values {
			put(x.byTag, tagValue{t.letter, v}, f, by)
		}
	case underAuthor:
		for _, a := range f.filter.authors {
			put(x.byKey, a, f, by)
		}
	case underKind:
		for _, k := range f.filter.kinds {
			put(x.byKind, k, f, by)
		}
	case underNothing:
		x.general = changed(x.general, f, by)
	}
}

func put[K comparable](m map[K][]*filing, key K, f *filing, by int) {
	if list := changed(m[key], f, by); len(list) > 0 {
		m[key] = list
	} else {
		delete(m, key)
	}
}

func changed(list []*filing, f *filing, by int) []*filing {
	if by > 0 {
		return append(list, f)
	}
	if i := slices.Index(list, f); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	return list
}

// matcher finds subscriptions with memory of its own. Not for concurrent use.
type matcher struct {
	index *index
	found []*subscription
	seen  map[*subscription]bool // used when there are many
}

const manyFound = 16

// match returns the subscriptions that want the event, each once. The slice is
// valid until the next call.
func (m *matcher) match(e *envelope.Event) []*subscription {
	x := m.index
	clear(m.found)
	m.found = m.found[:0]
	clear(m.seen)
	x.mu.RLock()
	defer x.mu.RUnlock()
	m.check(e, x.byID[e.ID])
	m.check(e, x.byKey[e.PubKey])
	m.check(e, x.byKind[e.Kind])
	m.check(e, x.general)
	for name, value := range e.Tags {
		if len(name) == 1 && name[0] < 128 && x.tags[name[0]] > 0 {
			m.check(e, x.byTag[tagValue{name[0], string(value)}])
		}
	}
	return m.found
}

func (m *matcher) check(e *envelope.Event, candidates []*filing) {
	for _, f := range candidates {
		if f.filter.matches(e) && !m.has(f.sub) {
			m.found = append(m.found, f.sub)
			if m.seen != nil {
				m.seen[f.sub] = true
			}
		}
	}
}

func (m *matcher) has(s *subscription) bool {
	if len(m.found) < manyFound {
		return slices.Contains(m.found, s)
	}
	if len(m.seen) < len(m.found) {
		if m.seen == nil {
			m.seen = make(map[*subscription]bool)
		}
		for _, f := range m.found {
			m.seen[f] = true
		}
	}
	return m.seen[s]
}
