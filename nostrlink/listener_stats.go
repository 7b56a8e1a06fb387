package nostrlink

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// ListenerStats count what a Listener has been asked. All but Sessions only
// grow.
type ListenerStats struct {
	Sessions  int    // open now
	Greetings uint64 // events for the identity key, of any kind

	Malformed uint64 // nothing that could be opened, or no greeting
	Forged    uint64 // not signed by their author
	Stale     uint64 // of a clock that is off by more than a minute; refused
	Replayed  uint64 // seen before, from another author or too often
	Refused   uint64 // of another version of the protocol
	Busy      uint64 // refused or dropped because there were too many
	Unpaid    uint64 // dropped as there were too many and they had not worked for it
	NotLetIn  uint64 // refused by Admit, or had too many sessions

	NWS compat.Stats // of the entries without a session
}

// Stats are the present ones.
func (l *Listener) Stats() ListenerStats {
	b := &l.books
	s := ListenerStats{
		Sessions:  l.Sessions(),
		Greetings: b.greetings.Load(),
		Malformed: b.malformed.Load(),
		Forged:    b.forged.Load(),
		Stale:     b.stale.Load(),
		Replayed:  b.replayed.Load(),
		Refused:   b.refused.Load(),
		Busy:      b.busy.Load(),
		Unpaid:    b.unpaid.Load(),
		NotLetIn:  b.notLetIn.Load(),
	}
	if l.nws != nil {
		s.NWS = l.nws.Stats()
	}
	return s
}

// books count greetings.
type books struct {
	greetings, malformed, forged, stale, replayed, refused, busy, unpaid, notLetIn atomic.Uint64
}

// enter counts a greeting that failed with err.
func (b *books) enter(err error) {
	var no *refusal
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, net.ErrClosed):
	case errors.As(err, &no):
		[...]*atomic.Uint64{refusedStale: &b.stale, refusedVersion: &b.refused, refusedBusy: &b.busy, refusedGuest: &b.notLetIn}[no.why].Add(1)
	case errors.Is(err, envelope.ErrID), errors.Is(err, envelope.ErrSignature), errors.Is(err, errIdentity):
		b.forged.Add(1)
	case errors.Is(err, errReplayed):
		b.replayed.Add(1)
	case errors.Is(err, errStale):
		b.stale.Add(1)
	case errors.Is(err, errCrowded), errors.Is(err, errLost):
		b.busy.Add(1)
	default:
		b.malformed.Add(1)
	}
}
