package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// exitsOptions are how `nws-vpn exits` looks and what it prints.
type exitsOptions struct {
	probe   bool
	json    bool
	timeout time.Duration
}

func exitsCommand() *cobra.Command {
	var (
		flags  configFlags
		relays []string
		opts   exitsOptions
	)
	cmd := &cobra.Command{
		Use:   "exits [--relay URL]...",
		Short: "List the exits that announce themselves",
		Long: `Lists the exits that announce themselves on your relays, those you trust first.
An announcement proves who made it and nothing else: whoever runs an exit sees
the destinations of your traffic. An exit with something under ADMISSION serves those
it knows and those it has invited ("nws-vpn join"), and nobody else.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			if err := overrideRelays(&cfg.Up, relays); err != nil {
				return err
			}
			return runExits(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), cfg, opts)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringSliceVar(&relays, "relay", nil, "relay to ask (default: those in the section [up] of the configuration)")
	cmd.Flags().BoolVar(&opts.probe, "probe", false, "measure how long a handshake with each exit takes")
	cmd.Flags().BoolVar(&opts.json, "json", false, "print JSON with a schema number")
	cmd.Flags().DurationVar(&opts.timeout, "timeout", 10*time.Second, "how long it may take")
	return cmd
}

func runExits(ctx context.Context, out, notes io.Writer, cfg *config.Config, opts exitsOptions) error {
	log, err := newLogger(cfg.LogLevel)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, opts.timeout)
	defer cancel()
	key, err := relayKey(&cfg.Up)
	if err != nil && !errors.Is(err, fs.ErrPermission) { // whoever may not read the key asks as a stranger
		return err
	}
	hub := nostrlink.NewHub(nostrlink.HubOptions{AuthKey: key, AuthRelays: append([]string{}, cfg.Up.Relays...)})
	defer hub.Close()
	directory := hub.NewDirectory(cfg.Up.Relays, log)
	rule, err := trustRule(&cfg.Up)
	if err != nil {
		return err
	}
	looking, stop := ctx, context.CancelFunc(func() {})
	if opts.probe { // leave time for it
		looking, stop = context.WithTimeout(ctx, opts.timeout/2)
	}
	found, err := directory.Look(looking, rule)
	stop()
	if err != nil {
		return err
	}
	for _, err := range found.Failed {
		fmt.Fprintln(notes, "nws-vpn:", oneLine(err.Error()))
	}
	probes := make([]announce.Probe, len(found.Exits))
	if opts.probe {
		probes = directory.Probe(ctx, found.Exits, nil)
	}
	list := listExits(directory, found, probes)
	if opts.json {
		return writeJSON(out, list)
	}
	return printExits(out, list)
}

// trustRule reads whom the user trusts.
func trustRule(up *config.Up) (rule nostrlink.Rule, err error) {
	if rule.Listed, err = parseAll(rule.Listed, up.Trust, envelope.ParsePublicKey, "trust"); err != nil {
		return rule, err
	}
	rule.FollowsOf, err = parseAll(rule.FollowsOf, up.TrustFollows, envelope.ParsePublicKey, "trust_follows")
	return rule, err
}

var errNoTrust = errors.New(`no exit is chosen, for an exit sees the destinations of your traffic: name one with --exit, or those you trust with trust = ["npub1…"], or whose follows you trust with trust_follows = ["npub1…"], in the section [up] of the configuration`)

// autoRule is trustRule for the choice of an exit, which takes somebody to trust.
func autoRule(up *config.Up) (nostrlink.Rule, error) {
	if len(up.Trust)+len(up.TrustFollows) == 0 {
		return nostrlink.Rule{}, errNoTrust
	}
	return trustRule(up)
}

// exitsSchema is the version of the JSON of exits; see statusSchema.
const exitsSchema = 1

// exitList is what `nws-vpn exits --json` prints.
type exitList struct {
	Schema int          `json:"schema"`
	Exits  []listedExit `json:"exits"`
	Failed []string     `json:"failed,omitempty"` // relays that could not be asked
}

// listedExit is an exit as it announces itself. What is left out it does not
// tell.
type listedExit struct {
	NPub      string    `json:"npub"`
	Name      string    `json:"name"`
	Instance  string    `json:"instance,omitempty"`
	Trusted   bool      `json:"trusted"`
	Trust     string    `json:"trust,omitempty"` // why it is trusted
	Relays    []string  `json:"relays"`          // over which it would be reached
	FoundOn   []string  `json:"found_on"`
	Admission string    `json:"admission,omitempty"` // whom it serves: allowlist or wot, besides those it has invited
	Policy    string    `json:"policy,omitempty"`    // in words; ports, ipv4, ipv6 for programs
	Ports     []string  `json:"ports,omitempty"`
	IPv4      bool      `json:"ipv4"`
	IPv6      bool      `json:"ipv6"`
	Load      *int      `json:"load_percent,omitempty"`
	Software  string    `json:"software,omitempty"`
	Contact   string    `json:"contact,omitempty"`
	Expires   time.Time `json:"expires"`
	Handshake float64   `json:"handshake_ms,omitempty"` // with --probe
	Problem   string    `json:"problem,omitempty"`      // of the probe
}

func listExits(d *nostrlink.Directory, found *nostrlink.Found, probes []announce.Probe) *exitList {
	list := &exitList{Schema: exitsSchema, Exits: []listedExit{}}
	for _, err := range found.Failed {
		list.Failed = append(list.Failed, oneLine(err.Error()))
	}
	for i, e := range found.Exits {
		relays := d.Reach(e)
		x := listedExit{
			NPub: e.Key.NPub(), Name: name.Name{Key: e.Key, Relays: relays}.Host(), Instance: e.Instance,
			Trusted: e.Trusted, Trust: found.Trust.Why(e.Key),
			Relays: relays, FoundOn: e.Seen,
			Admission: e.Admission, Policy: e.Policy.String(), IPv4: e.Policy.IPv4, IPv6: e.Policy.IPv6,
			Software: e.Software, Contact: e.Contact, Expires: e.Expires,
			Handshake: millis(probes[i].Time),
		}
		for _, p := range e.Policy.Ports {
			x.Ports = append(x.Ports, p.String())
		}
		if e.Load != announce.NoLoad {
			x.Load = &e.Load
		}
		if err := probes[i].Err; err != nil {
			x.Problem = oneLine(err.Error())
		}
		list.Exits = append(list.Exits, x)
	}
	return list
}

func printExits(out io.Writer, list *exitList) error {
	if len(list.Exits) == 0 {
		_, err := fmt.Fprintln(out, "no exit is announced on these relays")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "EXIT\tTRUST\tHANDSHAKE\tLOAD\tADMISSION\tPOLICY\tSOFTWARE\tRELAYS")
	for _, x := range list.Exits {
		trust, handshake, load := "-", "-", "-"
		if x.Trusted {
			trust, _, _ = strings.Cut(x.Trust, " ") // by whom is in the JSON
		}
		switch {
		case x.Problem != "":
			handshake = "failed"
		case x.Handshake > 0:
			handshake = fmt.Sprintf("%.0f ms", x.Handshake)
		}
		if x.Load != nil {
			load = fmt.Sprintf("%d%%", *x.Load)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.NPub, trust, handshake, load,
			orDash(x.Admission), orDash(x.Policy), orDash(x.Software), strings.Join(x.Relays, " "))
	}
	return w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
