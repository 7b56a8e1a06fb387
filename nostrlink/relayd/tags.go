package relayd

import (
	"bytes"
	"cmp"
	"slices"
	"sort"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// tag is a tag that filters can ask for: of one letter, with its first value,
// which belongs to the event.
type tag struct {
	letter byte
	value  []byte
}

// tagSet is such tags of an event, sorted, each once. An event may have
// thousands, and one tag thousands of times: whatever asks for tags repeatedly
// asks a tagSet, which is made once.
type tagSet []tag

// tagsOf collects an event's tags. It uses the memory of old.
func tagsOf(e *envelope.Event, old tagSet) tagSet {
	s := old[:0]
	for name, value := range e.Tags {
		if len(name) == 1 && name[0] < 128 {
			s = append(s, tag{name[0], value})
		}
	}
	if len(s) > 1 {
		slices.SortFunc(s, compareTags)
		s = slices.CompactFunc(s, func(a, b tag) bool { return compareTags(a, b) == 0 })
	}
	return s
}

func compareTags(a, b tag) int {
	return cmp.Or(cmp.Compare(a.letter, b.letter), bytes.Compare(a.value, b.value))
}

// has reports whether a tag is in the set.
func (s tagSet) has(letter byte, value []byte) bool {
	_, found := slices.BinarySearchFunc(s, tag{letter, value}, compareTags)
	return found
}

// subject is an event that filters are held against.
type subject struct {
	event *envelope.Event
	tags  tagSet
	steps int // filters and tag values looked at: what it took
}

// meets reports whether the event has a tag that the condition asks for. It goes
// through both sorted lists at once, leaping over what the other has not, so that
// it takes no more steps than the shorter one has elements.
func (s *subject) meets(c *tagCondition) bool {
	has, wants := s.tags, c.values
	for len(wants) > 0 {
		s.steps++
		has = has[leap(len(has), func(i int) bool {
			return has[i].letter < c.letter || has[i].letter == c.letter && compareText(wants[0], has[i].value) > 0
		}):]
		if len(has) == 0 || has[0].letter != c.letter {
			return false
		}
		wants = wants[leap(len(wants), func(i int) bool { return compareText(wants[i], has[0].value) < 0 }):]
		if len(wants) > 0 && wants[0] == string(has[0].value) {
			return true
		}
	}
	return false
}

// leap returns how many of n sorted elements come first, as before says. It takes
// the logarithm of that many steps.
func leap(n int, before func(i int) bool) int {
	least, stride := 0, 1
	for least+stride <= n && before(least+stride-1) {
		least += stride
		stride *= 2
	}
	return least + sort.Search(min(stride-1, n-least), func(i int) bool { return !before(least + i) })
}
