package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// exitPolicy is what the configuration lets clients reach.
func exitPolicy(e *config.Exit) exit.Policy {
	return exit.Policy{AllowPrivate: e.AllowPrivate, Rules: e.Rules, Preset: e.Policy}
}

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "See what this exit's policy says",
	}
	cmd.AddCommand(policyTestCommand())
	return cmd
}

func policyTestCommand() *cobra.Command {
	var (
		flags   configFlags
		network string
		as      string
	)
	cmd := &cobra.Command{
		Use:   "test HOST:PORT",
		Short: "Explain what the policy makes of a destination, rule by rule",
		Long: `Looks a name up and judges its addresses as "nws-vpn exit" would with this
configuration, without connecting to anything. Exits with 1 when the destination
is refused.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			return explainPolicy(cmd.Context(), cmd.OutOrStdout(), &cfg.Exit, as, network, args[0])
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&network, "network", "tcp", "tcp, udp or ping; for ping, name a host alone")
	cmd.Flags().StringVar(&as, "as", "", "the npub that asks (default: somebody unknown)")
	return cmd
}

func explainPolicy(ctx context.Context, out io.Writer, e *config.Exit, as, network, destination string) error {
	switch network {
	case "tcp", "udp", "ping":
	default:
		return fmt.Errorf("--network %q: want tcp, udp or ping", network)
	}
	if err := checkDestination(network, destination); err != nil {
		return err
	}
	var client *[32]byte
	if as != "" {
		n, err := name.Parse(as)
		if err != nil {
			return fmt.Errorf("--as: %w", err)
		}
		client = &n.Key
	}
	server, err := exit.New(exit.Config{Policy: exitPolicy(e), Nameservers: e.Nameservers, DialTimeout: e.DialTimeout.Duration()})
	if err != nil {
		return err
	}
	defer server.Close()
	x := server.Explain(ctx, client, network, destination)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, v := range x.Addresses {
		printVerdict(w, e, &v)
	}
	if x.Service {
		fmt.Fprintln(w, "a name of an exit: its services are not the policy's concern")
	}
	if err := w.Flush(); err != nil || x.Refused == nil {
		if err == nil {
			_, err = fmt.Fprintf(out, "%s is allowed\n", destination)
		}
		return err
	}
	told := strings.TrimPrefix(x.Refused.Error(), "exit: ")
	if r := (*exit.Refusal)(nil); errors.As(x.Refused, &r) && r.Cause() != nil {
		told += ": " + oneLine(strings.TrimPrefix(r.Cause().Error(), "exit: "))
	}
	return fmt.Errorf("%s is refused: %s", destination, told)
}

// printVerdict says how one address fared: a line for each rule that was asked.
func printVerdict(w io.Writer, e *config.Exit, v *exit.AddressVerdict) {
	switch {
	case v.Hidden.IsValid():
		fmt.Fprintf(w, "address %s, another way to write %s\n", v.Addr, v.Hidden)
	case v.Addr.IsValid():
		fmt.Fprintf(w, "address %s\n", v.Addr)
	default:
		fmt.Fprintln(w, "before the name is looked up")
	}
	if v.Special != nil {
		fmt.Fprintf(w, "  before any rule\t%s\n", strings.TrimPrefix(v.Special.Error(), "exit: "))
		return
	}
	for i, r := range v.Rules {
		from := fmt.Sprintf("rule %d", i+1)
		if i >= len(v.Rules)-v.Preset {
			from = "policy " + e.Policy
		}
		verdict := "does not match"
		if i == len(v.Rules)-1 {
			verdict = "matches: decides"
		}
		for i, line := range wrapAtCommas(r.String(), ruleWidth) {
			if i > 0 {
				from, verdict, line = "", "", "  "+line
			}
			fmt.Fprintf(w, "  %s\t%s\t%s\n", from, verdict, line)
		}
	}
}

// ruleWidth is how many columns a rule may take.
const ruleWidth = 60

// wrapAtCommas breaks a text after commas, so that lines are no longer than width
// unless there is no comma.
func wrapAtCommas(text string, width int) (lines []string) {
	line := ""
	for part := range strings.SplitAfterSeq(text, ",") {
		if line != "" && len(line)+len(part) > width {
			lines = append(lines, line)
			line = ""
		}
		line += part
	}
	return append(lines, line)
}

// checkDestination finds what is no destination, such as a URL.
func checkDestination(network, destination string) error {
	if network == "ping" {
		if strings.Contains(destination, "/") {
			return fmt.Errorf("%q: want a HOST alone, such as www.example.com or 2001:db8::1", destination)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(destination)
	if _, nan := strconv.ParseUint(port, 10, 16); err != nil || nan != nil || strings.Contains(host, "/") {
		return fmt.Errorf("%q: want HOST:PORT, such as www.example.com:443 or [2001:db8::1]:443", destination)
	}
	return nil
}
