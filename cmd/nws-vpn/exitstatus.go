package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// exitStatusSchema is the version of the JSON, as statusSchema is of status's.
const exitStatusSchema = 1

// exitReport is what `nws-vpn exit status --json` prints. Times are RFC 3339,
// sizes bytes; sent is by clients and received is for them.
type exitReport struct {
	Schema  int       `json:"schema"`
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	State   string    `json:"state"` // running or draining

	Admission string `json:"admission"` // who may use the exit: as in the configuration
	Bans      int    `json:"bans"`
	Policy    string `json:"policy"` // the preset, after so many rules
	Rules     int    `json:"rules"`

	Names       []exitNameStatus  `json:"names"` // the exit's own first
	Sessions    int               `json:"sessions"`
	Flows       exitFlows         `json:"flows"`
	Bytes       exitBytes         `json:"bytes"`
	Rates       exitRates         `json:"rates"` // of the last second
	Queries     int64             `json:"dns_queries"`
	Unanswered  int64             `json:"dns_queries_failed"` // of these
	Nameservers []exitNameserver  `json:"nameservers"`
	Refused     map[string]int64  `json:"refused"`   // flows and DNS queries, by reason
	Greetings   map[string]uint64 `json:"greetings"` // events for the exit's keys, by what was wrong with them, and all

	ClientsKnown  int          `json:"clients_known"`
	ClientsActive int          `json:"clients_active"` // with a flow
	Clients       []exitClient `json:"clients"`        // those with the most bytes first

	Older []exitOlder `json:"older,omitempty"` // that were replaced and still have flows
}

type exitNameStatus struct {
	Label    string      `json:"label,omitempty"` // in the configuration
	NPub     string      `json:"npub"`
	Sessions int         `json:"sessions"`
	Load     int         `json:"load_percent"`
	Relays   []exitRelay `json:"relays"`
}

type exitRelay struct {
	URL       string `json:"url"`
	Connected bool   `json:"connected"`
	Problem   string `json:"problem,omitempty"`
}

// exitNameserver is one that the exit asks. Since and problem are those of one
// that fails.
type exitNameserver struct {
	Server  string     `json:"server"`
	Failing bool       `json:"failing"`
	Since   *time.Time `json:"since,omitempty"`
	Problem string     `json:"problem,omitempty"`
	Failed  int64      `json:"failed_tries"`
}

type exitFlows struct {
	Open     int   `json:"open"`
	Dialling int   `json:"dialling"`
	TCP      int64 `json:"tcp"` // since the start, as the others
	UDP      int64 `json:"udp"`
	DNS      int64 `json:"dns"`
	Ping     int64 `json:"ping"`
}

type exitBytes struct {
	Sent     int64 `json:"sent"`
	Received int64 `json:"received"`
}

type exitRates struct {
	Sent     float64 `json:"sent_bytes_per_second"`
	Received float64 `json:"received_bytes_per_second"`
	Flows    float64 `json:"flows_per_second"`
}

// exitClient is one client: an npub that was proven, or a session's own key.
type exitClient struct {
	Key       string           `json:"key"` // hexadecimal
	NPub      string           `json:"npub,omitempty"`
	Since     time.Time        `json:"since"`
	Flows     int              `json:"flows"` // open
	Opened    int64            `json:"flows_opened"`
	Sent      int64            `json:"sent"`
	Received  int64            `json:"received"`
	Rate      float64          `json:"bytes_per_second"` // both directions
	UsedDay   int64            `json:"used_day"`         // of its quotas
	UsedMonth int64            `json:"used_month"`
	Refused   map[string]int64 `json:"refused"` // flows and DNS queries, by reason
}

const (
	// rateTime is over how long rates are measured, while status waits.
	rateTime = time.Second
	// maxStatusClients bounds the clients of one answer.
	maxStatusClients = 20000
)

