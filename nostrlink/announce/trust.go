package announce

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Trust is the user's rule for exits that may be chosen without being asked
// about: those that are listed, and those that people follow whom the user
// named for that. It is immutable. A nil Trust admits nobody.
type Trust struct {
	listed  map[envelope.PublicKey]bool
	follows map[envelope.PublicKey]envelope.PublicKey // to who follows them
}

// NewTrust returns the rule that admits the listed keys and all keys of the
// follow lists. The authors of the lists are not admitted by that: name them
// among the listed ones if they run exits. Of several lists by one author only
// the newest counts.
func NewTrust(listed []envelope.PublicKey, follows []Follows) *Trust {
	t := &Trust{
		listed:  make(map[envelope.PublicKey]bool),
		follows: make(map[envelope.PublicKey]envelope.PublicKey),
	}
	for _, key := range listed {
		t.listed[key] = true
	}
	newest := make(map[envelope.PublicKey]Follows)
	for _, list := range follows {
		if old, ok := newest[list.Key]; !ok || list.Created.After(old.Created) {
			newest[list.Key] = list
		}
	}
	for _, list := range newest {
		for _, key := range list.Keys {
			if by, ok := t.follows[key]; !ok || slices.Compare(list.Key[:], by[:]) < 0 {
				t.follows[key] = list.Key
			}
		}
	}
	return t
}

// Empty reports whether the rule admits nobody at all.
func (t *Trust) Empty() bool { return t == nil || len(t.listed)+len(t.follows) == 0 }

// Admits reports whether the rule admits the exit with that key.
func (t *Trust) Admits(key envelope.PublicKey) bool { return t.Why(key) != "" }

// Why says, for people, why the rule admits a key: "listed" or "followed by
// npub1…". It is empty when it does not.
func (t *Trust) Why(key envelope.PublicKey) string {
	if t == nil {
		return ""
	}
	if t.listed[key] {
		return "listed"
	}
	if by, ok := t.follows[key]; ok {
		return "followed by " + by.NPub()
	}
	return ""
}

// Candidate is an exit that could be chosen, and what trying it gave.
type Candidate struct {
	Announcement
	Probe Probe
}

// Probe is the outcome of a handshake with an exit. The zero Probe stands for
// one that was not tried.
type Probe struct {
	Time time.Duration // it took; more than zero if it worked
	Err  error         // why it failed
}

// Why Choose finds nobody.
var (
	ErrNoTrust     = errors.New("announce: no trust rule: name the exits that may be chosen, or whose follow lists decide")
	ErrNobody      = errors.New("announce: none of the announced exits is admitted by the trust rule")
	ErrUnreachable = errors.New("announce: none of the admitted exits can be reached")
)

// fullLoad is from where an exit counts as full.
const fullLoad = 95

// Choose returns the candidates that the rule admits and that have not failed,
// best first: those with room before full ones, those that were tried before
// those that were not, then by the time of the handshake. The first is to be
// used, the next ones are for when it dies. Without anybody the error is
// [ErrNoTrust], [ErrNobody] or [ErrUnreachable]: a stranger is never chosen.
func Choose(candidates []Candidate, trust *Trust) ([]Candidate, error) {
	if trust.Empty() {
		return nil, ErrNoTrust
	}
	var admitted int
	var failure error
	var out []Candidate
	for _, c := range candidates {
		if c.Closed || !trust.Admits(c.Key) {
			continue
		}
		admitted++
		if c.Probe.Err != nil {
			failure = c.Probe.Err
			continue
		}
		out = append(out, c)
	}
	switch {
	case admitted == 0:
		return nil, fmt.Errorf("%w: %d announced", ErrNobody, len(candidates))
	case len(out) == 0:
		return nil, fmt.Errorf("%w: tried %d: %w", ErrUnreachable, admitted, failure)
	}
	slices.SortStableFunc(out, compare)
	return out, nil
}

func compare(x, y Candidate) int {
	if full := x.Load >= fullLoad; full != (y.Load >= fullLoad) {
		return order(!full)
	}
	if tried := x.Probe.Time > 0; tried != (y.Probe.Time > 0) {
		return order(tried)
	}
	if x.Probe.Time != y.Probe.Time {
		return order(x.Probe.Time < y.Probe.Time)
	}
	return slices.Compare(x.Key[:], y.Key[:])
}

// order is what a comparison returns when its first argument comes first, or
// does not.
func order(first bool) int {
	if first {
		return -1
	}
	return 1
}
