package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/netstack"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
)

// statusSchema is the version of status's JSON. It grows when a field changes
// its meaning or goes; a new field does not change it.
const statusSchema = 1

// status is what `nws-vpn status --json` prints. Times are RFC 3339, durations
// milliseconds, sizes bytes.
type status struct {
	Schema  int       `json:"schema"`
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`

	State          string    `json:"state"` // connecting, connected, blocked or disconnected
	Since          time.Time `json:"since"`
	BlockedBecause string    `json:"blocked_because,omitempty"`
	Portal         string    `json:"portal,omitempty"`     // what gives away that the network asks for a login first
	KillSwitch     string    `json:"kill_switch"`          // off, on or lockdown
	LastError      string    `json:"last_error,omitempty"` // of the last attempt to connect

	Exit         string `json:"exit,omitempty"` // npub, once it was reached
	ExitSoftware string `json:"exit_software,omitempty"`
	Relay        string `json:"relay,omitempty"` // the one that carries most

	Relays []statusRelay `json:"relays,omitempty"` // of the session

	RTTMillis float64     `json:"rtt_ms,omitempty"` // to the exit and back
	Flows     statusFlows `json:"flows"`

	Refused map[string]uint64 `json:"refused,omitempty"` // flows that the exit did not want to serve, by what it said

	Bytes   statusBytes   `json:"bytes"`
	Session statusSession `json:"session"`
	NWS     *statusNWS    `json:"nws,omitempty"` // there is no session but this
	DNS     any           `json:"dns"`

	DNSManager string `json:"dns_manager,omitempty"` // who was told of the tunnel's name servers

	UplinkDNS []netip.Addr `json:"uplink_dns,omitempty"` // the name servers of the network outside the tunnel

	Split *splitStatus `json:"split,omitempty"` // what does not go into the tunnel

	TrustSites bool         `json:"trust_sites"`        // .nostr sites are presented to browsers
	Repairs    int          `json:"repairs"`            // how often another program changed the machine, and it was put back
	Repaired   []repairNote `json:"repaired,omitempty"` // the last of them
	Notes      []string     `json:"notes,omitempty"`    // what this machine could not do
}

// statusRelay is what one relay does for the session.
type statusRelay struct {
	URL       string  `json:"url"`
	State     string  `json:"state"`             // connecting, joining, in use or retired
	Role      string  `json:"role,omitempty"`    // while in use: active, standby, silent
	Problem   string  `json:"problem,omitempty"` // why it is not in use
	RTTMillis float64 `json:"rtt_ms,omitempty"`  // to the exit and back by it
	OKMillis  float64 `json:"ok_ms,omitempty"`   // until it confirms an event
	Rate      int64   `json:"bytes_per_second"`  // that it has brought to the exit lately, at its best
	Sent      uint64  `json:"packets_sent"`
	Lost      uint64  `json:"packets_lost"`
	Limited   uint64  `json:"rate_limited"`                // events it refused as too many
	Limit     float64 `json:"events_per_second,omitempty"` // that its limit seems to allow
}

type statusFlows struct {
	TCP      int    `json:"tcp"`
	UDP      int    `json:"udp"`
	Ping     int    `json:"ping"`
	Accepted uint64 `json:"accepted"`
	Rejected uint64 `json:"rejected"`
}

type statusBytes struct {
	Sent     uint64 `json:"sent"` // by this machine's programs
	Received uint64 `json:"received"`
}

type statusSession struct {
	PacketsSent     uint64 `json:"packets_sent"`
	PacketsReceived uint64 `json:"packets_received"`
	PacketsLost     uint64 `json:"packets_lost"`
	Rejected        uint64 `json:"packets_rejected"` // forged, replayed or of another session
}

// status describes the tunnel as it is now.
func (s *supervisor) status() *status {
	s.mu.Lock()
	v, t := s.view, s.tunnel
	var stack *netstack.Stack
	if t != nil {
		stack = t.stack
	}
	s.mu.Unlock()
	st := &status{
		Schema: statusSchema, Version: buildVersion(), PID: os.Getpid(), Started: s.started,
		State: v.state.String(), Since: v.since, KillSwitch: string(v.killSwitch), Portal: v.portal,
		TrustSites: s.cfg.Up.TrustSites, Notes: s.platform.Notes(),
	}
	st.DNSManager = s.platform.DNSManager()
	st.UplinkDNS, st.Split = s.platform.UplinkDNS(), describeSplit(&s.cfg.Up)
	st.Repaired, st.Repairs = s.repaired.all()
	if v.cause != nil {
		st.BlockedBecause = v.cause.Error()
	}
	if v.failure != nil {
		st.LastError = v.failure.Error()
	}
	if t != nil {
		st.describeLink(t.router.Main())
	}
	if stack != nil {
		st.describeFlows(stack.Stats())
		st.DNS = t.intercept.Stats()
	}
	return st
}

func (s *status) describeLink(main *nostrlink.Link) {
	link := main.Status()
	s.Exit, s.ExitSoftware, s.Relay = main.Exit().NPub(), link.Agent, link.Relay
	s.RTTMillis, s.Refused = millis(link.Session.RTT), link.Refused
	for _, r := range link.Relays {
		if r.URL == link.Relay && r.Path.RTT > 0 { // not that of a faster one that stands by
			s.RTTMillis = millis(r.Path.RTT)
		}
	}
	s.Session, s.NWS = sessionStatus(link.Session), nwsStatus(link)
	for _, r := range link.Relays {
		s.Relays = append(s.Relays, relayStatus(r))
	}
	s.LastError = ""
	if failure := ails(link); failure != nil {
		s.LastError = failure.Error()
	}
}

func (s *status) describeFlows(flows netstack.Stats) {
	s.Flows = statusFlows{
		TCP: flows.TCPOpen, UDP: flows.UDPOpen, Ping: flows.PingOpen,
		Accepted: flows.TCPAccepted + flows.UDPAccepted + flows.PingAccepted,
		Rejected: flows.TCPRejected + flows.UDPRejected + flows.PingRejected,
	}
	s.Bytes = statusBytes{Sent: flows.FromPrograms, Received: flows.ToPrograms}
}

func statusCommand() *cobra.Command {
	var (
		dirs   stateDirs
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the tunnel is doing",
		Long: `Shows how a running "nws-vpn up" is doing. Exits with 1 when none is running,
and says whether the machine is closed all the same.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runStatus(cmd.Context(), cmd.OutOrStdout(), dirs, asJSON)
		},
	}
	dirs.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON with a schema number")
	return cmd
}

