package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/internal/metrics"
	"github.com/nws-vpn/nws-vpn/nostrlink"
)

// bindFigures has the place of the figures, unless a predecessor has that until it is
// replaced. Who of another version does not say so may have it.
func (r *exitRun) bindFigures() (err error) {
	place, mayWait := r.started.Exit.Metrics, false
	if r.before != nil {
		if mayWait = r.before.Metrics == nil; !mayWait && *r.before.Metrics == place {
			return nil
		}
	}
	if r.figures, err = listenMetrics(place); err != nil && !mayWait {
		return err
	}
	if r.figures != nil {
		r.closing(func() { r.figures.Close() })
	}
	return nil
}

// doorRetry is between tries to have what a predecessor had.
const doorRetry = time.Second

// showFigures shows figures until ctx ends. Where that fails it is tried again, as the
// exit goes on without.
func (r *exitRun) showFigures(ctx context.Context) {
	place, l, said := r.started.Exit.Metrics, r.figures, ""
	for place != "" && ctx.Err() == nil {
		var err error
		if l == nil {
			l, err = listenMetrics(place)
		}
		if err == nil {
			fmt.Fprintf(r.out, "metrics on %s\n", l.Addr())
			err = serveHTTP(ctx, l, metricsHandler(r.writeMetrics), nil)
			l = nil
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			r.log.Error("no figures are shown at present", "metrics", place, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(doorRetry):
		}
	}
}

// writeMetrics writes figures for Prometheus. There is a fixed number of lines,
// whoever the clients are and however many.
func (r *exitRun) writeMetrics(w io.Writer) error {
	st, clients := r.server.Stats(), r.server.Report(0)
	var set metrics.Set
	gauge := func(name, help string, n int) { metrics.Add(&set, "nws_exit_"+name, metrics.Gauge, help, n) }
	count := func(name, help string, n int64) {
		metrics.Add(&set, "nws_exit_"+name+"_total", metrics.Counter, help, n)
	}
	metrics.AddProcess(&set, buildVersion(), r.since)
	gauge("flows", "Open flows.", st.OpenFlows)
	gauge("dials", "Connections being made.", st.Dialling)
	gauge("clients", "Clients that are told apart at present.", clients.Known)
	gauge("clients_active", "Clients with an open flow.", clients.Active)
	gauge("bans", "Clients that are banned.", r.bans())
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
	count("greetings", "Events for the exit's keys, of any kind.", int64(l.Greetings))
	metrics.AddBy(&set, "nws_exit_greetings_refused_total", metrics.Counter, "Those of them that opened no session, by what was wrong with them.", "outcome", refusedGreetings(l))
	metrics.AddBy(&set, "nws_exit_relay_connected", metrics.Gauge, "1 while the exit is connected to a relay of its own, under all names that use it.", "relay", r.connected())
	metrics.AddBy(&set, "nws_exit_nameserver_failing", metrics.Gauge, "1 while a name server does not answer.", "server", r.failing())
	_, err := set.WriteTo(w)
	return err
}

// refusedGreetings are those that opened no session, in a fixed order.
func refusedGreetings(l nostrlink.ListenerStats) []metrics.Value[uint64] {
	return []metrics.Value[uint64]{
		{Label: "malformed", N: l.Malformed}, {Label: "forged", N: l.Forged}, {Label: "stale", N: l.Stale},
		{Label: "replayed", N: l.Replayed}, {Label: "version", N: l.Refused}, {Label: "busy", N: l.Busy}, {Label: "unpaid", N: l.Unpaid},
		{Label: "not_let_in", N: l.NotLetIn},
	}
}

// connected says of each relay whether all names that are to be reached there are.
func (r *exitRun) connected() []metrics.Value[int] {
	up := make(map[string]int)
	for _, n := range r.names {
		for _, to := range n.status().Relays {
			if before, known := up[to.URL]; !known || before > 0 {
				up[to.URL] = btoi(to.Connected)
			}
		}
	}
	list := make([]metrics.Value[int], 0, len(up))
	for _, url := range slices.Sorted(maps.Keys(up)) {
		list = append(list, metrics.Value[int]{Label: url, N: up[url]})
	}
	return list
}

// failing says of each name server whether it does not answer.
func (r *exitRun) failing() []metrics.Value[int] {
	var list []metrics.Value[int]
	for _, n := range r.server.Nameservers() {
		list = append(list, metrics.Value[int]{Label: n.Server, N: btoi(n.Failing)})
	}
	return list
}

// bans is how many clients are banned.
func (r *exitRun) bans() int {
	list, _ := r.book.Bans(time.Now()) // as they were last, if the file cannot be read
	return len(list)
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
