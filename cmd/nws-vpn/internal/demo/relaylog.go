package demo

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// relayView is what a relay could tell of the events that it forwarded: who to
// whom, which kind, how many, how large. It is filled from the lines that
// "nws-vpn relay --log-events" prints.
type relayView struct {
	mu     sync.Mutex
	lines  int
	events int
	pairs  map[pair]*traffic
	// telling are lines that hold a word of forbidden.
	telling   []string
	forbidden []string
}

type pair struct {
	kind              int
	author, recipient string
}

type traffic struct {
	pair
	events, largest int
	bytes           int64
}

func newRelayView(forbidden ...string) *relayView {
	return &relayView{pairs: map[pair]*traffic{}, forbidden: forbidden}
}

// add takes a line that the relay printed.
func (v *relayView) add(line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lines++
	for _, word := range v.forbidden {
		if strings.Contains(line, word) && len(v.telling) < 10 {
			v.telling = append(v.telling, line)
		}
	}
	p, size, ok := parseEventLine(line)
	if !ok {
		return
	}
	t := v.pairs[p]
	if t == nil {
		t = &traffic{pair: p}
		v.pairs[p] = t
	}
	t.events++
	t.bytes += int64(size)
	t.largest = max(t.largest, size)
	v.events++
}

// rows are the pairs, the busiest first.
func (v *relayView) rows() []traffic {
	v.mu.Lock()
	defer v.mu.Unlock()
	var rows []traffic
	for _, t := range v.pairs {
		rows = append(rows, *t)
	}
	slices.SortFunc(rows, func(a, b traffic) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.author, b.author))
	})
	return rows
}

// busyRelay finds out which of several relays carries a transfer.
type busyRelay struct {
	killed int // the relay that was killed for it, or -1

	mu   sync.Mutex
	seen map[int]int // large events since watch, by relay
	told chan int    // or nil: nobody watches
}

// Events of this size are a transfer's, and so many of one relay's show that it
// is well under way there.
const (
	largeEvent = 30_000
	underWay   = 100
)

func newBusyRelay() *busyRelay { return &busyRelay{killed: -1} }

// watch returns a channel that gets the number of the first relay that has
// carried a part of a transfer from now on.
func (b *busyRelay) watch() <-chan int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen, b.told = map[int]int{}, make(chan int, 1)
	return b.told
}

// add takes a line that a relay printed.
func (b *busyRelay) add(relay int, line string) {
	_, size, ok := parseEventLine(line)
	if !ok || size < largeEvent {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.told == nil {
		return
	}
	if b.seen[relay]++; b.seen[relay] >= underWay {
		b.told <- relay
		b.told = nil
	}
}

// parseEventLine reads a line of words key=value with kind, author, recipient
// and size.
func parseEventLine(line string) (p pair, size int, ok bool) {
	found := 0
	for word := range strings.FieldsSeq(line) {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "kind":
			p.kind, err = strconv.Atoi(value)
		case "author":
			p.author = value
		case "recipient":
			p.recipient = value
		case "size":
			size, err = strconv.Atoi(value)
		default:
			continue
		}
		if err != nil {
			return pair{}, 0, false
		}
		found++
	}
	return p, size, found == 4
}