func runStatus(ctx context.Context, out io.Writer, dirs stateDirs, asJSON bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	raw, err := control.Status(ctx, dirs.run())
	if errors.Is(err, control.ErrNotRunning) {
		return sayNotRunning(out, dirs, err, asJSON)
	}
	if err != nil {
		return err
	}
	if asJSON {
		_, err = out.Write(raw)
		return err
	}
	var s status
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("status: the running program gave no proper answer: %w", err)
	}
	return printStatus(out, &s, time.Now())
}

// notRunning is what `nws-vpn status --json` prints when there is no tunnel.
type notRunning struct {
	Schema  int    `json:"schema"`
	Version string `json:"version"`
	State   string `json:"state"`  // disconnected
	Closed  bool   `json:"closed"` // by a lockdown, or by the kill switch of a tunnel that was killed
}

func sayNotRunning(out io.Writer, dirs stateDirs, err error, asJSON bool) error {
	left, closed := dirs.recall()
	if asJSON {
		if err := writeJSON(out, notRunning{statusSchema, buildVersion(), lifecycle.Disconnected.String(), closed}); err != nil {
			return err
		}
		return exitStatus(1)
	}
	if closed {
		return fmt.Errorf("%w, and the machine stays closed (kill switch %s): `nws-vpn up` connects it, `nws-vpn down --unlock` opens it", err, left.KillSwitch)
	}
	return err
}

