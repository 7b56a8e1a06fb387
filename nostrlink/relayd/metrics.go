package relayd

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
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
	var b strings.Builder
	for _, m := range []struct {
		name, kind, help string
		value            any
	}{
		{"connections", "gauge", "Clients that are connected.", st.Connections},
		{"connections_total", "counter", "Clients that have connected.", st.Connected},
		{"connections_turned_away_total", "counter", "Connections for which there was no room.", st.Turned},
		{"subscriptions", "gauge", "Open subscriptions.", st.Subscriptions},
		{"authentications_total", "counter", "Keys that clients have proved to hold.", st.Authenticated},
		{"events_accepted_total", "counter", "Events accepted.", st.Accepted},
		{"events_forwarded_total", "counter", "Events queued for subscribers, counted for each.", st.Forwarded},
		{"messages_dropped_total", "counter", "Messages for which a client's queue had no room.", st.Dropped},
		{"signatures_verified_total", "counter", "Signatures verified.", st.Verified},
		{"events_vouched_total", "counter", "Events that needed no signature, because the client had proved its key.", st.Vouched},
		{"received_bytes_total", "counter", "Bytes of messages received.", st.BytesIn},
		{"forwarded_bytes_total", "counter", "Bytes of events forwarded, counted for each subscriber.", st.BytesOut},
		{"slow_clients_cut_total", "counter", "Clients cut because they read too slowly.", st.Slow},
		{"memory_bytes", "gauge", "Bytes of messages that are held.", st.Memory},
		{"stored_events", "gauge", "Events that are kept.", st.Stored},
		{"stored_bytes", "gauge", "Bytes of the events that are kept.", st.StoredBytes},
	} {
		fmt.Fprintf(&b, "# HELP nws_relay_%s %s\n# TYPE nws_relay_%s %s\nnws_relay_%s %d\n", m.name, m.help, m.name, m.kind, m.name, m.value)
	}
	b.WriteString("# HELP nws_relay_events_refused_total Events refused, by reason.\n# TYPE nws_relay_events_refused_total counter\n")
	for _, r := range reasons {
		fmt.Fprintf(&b, "nws_relay_events_refused_total{reason=%q} %d\n", r, st.RefusedFor[r])
	}
	_, err := io.WriteString(w, b.String())
	return err
}
