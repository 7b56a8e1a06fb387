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
