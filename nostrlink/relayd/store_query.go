package relayd

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"time"
)

// shelf is stored events, newest first.
type shelf []*stored

func (s *shelf) add(n *stored) {
	i, _ := slices.BinarySearchFunc(*s, n, newestFirst)
	*s = slices.Insert(*s, i, n)
}

func (s *shelf) remove(old *stored) {
	if i, found := slices.BinarySearchFunc(*s, old, newestFirst); found {
		*s = without(*s, i)
	}
}

// from is where events of that time and older begin.
func (s shelf) from(until int64) int {
	i, _ := slices.BinarySearchFunc(s, until, func(e *stored, until int64) int {
		if e.event.CreatedAt > until {
			return -1
		}
		return 1
	})
	return i
}

func takeFrom[K comparable](shelves map[K]shelf, key K, old *stored) {
	s := shelves[key]
	if s.remove(old); len(s) == 0 {
		delete(shelves, key)
		return
	}
	shelves[key] = s
}

func newestFirst(a, b *stored) int {
	if c := cmp.Compare(b.event.CreatedAt, a.event.CreatedAt); c != 0 {
		return c
	}
	return bytes.Compare(a.event.ID[:], b.event.ID[:])
}

// query returns the events that match any of the filters, each once, newest
// first, of each filter at most its limit.
func (s *store) query(filters []*filter, now time.Time) []*stored {
	var found []*stored
	for _, f := range filters {
		found = append(found, s.matching(f, f.limit, now)...)
	}
	if len(filters) == 1 {
		return found
	}
	slices.SortFunc(found, newestFirst)
	return slices.Compact(found)
}

// count returns how many events match any of the filters. (NIP-45)
func (s *store) count(filters []*filter, now time.Time) int {
	if len(filters) == 1 {
		return len(s.matching(filters[0], math.MaxInt, now))
	}
	seen := make(map[*stored]bool)
	for _, f := range filters {
		for _, e := range s.matching(f, math.MaxInt, now) {
			seen[e] = true
		}
	}
	return len(seen)
}

// matching returns the newest limit events that match the filter, newest first.
// The store is locked for one filter at a time: who publishes need not wait for
// all of somebody's filters.
func (s *store) matching(f *filter, limit int, now time.Time) (found []*stored) {
	if f.filed == nowhere || limit == 0 {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	fits := func(e *stored) bool {
		return f.matchesAll(&subject{event: &e.event, tags: e.tags}) && !e.expired(now) && !s.tooOld(e, now)
	}
	shelves := s.narrowest(f)
	for _, sh := range shelves {
		n := 0
		begin := 0
		if f.until >= 0 {
			begin = sh.from(f.until)
		}
		for _, e := range sh[begin:] {
			if e.event.CreatedAt < f.since || n == limit {
				break
			}
			if fits(e) {
				found = append(found, e)
				n++
			}
		}
	}
	if len(shelves) > 1 {
		slices.SortFunc(found, newestFirst)
		found = slices.Compact(found)
	}
	return found[:min(len(found), limit)]
}

// narrowest returns the shelves of one of the filter's conditions, that with
// the fewest events on them. What matches is on them.
func (s *store) narrowest(f *filter) []shelf {
	if f.ids != nil {
		var shelves []shelf
		for _, id := range f.ids {
			if e := s.byID[id]; e != nil {
				shelves = append(shelves, shelf{e})
			}
		}
		return shelves
	}
	best, least := []shelf{s.all}, len(s.all)
	consider := func(n int, at func(i int) shelf) {
		var shelves []shelf
		total := 0
		for i := range n {
			if sh := at(i); len(sh) > 0 {
				shelves = append(shelves, sh)
				total += len(sh)
			}
		}
		if total < least {
			best, least = shelves, total
		}
	}
	for _, t := range f.tags {
		consider(len(t.values), func(i int) shelf { return s.byTag[tagValue{t.letter, t.values[i]}] })
	}
	if f.authors != nil {
		consider(len(f.authors), func(i int) shelf { return s.byAuthor[f.authors[i]] })
	}
	if f.kinds != nil {
		consider(len(f.kinds), func(i int) shelf { return s.byKind[f.kinds[i]] })
	}
	return best
}
