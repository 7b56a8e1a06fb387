package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

func exitCommand() *cobra.Command {
	var (
		flags        configFlags
		keyPath      string
		relays       []string
		services     []string
		allowPrivate []string
		nameservers  []string
		mode         string
		announced    bool
		relayListen  string
	)
	cmd := &cobra.Command{
		Use:   "exit --key FILE --relay URL",
		Short: "Let others reach the internet, or your services, through this machine",
		Long: `Listens on Nostr relays for entries and dials for them. Needs no root, no
public address and no open port. Private and other special addresses are
refused unless allowed; port 25 is closed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			e := &cfg.Exit
			if keyPath != "" {
				e.KeyFile = keyPath
			}
			if len(relays) > 0 {
				e.Relays = relays
			}
			if mode != "" {
				if err := config.CheckExitMode(mode); err != nil {
					return fmt.Errorf("--mode: %w", err)
				}
				e.Mode = mode
			}
			if err := addServices(e, services); err != nil {
				return err
			}
			if e.AllowPrivate, err = parseAll(e.AllowPrivate, allowPrivate, netip.ParsePrefix, "--allow-private"); err != nil {
				return err
			}
			if e.Nameservers, err = parseAll(e.Nameservers, nameservers, exit.ParseNameserver, "--dns"); err != nil {
				return err
			}
			e.Announce = e.Announce || announced
			if relayListen != "" {
				e.RelayListen = relayListen
			}
			return runExit(cmd.Context(), cmd.OutOrStdout(), cfg)
		},
	}
	cmd.AddCommand(policyCommand())
	flags.add(cmd)
	cmd.Flags().StringVar(&keyPath, "key", "", "file with the exit's secret key (make one with `nws-vpn keygen FILE`)")
	cmd.Flags().StringSliceVar(&relays, "relay", nil, "relay URL (ws:// or wss://); may be given more than once")
	cmd.Flags().StringSliceVar(&services, "service", nil, "PORT=HOST:PORT or PORT=unix:/PATH: a service behind the exit's .nostr name; before the target may stand tls: for TLS in front of it, and http://, https:// or proxy:")
	cmd.Flags().StringSliceVar(&allowPrivate, "allow-private", nil, "prefix that entries may reach although it is private or special")
	cmd.Flags().StringSliceVar(&nameservers, "dns", nil, "name server instead of the system's: IP, IP:PORT, tls://NAME@IP or https://NAME@IP/PATH")
	cmd.Flags().StringVar(&mode, "mode", "", "whom to serve: auto (default), or only those who know the session: session")
	cmd.Flags().StringVar(&relayListen, "relay-listen", "", "run a relay too, on that address, with the settings of section [relay], and use it")
	cmd.Flags().BoolVar(&announced, "announce", false, "announce the exit on its relays, for everybody to find")
	return cmd
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

func runExit(ctx context.Context, out io.Writer, cfg *config.Config) error {
	log, err := newLogger(cfg.LogLevel)
	if err != nil {
		return err
	}
	e := &cfg.Exit
	switch {
	case e.KeyFile == "":
		return errors.New("the exit needs a key: make one with `nws-vpn keygen FILE` and name it with --key FILE")
	case len(e.Relays) == 0 && e.RelayListen == "":
		return errors.New("the exit needs a relay: name one with --relay wss://…, or run one with --relay-listen ADDRESS")
	}
	key, err := keyfile.Read(e.KeyFile)
	if err != nil {
		return err
	}
	keeper, err := openCertificate(e, key.Public())
	if err != nil {
		return err
	}
	settings := exit.Config{
		Key:         key.Public(),
		Policy:      exitPolicy(e),
		Services:    e.Services,
		Nameservers: e.Nameservers,
		MaxFlows:    e.MaxFlows,
		DialTimeout: e.DialTimeout.Duration(),
		UDPIdle:     e.UDPIdle.Duration(),
		Log:         log,
	}
	if keeper != nil {
		settings.TLS = keeper.ServerConfig()
	}
	server, err := exit.New(settings)
	if err != nil {
		return err
	}
	defer server.Close()
	paths, closePaths, err := exitPaths(ctx, e, server.DialBack)
	if err != nil {
		return err
	}
	defer closePaths()
	var dialBack dialFunc
	if e.ConnectR == config.ConnectRClear {
		dialBack = server.DialBack
	}
	options := nostrlink.HubOptions{AuthKey: key, Log: log}
	if e.RelayListen != "" {
		embedded, err := embedRelay(&cfg.Relay, e.RelayListen, key.Public(), out, log)
		if err != nil {
			return err
		}
		defer embedded.Close()
		e.Relays = append([]string{embedded.URL}, e.Relays...)
		options.Relay.DialContext = embedded.DialContext
	}
	hub := nostrlink.NewHub(options)
	defer hub.Close()
	fmt.Fprintf(out, "npub %s\n", key.Public().NPub())
	fmt.Fprintf(out, "name %s\n", name.Name{Key: key.Public(), Relays: e.Relays}.Host())
	ready := make(chan struct{})
	isReady := sync.OnceFunc(func() { close(ready) })
	listener := hub.NewListener(key, e.Relays, nostrlink.ListenerOptions{
		Log:   log,
		Agent: "nws-vpn " + buildVersion(),

		SessionOnly: e.Mode == config.ModeSession,
		Direct:      paths,
		DialBack:    dialBack,
		Ready: func(relay string) {
			fmt.Fprintf(out, "ready on %s\n", relay)
			isReady()
		},
	})
	if e.Announce {
		about, err := announcement(e, key)
		if err != nil {
			return err
		}
		defer announceFrom(ready, listener, &announcer{about: about}, log)()
	}
	if keeper != nil {
		stop := publishCertificate(ctx, &certificatePublisher{
			keeper: keeper, key: key, relays: e.Relays, out: out, log: log,
			publish: func(ctx context.Context, relay string, event []byte, id [32]byte) error {
				return hub.Publish(ctx, []string{relay}, event, id)
			},
		}, hub.Reconnections)
		defer stop()
	}
	err = listener.Serve(ctx, func(ctx context.Context, req nostrlink.Request) { server.Handle(ctx, req) })
	if ctx.Err() != nil {
		return nil // asked to end
	}
	return err
}
