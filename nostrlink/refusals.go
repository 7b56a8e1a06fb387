package nostrlink

import (
	"maps"
	"sync"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// refusals counts what an exit says when it does not want to serve a flow. It is
// safe for concurrent use.
type refusals struct {
	mu sync.Mutex
	n  map[string]uint64
}

// The exit chooses the texts, so there are only so many; the rest have one name.
const (
	maxRefusals   = 20
	otherRefusals = "other reasons"
)

// count takes a refusal, unless it is about what is beyond the exit.
func (r *refusals) count(no *wire.Error) {
	switch no.Code {
	case wire.CodeDenied, wire.CodeBusy, wire.CodeUnsupported:
	default:
		return
	}
	text := oneLine(no.Error())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == nil {
		r.n = make(map[string]uint64)
	}
	if _, known := r.n[text]; !known && len(r.n) >= maxRefusals {
		text = otherRefusals
	}
	r.n[text]++
}

// byText is what was counted.
func (r *refusals) byText() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.n)
}
