package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/platform"
)

// upOptions are what `up` is told on the command line and what no configuration
// says.
type upOptions struct {
	identity    string
	credentials credentialsFunc // of the configuration

	exit, spread, mode, killSwitch string
	relays                         []string
	relayListen                    string
	double, allowLAN, refuse       bool

	split    splitFlags
	detached bool
	hangups  <-chan os.Signal // that have come since before the configuration was read
	ready    *readiness
	dryRun   bool
	retry    bool
	rollback time.Duration
	trace    bool // print each change of the machine
}

func upCommand() *cobra.Command {
	var (
		flags configFlags
		dirs  stateDirs
		o     upOptions
	)
	cmd := &cobra.Command{
		Use:   "up --exit NPUB --relay URL",
		Short: "Send this machine's traffic through an exit",
		Long: `Makes a TUN device and sends every program's traffic through Nostr relays to
an exit. Runs until "nws-vpn down", Ctrl-C or SIGTERM, and then puts the
machine back as it was. Needs root.

From the first moment on nothing else leaves the machine, unless the kill switch
is off. When the exit cannot be reached at first, everything is undone; what
fails later closes the machine until it works again or "nws-vpn down".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !o.dryRun && (!o.detached || isDetached()) {
				hangups := make(chan os.Signal, 1)
				signal.Notify(hangups, syscall.SIGHUP)
				o.hangups = hangups
			}
			cfg, err := flags.load()
			if err == nil {
				err = o.override(&cfg.Up)
			}
			if err == nil {
				o.credentials, err = dialAs(cfg, flags.joinedDir(), len(o.relays) > 0)
			}
			if err != nil {
				return err
			}
			o.trace = flags.verbose
			switch {
			case o.dryRun:
				return previewUp(cmd.OutOrStdout(), cfg)
			case o.detached && !isDetached():
				if err := detach(cmd.Context(), dirs.run()); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "connected, in the background; log in %s\n", filepath.Join(dirs.run(), logName))
				return err
			}
			o.ready = openReadiness()
			err = runUp(cmd.Context(), cmd.OutOrStdout(), cfg, dirs, o)
			if err != nil {
				o.ready.tell(err.Error())
			}
			return err
		},
	}
	flags.add(cmd)
	cmd.Flags().Lookup("verbose").Usage = "log at debug level, and print each change of the machine"
	dirs.add(cmd)
	o.add(cmd)
	return cmd
}

func (o *upOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.exit, "exit", "", "the exit: npub, nprofile, NAME.nostr, a petname of the configuration, the name of one that was joined, or auto for the best of those it trusts")
	f.StringVar(&o.identity, "identity", "", "key file of the identity that is proven to the exit, and to no other")
	f.StringSliceVar(&o.relays, "relay", nil, "relay URL (ws:// or wss://); may be given more than once")
	f.StringVar(&o.relayListen, "relay-listen", "", "run a relay too, on that address, with the settings of section [relay], and use it before the others")
	f.StringVar(&o.spread, "spread", "", "how to use several relays: primary (default) or stripe")
	f.BoolVar(&o.double, "duplicate", false, "send small packets over two relays at once")
	f.StringVar(&o.mode, "mode", "", "what to speak with the exit: auto (default), session or nws")
	f.StringVar(&o.killSwitch, "kill-switch", "", "what keeps traffic from leaving outside the tunnel: on (default), lockdown, which stays after down, or off")
	f.BoolVar(&o.allowLAN, "allow-lan", false, "let programs reach the private networks this machine is on")
	f.BoolVar(&o.refuse, "refuse-inbound", false, "refuse connections from outside, SSH among them")
	f.StringSliceVar(&o.split.exclude, "exclude", nil, "a network that is reached outside the tunnel, such as 192.0.2.0/24")
	f.StringSliceVar(&o.split.include, "include", nil, "a network that goes into the tunnel, while all else that is not named stays outside")
	f.StringSliceVar(&o.split.excludeDomains, "exclude-domain", nil, "a domain that is reached outside the tunnel, with all below it")
	f.StringSliceVar(&o.split.includeDomains, "include-domain", nil, "a domain that goes into the tunnel, while all else that is not named stays outside")
	f.StringSliceVar(&o.split.excludeUsers, "exclude-user", nil, "a user whose programs stay outside the tunnel, by name or number")
	f.StringSliceVar(&o.split.includeUsers, "include-user", nil, "a user whose programs go into the tunnel, while those of all who are not named stay outside")
	f.StringVar(&o.split.excludeCgroup, "exclude-cgroup", "", "a cgroup whose programs stay outside the tunnel, such as /direct.slice")
	f.BoolVar(&o.detached, "detach", false, "go to the background once connected")
	f.BoolVar(&o.dryRun, "dry-run", false, "print every change that would be made to this machine, and make none")
	f.BoolVar(&o.retry, "retry", false, "when the exit cannot be reached at first, keep the machine closed and try again rather than give up")
	f.DurationVar(&o.rollback, "rollback-after", 0, `put the machine back after so long unless "nws-vpn confirm" is run: for remote machines`)
}

// override puts what the command line says over the configuration.
func (o *upOptions) override(up *config.Up) error {
	set := func(to *string, value, flag string, check func(string) error) error {
		if value == "" {
			return nil
		}
		if err := check(value); err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
		*to = value
		return nil
	}
	if err := overrideExit(up, o.exit, o.relays, o.identity); err != nil {
		return err
	}
	up.Duplicate = up.Duplicate || o.double
	up.AllowLAN = up.AllowLAN || o.allowLAN
	up.Inbound = up.Inbound && !o.refuse
	if o.rollback < 0 || o.rollback > maxRollback {
		return fmt.Errorf("--rollback-after: want a time up to %v, such as 90s", maxRollback)
	}
	err := errors.Join(
		set(&up.RelayListen, o.relayListen, "--relay-listen", config.CheckListen),
		set(&up.Spread, o.spread, "--spread", config.CheckSpread),
		set(&up.Mode, o.mode, "--mode", config.CheckUpMode),
		set(&up.KillSwitch, o.killSwitch, "--kill-switch", config.CheckKillSwitch),
	)
	if err == nil {
		if err = config.CheckFilter(up); err != nil {
			err = fmt.Errorf("with the kill switch off: %w", err)
		}
	}
	if err != nil {
		return err
	}
	return o.split.override(up)
}

// previewUp prints what up would do to this machine.
func previewUp(out io.Writer, cfg *config.Config) error {
	fakes := freeRange(&cfg.Up, slog.New(slog.DiscardHandler))
	machine, err := newMachine(lifecycle.KillSwitch(cfg.Up.KillSwitch), &cfg.Up, fakes, lifecycle.Options{})
	if err != nil {
		return err
	}
	var through platform.Config
	for _, e := range []lifecycle.Event{lifecycle.UpRequested, lifecycle.ExitReached, lifecycle.DeviceReady} {
		through = machine.On(e, nil).Policy
	}
	changes, notes, err := platform.Preview(through)
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# While it is connected. Before that, the same without the device %s.\n", cfg.Up.Device)
	for _, c := range changes {
		fmt.Fprintln(&text, c)
	}
	if split := describeSplit(&cfg.Up); split != nil {
		for _, l := range split.lines() {
			fmt.Fprintln(&text, "# "+l)
		}
	}
	for _, n := range notes {
		fmt.Fprintln(&text, "# "+n)
	}
	_, err = io.WriteString(out, text.String())
	return err
}

// stateDirs are where a running tunnel keeps what others must find: its socket,
// which is gone after a restart of the machine, and its journal, which is not.
type stateDirs struct{ dir string }

func (d *stateDirs) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.dir, "state-dir", "", "directory for the socket and the journal (default /run/nws-vpn and /var/lib/nws-vpn)")
}

func (d *stateDirs) run() string {
	if d.dir != "" {
		return d.dir
	}
	return "/run/nws-vpn"
}

func (d *stateDirs) lasting() string {
	if d.dir != "" {
		return d.dir
	}
	return "/var/lib/nws-vpn"
}

// runUp runs the tunnel to its end.
func runUp(ctx context.Context, out io.Writer, cfg *config.Config, dirs stateDirs, o upOptions) error {
	log, err := newLogger(cfg.LogLevel)
	if err != nil {
		return err
	}
	if cfg.Up.Exit == config.AutoExit && len(cfg.Up.Trust)+len(cfg.Up.TrustFollows) == 0 {
		return explainChoice(ctx, out, cfg)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := newSupervisor(cfg, dirs, o, out, log)
	if errors.Is(err, errEndedMeanwhile) {
		log.Info("going down")
		o.ready.tell(wordEnded + " the machine is as it was")
		return nil
	}
	if err != nil {
		return err
	}
	if s.socket, err = control.Listen(dirs.run(), &controlled{s, cancel}); err != nil {
		return errors.Join(err, s.abandon())
	}
	if os.Getenv("SSH_CONNECTION") != "" && !cfg.Up.Inbound {
		log.Warn("connections from outside are refused while the tunnel is up, such as this SSH session: run `nws-vpn down` from a console if it hangs")
	}
	err = s.run(ctx)
	if s.reload {
		err = s.beginAnew(ctx)
	}
	if err == nil {
		o.ready.tell(wordEnded + " " + s.left)
	}
	return err
}

// explainChoice lists the exits for a user who has not said whom to trust.
func explainChoice(ctx context.Context, out io.Writer, cfg *config.Config) error {
	if err := runExits(ctx, out, os.Stderr, cfg, exitsOptions{timeout: connectTimeout}); err != nil {
		return fmt.Errorf("%w; and those that are announced cannot be listed: %w", errNoTrust, err)
	}
	return errNoTrust
}
