package exit

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// ClientReport is what one client has had of a Server since it became known.
// Bytes are counted as they pass.
type ClientReport struct {
	Key            [32]byte
	Proven         bool // Key is an identity; else one made up for the session
	Since          time.Time
	Flows          int   // open now
	Opened         int64 // flows
	Sent, Received int64 // bytes, by and for the client
	Refused        map[Reason]int64
	// Day and Month are the bytes that count for its quotas, if there are any.
	Day, Month int64
}

// Report is what the clients of a Server have had of it.
type Report struct {
	Known, Active  int   // clients, and those of them with an open flow
	Sent, Received int64 // bytes of all clients since New
	// Clients are those with the most bytes, in that order.
	Clients []ClientReport
}

// Report tells of the clients; of at most most of them one by one.
func (s *Server) Report(most int) Report { return s.accounts.report(most) }

func (a *accounts) report(most int) Report {
	type weighed struct {
		*account
		bytes int64
	}
	a.mu.Lock()
	r := Report{Known: len(a.known), Active: len(a.known) - a.quiet.Len(), Sent: a.gone.sent, Received: a.gone.received}
	all := make([]weighed, 0, len(a.known))
	for _, c := range a.known {
		sent, received := c.sent.Load(), c.received.Load()
		r.Sent += sent
		r.Received += received
		all = append(all, weighed{c, sent + received})
	}
	a.mu.Unlock()
	slices.SortFunc(all, func(x, y weighed) int {
		return cmp.Or(cmp.Compare(y.bytes, x.bytes), slices.Compare(x.key[:], y.key[:]))
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, c := range all[:min(len(all), max(most, 0))] {
		a.settle(c.account, now)
		day, month := c.usage.of(c.key, now)
		r.Clients = append(r.Clients, ClientReport{
			Key: c.key, Proven: c.proven, Since: c.since, Flows: c.flows, Opened: c.opened.Load(),
			Sent: c.sent.Load(), Received: c.received.Load(), Refused: maps.Clone(c.refused), Day: day, Month: month,
		})
	}
	return r
}
