package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
)

// exitFlags are those of `nws-vpn exit`.
type exitFlags struct {
	configFlags
	keyPath, stateDir, mode, relayListen, metrics string
	relays, services, allowPrivate, nameservers   []string
	announced                                     bool
	allowRoot, takeover                           bool

	// hidden are the keys of the configuration that flags have taken the place
	// of, when it was last read.
	hidden []string
}

func exitCommand() *cobra.Command {
	var flags exitFlags
	cmd := &cobra.Command{
		Use:   "exit --key FILE --relay URL",
		Short: "Let others reach the internet, or your services, through this machine",
		Long: `Listens on Nostr relays for entries and dials for them. Needs no root, no
public address and no open port, and refuses to run as root. Private and other
special addresses are refused unless allowed, and so are the ports that attract
abuse, mail's 25 among them: "nws-vpn exit policy test" explains what is refused.

SIGHUP, or "nws-vpn exit reload", has it read its configuration file again:
policy, limits and services change while flows stay. "nws-vpn exit status" shows
what goes on. With --takeover a new process takes the place of the one that runs,
which goes on until its flows have ended.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runExit(cmd.Context(), cmd.OutOrStdout(), &flags)
		},
	}
	cmd.AddCommand(policyCommand(), exitStatusCommand(), exitReloadCommand(), exitRestartCommand(), exitDrainCommand(),
		exitBlockCommand(), exitUnblockCommand(), exitBlockedCommand(), exitInviteCommand(), exitInvitesCommand(), exitRevokeCommand())
	flags.add(cmd)
	return cmd
}

func (f *exitFlags) add(cmd *cobra.Command) {
	f.configFlags.add(cmd)
	to := cmd.Flags()
	to.StringVar(&f.keyPath, "key", "", "file with the exit's secret key (make one with \"nws-vpn keygen\")")
	to.StringVar(&f.stateDir, "state-dir", "", "directory for the socket and what the exit remembers (default: that of systemd, or the key's file with .state added)")
	to.StringSliceVar(&f.relays, "relay", nil, "relay URL (ws:// or wss://); may be given more than once")
	to.StringSliceVar(&f.services, "service", nil, "PORT=HOST:PORT or PORT=unix:/PATH: a service behind the exit's .nostr name; before the target may stand tls: for TLS in front of it, and http://, https:// or proxy:")
	to.StringSliceVar(&f.allowPrivate, "allow-private", nil, "prefix that entries may reach although it is private or special")
	to.StringSliceVar(&f.nameservers, "dns", nil, "name server instead of the system's: IP, IP:PORT, tls://NAME@IP or https://NAME@IP/PATH")
	to.StringVar(&f.mode, "mode", "", "whom to serve: auto (default), or only those who know the session: session")
	to.StringVar(&f.relayListen, "relay-listen", "", "run a relay too, on that address, with the settings of section [relay], and use it")
	to.StringVar(&f.metrics, "metrics", "", "where Prometheus finds figures: HOST:PORT on loopback, or unix:/PATH")
	to.BoolVar(&f.announced, "announce", false, "announce the exit on its relays, for everybody to find")
	to.BoolVar(&f.allowRoot, "allow-root", false, "run although this is root")
	to.BoolVar(&f.takeover, "takeover", false, "take the place of the process that runs with this state directory, if there is one")
}

// load reads the configuration, at the start and for each reload, and puts the
// flags over it.
func (f *exitFlags) load() (*config.Config, error) {
	cfg, err := f.configFlags.load()
	if err != nil {
		return nil, err
	}
	e := &cfg.Exit
	f.hidden = nil
	for _, flag := range []struct {
		value, key string
		into       *string
	}{
		{f.keyPath, "key_file", &e.KeyFile}, {f.stateDir, "state_dir", &e.StateDir}, {f.mode, "", &e.Mode},
		{f.relayListen, "relay_listen", &e.RelayListen}, {f.metrics, "metrics", &e.Metrics},
	} {
		if flag.value == "" {
			continue
		}
		if flag.key != "" && *flag.into != "" && *flag.into != flag.value {
			f.hidden = append(f.hidden, "exit."+flag.key)
		}
		*flag.into = flag.value
	}
	if err := f.check(e); err != nil {
		return nil, err
	}
	if len(f.relays) > 0 {
		e.Relays = f.relays
	}
	if err := addServices(e, f.services); err != nil {
		return nil, err
	}
	if e.AllowPrivate, err = parseAll(e.AllowPrivate, f.allowPrivate, config.ParsePrefix, "--allow-private"); err != nil {
		return nil, err
	}
	if e.Nameservers, err = parseAll(e.Nameservers, f.nameservers, exit.ParseNameserver, "--dns"); err != nil {
		return nil, err
	}
	e.Announce = e.Announce || f.announced
	switch {
	case e.KeyFile == "":
		return nil, errors.New("the exit needs a key: make one with `nws-vpn keygen FILE` and name it with --key FILE")
	case len(e.Relays) == 0 && e.RelayListen == "":
		return nil, errors.New("the exit needs a relay: name one with --relay wss://…, or run one with --relay-listen ADDRESS")
	}
	return cfg, nil
}

// check judges what the flags have put into the configuration, which was checked
// before.
func (f *exitFlags) check(e *config.Exit) error {
	for _, c := range []struct {
		flag string
		err  error
	}{
		{"--mode", config.CheckExitMode(e.Mode)},
		{"--metrics", config.CheckMetrics(e.Metrics)},
		{"--key", config.CheckKeyFile(e.KeyFile)},
		{"--relay", config.CheckRelays(f.relays)},
	} {
		if c.err != nil {
			return fmt.Errorf("%s: %w", c.flag, c.err)
		}
	}
	return nil
}

// parseAll appends the parsed values of a flag to those of the configuration.
func parseAll[T any](have []T, values []string, parse func(string) (T, error), flag string) ([]T, error) {
	for _, v := range values {
		parsed, err := parse(v)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", flag, v, err)
		}
		have = append(have, parsed)
	}
	return have, nil
}

// addServices adds those of the flags to the configuration's.
func addServices(e *config.Exit, flags []string) error {
	for _, s := range flags {
		port, target, ok := strings.Cut(s, "=")
		n, err := strconv.ParseUint(port, 10, 16)
		if !ok || err != nil || n == 0 {
			return fmt.Errorf("--service %q: want PORT=HOST:PORT or PORT=unix:/PATH", s)
		}
		t, err := exit.ParseTarget(target)
		if err != nil {
			return fmt.Errorf("--service %q: %w", s, err)
		}
		if e.Services == nil {
			e.Services = make(map[uint16]exit.Target)
		}
		e.Services[uint16(n)] = t
	}
	return nil
}
