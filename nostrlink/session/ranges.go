package session

import "slices"

// span is the half-open run lo … hi-1 of offsets or numbers.
type span struct{ lo, hi uint64 }

// spans is a set of numbers as sorted, disjoint spans that do not touch.
type spans []span

// after is the index of the first span that ends at or after n.
func (s spans) after(n uint64) int {
	// Most calls are about the end: new data, the newest packet.
	if k := len(s); k == 0 || s[k-1].hi < n {
		return k
	}
	lo, hi := 0, len(s)-1
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s[mid].hi < n {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// add puts lo … hi-1 into the set.
func (s *spans) add(lo, hi uint64) {
	if lo >= hi {
		return
	}
	i := s.after(lo)
	j := i
	for j < len(*s) && (*s)[j].lo <= hi {
		lo = min(lo, (*s)[j].lo)
		hi = max(hi, (*s)[j].hi)
		j++
	}
	if j == i {
		*s = slices.Insert(*s, i, span{lo, hi})
		return
	}
	(*s)[i] = span{lo, hi}
	*s = slices.Delete(*s, i+1, j)
}

// remove takes lo … hi-1 out of the set.
func (s *spans) remove(lo, hi uint64) {
	if lo >= hi {
		return
	}
	i := s.after(lo + 1)
	j := i
	var left, right span
	for j < len(*s) && (*s)[j].lo < hi {
		if r := (*s)[j]; r.lo < lo {
			left = span{r.lo, lo}
		}
		if r := (*s)[j]; r.hi > hi {
			right = span{hi, r.hi}
		}
		j++
	}
	keep := make([]span, 0, 2)
	if left.lo < left.hi {
		keep = append(keep, left)
	}
	if right.lo < right.hi {
		keep = append(keep, right)
	}
	*s = slices.Replace(*s, i, j, keep...)
}

// gap is the first run within lo … hi-1 that the set lacks; empty when it has
// them all.
func (s spans) gap(lo, hi uint64) span {
	i := s.after(lo + 1)
	if i < len(s) && s[i].lo <= lo {
		lo = s[i].hi
		i++
	}
	if i < len(s) {
		hi = min(hi, s[i].lo)
	}
	return span{lo, max(lo, hi)}
}

// has reports whether n is in the set.
func (s spans) has(n uint64) bool {
	i := s.after(n + 1)
	return i < len(s) && s[i].lo <= n
}

// total counts the numbers in the set.
func (s spans) total() (n uint64) {
	for _, r := range s {
		n += r.hi - r.lo
	}
	return n
}

// touches reports whether lo … hi-1 overlaps a span or lies next to one.
func (s spans) touches(lo, hi uint64) bool {
	i := s.after(lo)
	return i < len(s) && s[i].lo <= hi
}
