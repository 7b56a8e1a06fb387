package relayd

import (
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
)

// settings are those of the options that Change replaces. They are not changed
// themselves.
type settings struct {
	limits      Limits
	rate        Rate // of each connection
	addressRate *limiters[source]
	keyRate     *limiters[envelope.PublicKey]
	minPoW      int
	members     map[envelope.PublicKey]bool // nil: everybody
	info        []byte
}

func (s *Server) newSettings(opts *Options) *settings {
	n := &settings{limits: opts.Limits.withDefaults(), rate: opts.Rate, minPoW: opts.MinPoW}
	n.addressRate = newLimiters[source](opts.AddressRate, n.limits.MaxEvent)
	n.keyRate = newLimiters[envelope.PublicKey](opts.KeyRate, n.limits.MaxEvent)
	if opts.Members != nil {
		n.members = make(map[envelope.PublicKey]bool)
		for _, key := range opts.Members {
			n.members[key] = true
		}
	}
	n.info, _ = s.describe(opts, n) // strings and numbers: no error
	return n
}

func (s *Server) limits() *Limits { return &s.settings.Load().limits }

// Change has other limits, rates, members, work and words about the relay count
// from now on. Clients stay connected, but those who could use the relay as
// somebody who is no member any more. What a rate has granted begins anew.
//
// All else of opts is ignored, as are MaxAllValues and MaxMemory of the limits.
// Change may be called concurrently with everything else.
func (s *Server) Change(opts Options) {
	s.changing.Lock()
	defer s.changing.Unlock()
	old, next := s.settings.Load(), s.newSettings(&opts)
	s.settings.Store(next)
	s.store.setLimits(&next.limits, time.Now())
	for _, c := range s.attached() {
		if c.identity.admitted(old) && !c.identity.admitted(next) {
			c.farewell(ws.StatusPolicy, "the relay has other members now")
		}
	}
}
