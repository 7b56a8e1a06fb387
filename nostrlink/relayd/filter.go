package relayd

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"slices"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
)

// filter is a filter of NIP-01 made ready: its lists are sorted and without
// repetitions.
type filter struct {
	filed   filed
	ids     [][32]byte
	authors []envelope.PublicKey
	kinds   []int
	tags    []tagCondition // the one with the fewest values first
	since   int64
	until   int64 // or -1
	limit   int
}

// tagCondition is that an event has a tag with one of the values.
type tagCondition struct {
	letter byte
	values []string
}

// filed says which condition the index uses. That condition holds for whatever
// the index finds.
type filed int

const (
	underNothing filed = iota
	underID
	underTag
	underAuthor
	underKind
	nowhere // a condition without values: nothing matches
)

// newFilter makes a filter ready. The parser has checked ids, authors and kinds.
func newFilter(f *nip01.Filter, maxLimit int) *filter {
	c := &filter{until: -1, limit: maxLimit}
	c.ids = keys[[32]byte](f.IDs)
	c.authors = keys[envelope.PublicKey](f.Authors)
	c.kinds = sorted(f.Kinds)
	empty := f.IDs != nil && len(f.IDs) == 0 || f.Authors != nil && len(f.Authors) == 0 || f.Kinds != nil && len(f.Kinds) == 0
	for letter, values := range f.Tags {
		c.tags = append(c.tags, tagCondition{letter[0], sorted(values)})
		empty = empty || len(values) == 0
	}
	if empty {
		return &filter{filed: nowhere}
	}
	slices.SortFunc(c.tags, func(a, b tagCondition) int { return len(a.values) - len(b.values) })
	if f.Since != nil {
		c.since = *f.Since
	}
	if f.Until != nil {
		c.until = *f.Until
	}
	if f.Limit != nil {
		c.limit = min(*f.Limit, maxLimit)
	}
	switch {
	case len(c.ids) > 0:
		c.filed = underID
	case len(c.tags) > 0:
		c.filed = underTag
	case len(c.authors) > 0:
		c.filed = underAuthor
	case len(c.kinds) > 0:
		c.filed = underKind
	}
	return c
}

// sorted returns a sorted copy without repetitions, nil for nil. It is no larger
// than need be: what is left of a list may be little, and is kept for long.
func sorted[T cmp.Ordered](list []T) []T {
	out := slices.Clone(list)
	slices.Sort(out)
	return slices.Clone(slices.Compact(out))
}

func keys[K ~[32]byte](list []string) []K {
	if list == nil {
		return nil
	}
	out := make([]K, len(list))
	for i, s := range list {
		var k [32]byte
		hex.Decode(k[:], []byte(s))
		out[i] = k
	}
	slices.SortFunc(out, compareKeys)
	return slices.Clone(slices.Compact(out))
}

func compareKeys[K ~[32]byte](a, b K) int {
	x, y := [32]byte(a), [32]byte(b)
	return bytes.Compare(x[:], y[:])
}

// valueSize is how many bytes of a tag's value are one value; usual ones are 64.
const valueSize = 128

// values is what the filter costs.
func (f *filter) values() int {
	n := 1 + len(f.ids) + len(f.authors) + len(f.kinds)
	for _, t := range f.tags {
		for _, v := range t.values {
			n += 1 + len(v)/valueSize
		}
	}
	return n
}

// matches checks every condition but the one under which the filter is filed
// and the limit.
func (f *filter) matches(s *subject) bool {
	s.steps++
	e := s.event
	if e.CreatedAt < f.since || f.until >= 0 && e.CreatedAt > f.until {
		return false
	}
	if f.kinds != nil && f.filed != underKind && !holds(f.kinds, e.Kind) {
		return false
	}
	if f.authors != nil && f.filed != underAuthor {
		if _, ok := slices.BinarySearchFunc(f.authors, e.PubKey, compareKeys); !ok {
			return false
		}
	}
	tags := f.tags
	if f.filed == underTag {
		tags = tags[1:]
	}
	for i := range tags {
		if !s.meets(&tags[i]) {
			return false
		}
	}
	return f.filed != nowhere
}

// matchesAll checks every condition but the limit.
func (f *filter) matchesAll(s *subject) bool {
	switch e := s.event; f.filed {
	case underID:
		if _, ok := slices.BinarySearchFunc(f.ids, e.ID, compareKeys); !ok {
			return false
		}
	case underTag:
		if !s.meets(&f.tags[0]) {
			return false
		}
	case underAuthor:
		if _, ok := slices.BinarySearchFunc(f.authors, e.PubKey, compareKeys); !ok {
			return false
		}
	case underKind:
		if !holds(f.kinds, e.Kind) {
			return false
		}
	}
	return f.matches(s)
}

func holds(sorted []int, v int) bool {
	_, ok := slices.BinarySearch(sorted, v)
	return ok
}

// compareText compares without an allocation.
func compareText(s string, b []byte) int {
	switch {
	case s == string(b):
		return 0
	case s < string(b):
		return -1
	}
	return 1
}
