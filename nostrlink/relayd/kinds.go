package relayd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// class is what NIP-01 has a relay do with a kind.
type class int

const (
	regular     class = iota // kept
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

// Kinds that the relay itself knows.
const (
	kindDeletion = 5     // NIP-09
	kindRepost   = 6     // NIP-18
	kindGeneric  = 16    // NIP-18, a repost too
	kindGiftWrap = 1059  // NIP-59
	kindAuth     = 22242 // NIP-42
)

const maxKind = 65535

// KindRange is the kinds from First to Last, both included.
type KindRange struct{ First, Last int }

// Kinds is a set of kinds, sorted, without overlaps.
type Kinds []KindRange

// DefaultKinds are the kinds to keep that nws-vpn itself needs: follow lists (3),
// by which users choose whom to trust, deletions (5), relay lists (10002), and
// announcements and certificates of exits (38333, 38334).
func DefaultKinds() Kinds {
	return Kinds{{3, 3}, {5, 5}, {10002, 10002}, {38333, 38334}}
}

// AllKinds is every kind that may be kept.
func AllKinds() Kinds { return Kinds{{0, 19999}, {30000, maxKind}} }

// ParseKinds reads a list of kinds and ranges of them, such as "5" and
// "30000-39999". Ephemeral kinds cannot be kept and are refused.
func ParseKinds(list []string) (Kinds, error) {
	kinds := Kinds{}
	for _, text := range list {
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		switch {
		case errA != nil || errB != nil || a > b:
			return nil, fmt.Errorf(`want a kind such as "10002" or a range such as "30000-39999", not %q`, text)
		case b >= 20000 && a < 30000:
			return nil, fmt.Errorf("%s: the kinds 20000 to 29999 are ephemeral and never kept", text)
		}
		kinds = append(kinds, KindRange{int(a), int(b)})
	}
	return kinds.normal(), nil
}

// normal sorts the ranges and joins those that touch.
func (k Kinds) normal() Kinds {
	slices.SortFunc(k, func(a, b KindRange) int { return a.First - b.First })
	joined := k[:0]
	for _, r := range k {
		if n := len(joined); n > 0 && r.First <= joined[n-1].Last+1 {
			joined[n-1].Last = max(joined[n-1].Last, r.Last)
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

// Has reports whether kind is in the set.
func (k Kinds) Has(kind int) bool {
	_, found := slices.BinarySearchFunc(k, kind, func(r KindRange, kind int) int {
		switch {
		case kind < r.First:
			return 1
		case kind > r.Last:
			return -1
		}
		return 0
	})
	return found
}

// others are the kinds that could be kept and are not in the set.
func (k Kinds) others() (rest Kinds) {
	for _, all := range AllKinds() {
		next := all.First
		for _, r := range k {
			if r.Last < all.First || r.First > all.Last {
				continue
			}
			if r.First > next {
				rest = append(rest, KindRange{next, r.First - 1})
			}
			next = r.Last + 1
		}
		if next <= all.Last {
			rest = append(rest, KindRange{next, all.Last})
		}
	}
	return rest
}
