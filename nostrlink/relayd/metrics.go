package relayd

import (
	"io"
	"strings"
	"sync/atomic"

	"github.com/nws-vpn/nws-vpn/internal/metrics"
)

// reasons are the prefixes of refusals, of which there is one figure each. What
// begins otherwise counts as the last.
var reasons = [...]string{"invalid", "blocked", "mute", "duplicate", "rate-limited", "restricted", "auth-required", "pow", "error"}

type counters struct {
	subscriptions                 atomic.Int64
	accepted                      atomic.Uint64
	refused                       [len(reasons)]atomic.Uint64
	verified, vouched             atomic.Uint64
	authenticated                 atomic.Uint64
	forwarded, dropped            atomic.Uint64
	bytesIn, bytesOut             atomic.Uint64
	slow, refusedConns, connected atomic.Uint64
}

// refuse counts a refusal.
func (c *counters) refuse(reason string) {
	prefix, _, _ := strings.Cut(reason, ":")
	for i, r := range reasons {
		if r == prefix || i == len(reasons)-1 {
			c.refused[i].Add(1)
			return
		}
	}
}

// Stats is what the server has done and holds.
type Stats struct {
	Connections   int    // open
	Connected     uint64 // since the start
	Turned        uint64 // away, because of MaxConnections or MaxPerAddress
	Subscriptions int
	Authenticated uint64 // AUTH messages that proved a key
	Accepted      uint64 // events
	Refused       uint64 // events
	// RefusedFor is Refused by the prefix of the answer.
	RefusedFor  map[string]uint64
	Verified    uint64 // signatures
	Vouched     uint64 // events whose author's key the client had proved to hold
	Forwarded   uint64 // events, counted for each subscriber
	Dropped     uint64 // messages for which a client's queue had no room in time
	BytesIn     uint64 // of messages
	BytesOut    uint64 // of events forwarded
	Slow        uint64 // connections cut because they read too slowly
	Memory      int64  // bytes of messages held
	Stored      int    // events
	StoredBytes int
}

// Stats returns the present figures.
func (s *Server) Stats() Stats {
	events, bytes := s.store.size()
	s.mu.Lock()
	connections := len(s.conns)
	s.mu.Unlock()
	st := Stats{
		Connections:   connections,
		Connected:     s.stats.connected.Load(),
		Turned:        s.stats.refusedConns.Load(),
		Subscriptions: int(s.stats.subscriptions.Load()),
		Authenticated: s.stats.authenticated.Load(),
		Accepted:      s.stats.accepted.Load(),
		RefusedFor:    make(map[string]uint64),
		Verified:      s.stats.verified.Load(),
		Vouched:       s.stats.vouched.Load(),
		Forwarded:     s.stats.forwarded.Load(),
		Dropped:       s.stats.dropped.Load(),
		BytesIn:       s.stats.bytesIn.Load(),
		BytesOut:      s.stats.bytesOut.Load(),
		Slow:          s.stats.slow.Load(),
		Memory:        s.memory.used.Load(),
		Stored:        events,
		StoredBytes:   bytes,
	}
	for i, r := range reasons {
		n := s.stats.refused[i].Load()
		st.RefusedFor[r] = n
		st.Refused += n
	}
	return st
}

// WriteMetrics writes the figures in the text format of Prometheus. There is a
// fixed number of lines, whoever the clients are.
func (s *Server) WriteMetrics(w io.Writer) error {
	st := s.Stats()
	var set metrics.Set
	for _, m := range []struct {
		name, kind, help string
		value            int64
	}{
		{"connections", metrics.Gauge, "Clients that are connected.", int64(st.Connections)},
		{"connections_total", metrics.Counter, "Clients that have connected.", int64(st.Connected)},
		{"connections_turned_away_total", metrics.Counter, "Connections for which there was no room.", int64(st.Turned)},
		{"subscriptions", metrics.Gauge, "Open subscriptions.", int64(st.Subscriptions)},
		{"authentications_total", metrics.Counter, "Keys that clients have proved to hold.", int64(st.Authenticated)},
		{"events_accepted_total", metrics.Counter, "Events accepted.", int64(st.Accepted)},
		{"events_forwarded_total", metrics.Counter, "Events queued for subscribers, counted for each.", int64(st.Forwarded)},
		{"messages_dropped_total", metrics.Counter, "Messages for which a client's queue had no room.", int64(st.Dropped)},
		{"signatures_verified_total", metrics.Counter, "Signatures verified.", int64(st.Verified)},
		{"events_vouched_total", metrics.Counter, "Events that needed no signature, because the client had proved its key.", int64(st.Vouched)},
		{"received_bytes_total", metrics.Counter, "Bytes of messages received.", int64(st.BytesIn)},
		{"forwarded_bytes_total", metrics.Counter, "Bytes of events forwarded, counted for each subscriber.", int64(st.BytesOut)},
		{"slow_clients_cut_total", metrics.Counter, "Clients cut because they read too slowly.", int64(st.Slow)},
		{"memory_bytes", metrics.Gauge, "Bytes of messages that are held.", st.Memory},
		{"stored_events", metrics.Gauge, "Events that are kept.", int64(st.Stored)},
		{"stored_bytes", metrics.Gauge, "Bytes of the events that are kept.", int64(st.StoredBytes)},
	} {
		metrics.Add(&set, "nws_relay_"+m.name, m.kind, m.help, m.value)
	}
	refused := make([]metrics.Value[uint64], 0, len(reasons))
	for _, r := range reasons {
		refused = append(refused, metrics.Value[uint64]{Label: r, N: st.RefusedFor[r]})
	}
	metrics.AddBy(&set, "nws_relay_events_refused_total", metrics.Counter, "Events refused, by reason.", "reason", refused)
	_, err := set.WriteTo(w)
	return err
}
