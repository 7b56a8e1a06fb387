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
		list = without(list, i)
	}
	return list
}

// without takes one element out of a list, and gives back most of the memory that
// the list took when it was much longer.
func without[S ~[]E, E any](list S, i int) S {
	list = slices.Delete(list, i, i+1)
	if cap(list) > 32 && len(list) < cap(list)/4 {
		return slices.Clone(list)
	}
	return list
}

// matcher finds subscriptions with memory of its own. Not for concurrent use.
type matcher struct {
	index *index
	subject
	found []*subscription
	seen  map[*subscription]bool // used when there are many
	tried map[*filing]bool       // of those that the index may find several times
}

const (
	manyFound = 16
	// keptRoom bounds, in elements, the memory that a matcher keeps for the next
	// event.
	keptRoom = 1024
)

// match returns the subscriptions that want the event, each once. The slice is
// valid until the next call or forget.
//
// Whoever publishes chooses the tags, and whoever subscribes the filters. However
// they are chosen, each tag is looked up once and each filter that is found held
// against the event once, in no more steps than it has values.
func (m *matcher) match(e *envelope.Event) []*subscription {
	m.forget()
	m.event, m.tags = e, tagsOf(e, m.tags)
	x := m.index
	x.mu.RLock()
	defer x.mu.RUnlock()
	m.check(x.byID[e.ID])
	m.check(x.byKey[e.PubKey])
	m.check(x.byKind[e.Kind])
	m.check(x.general)
	for _, t := range m.tags {
		if x.tags[t.letter] > 0 {
			m.check(x.byTag[tagValue{t.letter, string(t.value)}])
		}
	}
	return m.found
}

// forget lets go of what the last call has found, and of most of the memory that
// it took.
func (m *matcher) forget() {
	if max(cap(m.found), cap(m.tags), len(m.tried)) > keptRoom {
		*m = matcher{index: m.index}
		return
	}
	clear(m.found)
	clear(m.tags)
	m.event, m.tags, m.found, m.steps = nil, m.tags[:0], m.found[:0], 0
	if len(m.seen)+len(m.tried) > 0 { // most often there are none
		clear(m.seen)
		clear(m.tried)
	}
}

func (m *matcher) check(candidates []*filing) {
	for _, f := range candidates {
		if !m.again(f) && f.filter.matches(&m.subject) && !m.has(f.sub) {
			m.found = append(m.found, f.sub)
			if m.seen != nil {
				m.seen[f.sub] = true
			}
		}
	}
}

// again reports whether a filing has been looked at before. Only those are
// remembered that an event finds by several tags and that take many steps.
func (m *matcher) again(f *filing) bool {
	if tags := f.filter.tags; len(tags) < 2 || len(tags[0].values) < 2 {
		return false
	}
	if m.tried[f] {
		return true
	}
	if m.tried == nil {
		m.tried = make(map[*filing]bool)
	}
	m.tried[f] = true
	return false
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
