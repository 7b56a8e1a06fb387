package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/leaktest"
	"github.com/nws-vpn/nws-vpn/platform"
)

func leaktestCommand() *cobra.Command {
	var (
		file   string
		dirs   stateDirs
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "leaktest",
		Short: "Check that nothing gets past the tunnel on this machine, now",
		Long: `Looks at the routes, the rules, the packet filter and the resolver of this machine
while "nws-vpn up" runs, tries every known way past the tunnel, and watches
whether anything leaves. Changes nothing, and takes a few seconds. The probes are
random bytes to addresses that nobody has, and reveal nothing when they get out.

As root it watches the network itself; without, it says what it cannot tell.

Exits with 0 when all is well, 1 when something leaks or a protection is missing,
2 when no tunnel is up or something cannot be told.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runLeaktest(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), file, dirs, asJSON)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (default "+config.Path()+", if it exists)")
	dirs.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON with a schema number")
	return cmd
}

func runLeaktest(ctx context.Context, out, notes io.Writer, file string, dirs stateDirs, asJSON bool) error {
	cfg, err := config.Load(file)
	if err != nil {
		fmt.Fprintln(notes, "nws-vpn:", err)
		return exitStatus(2)
	}
	s := leaktest.Settings{Version: buildVersion(), Mark: cfg.Up.Mark, Table: cfg.Up.Table, Device: cfg.Up.Device}
	if cfg.Up.DNS {
		s.DNS = dnsAddrs[:]
	}
	now, err := tunnelState(ctx, dirs.run())
	s.State, s.Problem = now.State, now.Blocked
	if own, _ := os.ReadFile("/proc/self/cgroup"); inCgroup(string(own), now.Split.ExcludeCgroup) {
		fmt.Fprintf(notes, "nws-vpn: this runs in the cgroup %s, which is outside the tunnel, so nothing can be told: run it from elsewhere\n", now.Split.ExcludeCgroup)
		return exitStatus(2)
	}
	in := platform.Inspect(dirs.lasting())
	if len(in.Resolver.Tunnel) > 0 {
		s.DNS = in.Resolver.Tunnel
	}
	if errors.Is(err, control.ErrNotRunning) {
		if !slices.ContainsFunc(in.Rules, func(r platform.RuleState) bool { return r.Ours }) {
			fmt.Fprintln(notes, "nws-vpn: no tunnel is up, so there is nothing to test: run `nws-vpn up` first")
			return exitStatus(2)
		}
		s.State, s.Problem = "not running", "the machine stays closed until `nws-vpn up`, or `nws-vpn down --unlock`"
	}
	s.UID = in.Owner
	report := leaktest.Judge(leaktest.Run(ctx, s, in))
	if asJSON {
		err = writeJSON(out, report)
	} else {
		err = report.Write(out)
	}
	if code := report.Code(); err == nil && code != 0 {
		err = exitStatus(code)
	}
	return err
}

// probesTogether counts what an exit has refused to the leak test as one, under
// its name.
func probesTogether(refused map[string]uint64) map[string]uint64 {
	together := make(map[string]uint64, len(refused))
	for text, n := range refused {
		if slices.ContainsFunc(strings.Fields(text), func(word string) bool {
			a, err := netip.ParseAddr(strings.TrimRight(word, ":,;"))
			return err == nil && leaktest.IsProbe(a)
		}) {
			text = "probes of `nws-vpn leaktest`, to addresses that nobody has"
		}
		together[text] += n
	}
	return together
}

// tunnelState asks the running tunnel how it is. When it does not answer, what
// blocks it is why.
func tunnelState(ctx context.Context, dir string) (now runningTunnel, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	raw, err := control.Status(ctx, dir)
	if err != nil {
		return runningTunnel{Blocked: err.Error()}, err
	}
	if err := json.Unmarshal(raw, &now); err != nil {
		return runningTunnel{Blocked: "its status is not understood: " + err.Error()}, err
	}
	return now, nil
}

// inCgroup reports whether a process is in a cgroup or below it, "" being none.
// own is what /proc/PID/cgroup says (cgroups(7)).
func inCgroup(own, cgroup string) bool {
	if cgroup == "" {
		return false
	}
	below := strings.TrimSuffix(path.Clean(cgroup), "/") + "/"
	for line := range strings.Lines(own) {
		if in, ok := strings.CutPrefix(line, "0::"); ok && strings.HasPrefix(strings.TrimSpace(in)+"/", below) {
			return true
		}
	}
	return false
}