// statusOver is the present status, with rates over a time that it waits for.
func (r *exitRun) statusOver(ctx context.Context, clients int, over time.Duration) *exitReport {
	clients = min(max(clients, 0), maxStatusClients)
	older := olderProcesses(ctx, r.state)
	began, flows, before := time.Now(), flowsOf(r.server.Stats()), r.server.Report(clients)
	select {
	case <-time.After(over):
	case <-ctx.Done():
	}
	s := r.status(clients)
	s.Older = older
	seconds := max(time.Since(began).Seconds(), 1e-3)
	st := r.server.Stats()
	s.Rates = exitRates{
		Sent:     float64(s.Bytes.Sent-before.Sent) / seconds,
		Received: float64(s.Bytes.Received-before.Received) / seconds,
		Flows:    float64(flowsOf(st)-flows) / seconds,
	}
	had := make(map[string]int64, len(before.Clients))
	for _, c := range before.Clients {
		had[envelope.PublicKey(c.Key).Hex()] = c.Sent + c.Received
	}
	for i := range s.Clients {
		c := &s.Clients[i]
		if bytes, known := had[c.Key]; known || c.Since.After(began) {
			c.Rate = max(0, float64(c.Sent+c.Received-bytes)/seconds)
		}
	}
	return s
}

func flowsOf(s exit.Stats) int64 { return s.TCPFlows + s.UDPFlows + s.DNSFlows + s.PingFlows }

// status is the present one, with at most so many clients and no rates.
func (r *exitRun) status(clients int) *exitReport {
	st, report := r.server.Stats(), r.server.Report(clients)
	l, e := r.listenerStats(), &r.config().Exit
	s := &exitReport{
		Schema: exitStatusSchema, Version: buildVersion(), PID: os.Getpid(), Started: r.since, State: "running",
		Admission: e.Admission, Bans: r.bans(), Policy: e.Policy, Rules: len(e.Rules),
		Sessions: l.Sessions,
		Flows:    exitFlows{st.OpenFlows, st.Dialling, st.TCPFlows, st.UDPFlows, st.DNSFlows, st.PingFlows},
		Bytes:    exitBytes{report.Sent, report.Received},
		Queries:  st.Queries, Unanswered: st.QueriesFailed, Nameservers: nameservers(r.server.Nameservers()),
		Refused: byReason(st.Refused), Greetings: make(map[string]uint64),
		ClientsKnown: report.Known, ClientsActive: report.Active, Clients: make([]exitClient, 0, len(report.Clients)),
	}
	if r.isDraining() {
		s.State = "draining"
	}
	s.Greetings["all"] = l.Greetings
	for _, g := range refusedGreetings(l) {
		s.Greetings[g.Label] = g.N
	}
	for _, n := range r.names {
		s.Names = append(s.Names, n.status())
	}
	for _, c := range report.Clients {
		key := envelope.PublicKey(c.Key)
		client := exitClient{
			Key: key.Hex(), Since: c.Since, Flows: c.Flows, Opened: c.Opened, Sent: c.Sent, Received: c.Received,
			UsedDay: c.Day, UsedMonth: c.Month, Refused: byReason(c.Refused),
		}
		if c.Proven {
			client.NPub = key.NPub()
		}
		s.Clients = append(s.Clients, client)
	}
	return s
}

func nameservers(all []exit.NameserverStatus) []exitNameserver {
	list := make([]exitNameserver, 0, len(all))
	for _, n := range all {
		s := exitNameserver{Server: n.Server, Failing: n.Failing, Problem: oneLine(n.Reason), Failed: n.Failed}
		if !n.Since.IsZero() {
			s.Since = &n.Since
		}
		list = append(list, s)
	}
	return list
}

func byReason(refused map[exit.Reason]int64) map[string]int64 {
	m := make(map[string]int64, len(refused))
	for reason, n := range refused {
		m[reason.String()] = n
	}
	return m
}

func (n *exitName) status() exitNameStatus {
	s := exitNameStatus{Label: n.label, NPub: n.key.Public().NPub(), Sessions: n.listener.Sessions(), Load: n.listener.Load()}
	for _, c := range n.hub.Relays() {
		to := exitRelay{URL: c.URL, Connected: c.State == relay.Connected}
		if c.Err != nil {
			to.Problem = oneLine(relayProblem(c.URL, c.Err))
		}
		s.Relays = append(s.Relays, to)
	}
	return s
}