func printStatus(out io.Writer, s *status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("state", "%s for %v", s.State, now.Sub(s.Since).Round(time.Second))
	if s.BlockedBecause != "" {
		line("blocked", "because %s", s.BlockedBecause)
	}
	if s.Portal != "" {
		line("portal", "this network seems to ask for a login first: %s", s.Portal)
	}
	line("kill switch", "%s", s.KillSwitch)
	if s.LastError != "" {
		line("problem", "%s", s.LastError)
		line("", "`nws-vpn doctor` finds the hop that fails")
	}
	if s.Exit != "" {
		line("exit", "%s", s.Exit)
	}
	for i, r := range s.Relays {
		line([...]string{"relays", ""}[min(i, 1)], "%s  %s", r.URL, r.describe())
	}
	if s.RTTMillis > 0 {
		line("round trip", "%.1f ms to the exit and back", s.RTTMillis)
	}
	line("flows", "%d TCP, %d UDP open; %d accepted, DNS among them, %d refused", s.Flows.TCP, s.Flows.UDP, s.Flows.Accepted, s.Flows.Rejected)
	for i, r := range mostRefused(s.Refused) {
		line([...]string{"refused by exit", ""}[min(i, 1)], "%s", oneLine(r))
	}
	line("traffic", "%s sent, %s received", byteSize(s.Bytes.Sent), byteSize(s.Bytes.Received))
	if s.NWS != nil {
		line("streams", "%s", s.NWS)
		s.Notes = append(s.NWS.notes(), s.Notes...)
	} else {
		line("packets", "in this session, %d sent, of which %d were lost and sent again, and %d received", s.Session.PacketsSent, s.Session.PacketsLost, s.Session.PacketsReceived)
	}
	if s.DNSManager != "" {
		line("resolver", "asks the tunnel (dns_manager %q)", s.DNSManager)
	}
	if s.Split != nil {
		for i, l := range s.Split.lines() {
			line([...]string{"split", ""}[min(i, 1)], "%s", l)
		}
	}
	if s.TrustSites {
		line("sites", "those under .nostr are shown to browsers as trusted, once verified")
	}
	for _, r := range s.Repaired {
		line("put back", "%v ago: %s", now.Sub(r.At).Round(time.Second), r.What)
	}
	for _, note := range s.Notes {
		line("note", "%s", note)
	}
	return w.Flush()
}

// mostRefused says how many flows the exit refused for which reason, the most
// frequent reasons first.
func mostRefused(refused map[string]uint64) []string {
	const most = 5
	refused = probesTogether(refused)
	texts := slices.SortedFunc(maps.Keys(refused), func(a, b string) int {
		return cmp.Or(cmp.Compare(refused[b], refused[a]), strings.Compare(a, b))
	})
	var lines []string
	for _, text := range texts[:min(len(texts), most)] {
		lines = append(lines, fmt.Sprintf("%d × %s", refused[text], text))
	}
	if n := len(texts) - len(lines); n > 0 {
		lines = append(lines, fmt.Sprintf("and for %d other reasons", n))
	}
	return lines
}

func relayStatus(r nostrlink.RelayStatus) statusRelay {
	s := statusRelay{
		URL: r.URL, State: r.State.String(),
		RTTMillis: millis(r.Path.RTT), OKMillis: millis(r.Pace.Latency),
		Rate: r.Path.Rate, Sent: r.Path.Sent, Lost: r.Path.Lost,
		Limited: r.Pace.Limited, Limit: r.Pace.Rate,
	}
	if r.Err != nil {
		s.Problem = relayProblem(r.URL, r.Err)
	}
	if r.State == nostrlink.RelayCarrying {
		s.Role = "standby"
		switch {
		case r.Path.Silent:
			s.Role = "silent"
		case r.Path.Active:
			s.Role = "active"
		}
	}
	return s
}

// relayProblem is what is wrong with a relay, for a place that names the relay.
func relayProblem(url string, err error) string {
	return strings.TrimPrefix(err.Error(), "relay "+url+": ")
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// describe is a relay's line for people, after its URL.
func (r *statusRelay) describe() string {
	parts := []string{r.State}
	if r.Role != "" {
		parts[0] = r.Role
	}
	if r.RTTMillis > 0 {
		parts = append(parts, fmt.Sprintf("%.1f ms", r.RTTMillis))
	}
	if r.Lost > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d packets lost and sent again", r.Lost, r.Sent))
	}
	if r.Limit > 0 {
		parts = append(parts, fmt.Sprintf("limits us to about %.0f events a second", r.Limit))
	}
	if r.Problem != "" {
		parts = append(parts, r.Problem)
	}
	return strings.Join(parts, ", ")
}

// byteSize writes n for people, in powers of 1000.
func byteSize(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1000, "kB"
	for _, next := range []string{"MB", "GB", "TB"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, next
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

func sessionStatus(s session.Stats) statusSession {
	r := s.Rejected
	return statusSession{
		PacketsSent: s.PacketsSent, PacketsReceived: s.PacketsReceived, PacketsLost: s.PacketsLost,
		Rejected: r.Magic + r.Version + r.Header + r.Direction + r.Session + r.Replay,
	}
}
