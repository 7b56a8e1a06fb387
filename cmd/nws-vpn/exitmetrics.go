package main

import (
	"io"

	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/internal/metrics"
	"github.com/nws-vpn/nws-vpn/nostrlink"
)

// writeMetrics writes figures for Prometheus. There is a fixed number of lines,
// whoever the clients are and however many.
func (r *exitRun) writeMetrics(w io.Writer) error {
	st, clients := r.server.Stats(), r.server.Report(0)
	var set metrics.Set
	gauge := func(name, help string, n int) { metrics.Add(&set, "nws_exit_"+name, metrics.Gauge, help, n) }
	count := func(name, help string, n int64) {
		metrics.Add(&set, "nws_exit_"+name+"_total", metrics.Counter, help, n)
	}
	gauge("flows", "Open flows.", st.OpenFlows)
	gauge("dials", "Connections being made.", st.Dialling)
	gauge("clients", "Clients that are told apart at present.", clients.Known)
	gauge("clients_active", "Clients with an open flow.", clients.Active)
	gauge("draining", "1 while the exit takes no new sessions.", btoi(r.isDraining()))
	metrics.AddBy(&set, "nws_exit_flows_total", metrics.Counter, "Flows accepted, by network.", "network", []metrics.Value[int64]{
		{Label: "tcp", N: st.TCPFlows}, {Label: "udp", N: st.UDPFlows}, {Label: "dns", N: st.DNSFlows}, {Label: "ping", N: st.PingFlows},
	})
	metrics.AddBy(&set, "nws_exit_bytes_total", metrics.Counter, "Bytes sent for clients and received for them.", "direction", []metrics.Value[int64]{
		{Label: "sent", N: clients.Sent}, {Label: "received", N: clients.Received},
	})
	count("dns_queries", "DNS queries answered.", st.Queries)
	count("dns_queries_failed", "DNS queries that name servers did not answer.", st.QueriesFailed)
	var refused []metrics.Value[int64]
	for _, reason := range exit.Reasons() {
		refused = append(refused, metrics.Value[int64]{Label: reason.String(), N: st.Refused[reason]})
	}
	metrics.AddBy(&set, "nws_exit_refused_total", metrics.Counter, "Requests refused, by reason.", "reason", refused)
	l := r.listenerStats()
	gauge("sessions", "Open sessions.", l.Sessions)
	metrics.AddBy(&set, "nws_exit_greetings_total", metrics.Counter, "Events for the exit's key that open no session, by what became of them, and all.", "outcome", greetings(l))
	_, err := set.WriteTo(w)
	return err
}

// greetings are the outcomes of greetings, in a fixed order.
func greetings(l nostrlink.ListenerStats) []metrics.Value[uint64] {
	return []metrics.Value[uint64]{
		{Label: "all", N: l.Greetings}, {Label: "malformed", N: l.Malformed}, {Label: "forged", N: l.Forged}, {Label: "stale", N: l.Stale},
		{Label: "replayed", N: l.Replayed}, {Label: "version", N: l.Refused}, {Label: "busy", N: l.Busy}, {Label: "unpaid", N: l.Unpaid},
		{Label: "not_let_in", N: l.NotLetIn},
	}
}

// listenerStats are those of all names together.
func (r *exitRun) listenerStats() nostrlink.ListenerStats {
	var all nostrlink.ListenerStats
	for _, n := range r.names {
		s := n.listener.Stats()
		all.Sessions += s.Sessions
		all.Greetings += s.Greetings
		all.Malformed += s.Malformed
		all.Forged += s.Forged
		all.Stale += s.Stale
		all.Replayed += s.Replayed
		all.Refused += s.Refused
		all.Busy += s.Busy
		all.Unpaid += s.Unpaid
		all.NotLetIn += s.NotLetIn
	}
	return all
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (r *exitRun) isDraining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.draining.since.IsZero()
}