func exitStatusCommand() *cobra.Command {
	var (
		socket  exitSocket
		asJSON  bool
		clients int
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running exit does, and for whom",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := socket.ask(cmd.Context(), askPatience, "GET", fmt.Sprintf("/status?clients=%d", clients))
			if err != nil {
				return err
			}
			if asJSON {
				_, err = cmd.OutOrStdout().Write(answer)
				return err
			}
			var s exitReport
			if err := json.Unmarshal(answer, &s); err != nil {
				return fmt.Errorf("the exit's status: %w: is it of another version?", err)
			}
			return printExitReport(cmd.OutOrStdout(), &s, time.Now())
		},
	}
	socket.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON with a schema number")
	cmd.Flags().IntVar(&clients, "clients", 20, "how many clients to show, those with the most bytes first")
	return cmd
}

// printExitReport prints what people want to know.
func printExitReport(out io.Writer, s *exitReport, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(what, format string, args ...any) { fmt.Fprintf(w, what+"\t"+format+"\n", args...) }
	line("state", "%s for %v, process %d, version %s", s.State, now.Sub(s.Started).Round(time.Second), s.PID, oneLine(s.Version))
	for _, o := range s.Older {
		if o.Flows == nil || o.Since == nil {
			line("older", "process %d, which does not answer", o.PID)
			continue
		}
		line("older", "process %d, version %s, replaced %v ago, ends with its last flow, %d open", o.PID, oneLine(o.Version), now.Sub(*o.Since).Round(time.Second), *o.Flows)
	}
	for _, n := range s.Names {
		line("name", "%s %s", n.NPub, oneLine(n.Label))
		for _, to := range n.Relays {
			line("relay", "%s %s", oneLine(to.URL), cmp.Or(oneLine(to.Problem), map[bool]string{true: "connected", false: "connecting"}[to.Connected]))
		}
	}
	line("admission", "%s, %d banned", oneLine(s.Admission), s.Bans)
	line("policy", "%s", oneLine(s.Policy))
	if s.Rules > 0 {
		line("", "after rules of its own: %d", s.Rules)
	}
	line("sessions", "%d", s.Sessions)
	line("flows", "%d open, %d being dialled; since the start %d TCP, %d UDP, %d DNS, %d ping", s.Flows.Open, s.Flows.Dialling, s.Flows.TCP, s.Flows.UDP, s.Flows.DNS, s.Flows.Ping)
	line("sent", "%v, %v/s now", config.Size(s.Bytes.Sent), config.Size(s.Rates.Sent))
	line("received", "%v, %v/s now", config.Size(s.Bytes.Received), config.Size(s.Rates.Received))
	line("new flows", "%.1f/s now", s.Rates.Flows)
	line("dns", "%d queries, %d of them failed", s.Queries, s.Unanswered)
	for _, n := range s.Nameservers {
		if n.Failing {
			line("dns", "%s does not answer: %s", oneLine(n.Server), oneLine(n.Problem))
		}
	}
	line("refused", "%s", counts(s.Refused))
	line("greetings", "%s", counts(s.Greetings))
	line("clients", "%d, %d of them with a flow", s.ClientsKnown, s.ClientsActive)
	if err := w.Flush(); err != nil || len(s.Clients) == 0 {
		return err
	}
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nCLIENT\tFLOWS\tSENT\tRECEIVED\tNOW\tTODAY\tMONTH\tREFUSED")
	for _, c := range s.Clients {
		who := c.NPub
		if who == "" {
			who = "session " + c.Key[:min(16, len(c.Key))]
		}
		fmt.Fprintf(w, "%s\t%d\t%v\t%v\t%v/s\t%v\t%v\t%s\n", oneLine(who), c.Flows, config.Size(c.Sent), config.Size(c.Received),
			config.Size(c.Rate), config.Size(c.UsedDay), config.Size(c.UsedMonth), counts(c.Refused))
	}
	return w.Flush()
}

// counts lists what was counted, and none that were not.
func counts[N int64 | uint64](m map[string]N) string {
	var list []string
	for _, what := range slices.Sorted(maps.Keys(m)) {
		if m[what] > 0 {
			list = append(list, fmt.Sprintf("%s %d", oneLine(what), m[what]))
		}
	}
	if list == nil {
		return "-"
	}
	return strings.Join(list, ", ")
}
