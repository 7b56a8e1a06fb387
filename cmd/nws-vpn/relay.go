package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

func relayCommand() *cobra.Command {
	var (
		flags     configFlags
		listen    string
		logEvents bool
		events    int
		bytes     int
	)
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Run a Nostr relay for a group's own traffic",
		Long: `Runs a small Nostr relay in memory. It forwards ephemeral events and keeps
the newest of replaceable ones; it stores no traffic.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("listen") {
				cfg.Relay.Listen = listen
			}
			cfg.Relay.LogEvents = cfg.Relay.LogEvents || logEvents
			if cmd.Flags().Changed("events-per-second") {
				cfg.Relay.EventsPerSecond = events
			}
			if cmd.Flags().Changed("bytes-per-second") {
				cfg.Relay.BytesPerSecond = bytes
			}
			if cfg.Relay.EventsPerSecond < 0 || cfg.Relay.BytesPerSecond < 0 {
				return errors.New("relay: a rate below zero: use 0 for no bound")
			}
			return runRelay(cmd.Context(), cmd.OutOrStdout(), cfg)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on (default 127.0.0.1:7777)")
	cmd.Flags().BoolVar(&logEvents, "log-events", false, "print a line for each event: kind, author, recipient, size")
	cmd.Flags().IntVar(&events, "events-per-second", 0, "events that each client may publish a second (default: no bound)")
	cmd.Flags().IntVar(&bytes, "bytes-per-second", 0, "bytes of events that each client may publish a second (default: no bound)")
	return cmd
}

func runRelay(ctx context.Context, out io.Writer, cfg *config.Config) error {
	log, err := newLogger(cfg.LogLevel)
	if err != nil {
		return err
	}
	opts := relayd.Options{
		Name:        "nws-vpn relay",
		Description: "ephemeral and replaceable events, in memory",
		Version:     buildVersion(),
		Limits:      relayd.Limits{MaxEvent: cfg.Relay.MaxEventBytes, MaxConnections: cfg.Relay.MaxConnections},
		Rate:        relayd.Rate{Events: float64(cfg.Relay.EventsPerSecond), Bytes: float64(cfg.Relay.BytesPerSecond)},
		Log:         log,
	}
	if cfg.Relay.LogEvents {
		opts.Observe = func(o relayd.Observation) {
			fmt.Fprintf(out, "event kind=%d author=%s recipient=%s size=%d\n", o.Kind, o.Author.Hex(), o.Recipient.Hex(), o.Size)
		}
	}
	relay := relayd.New(opts)
	defer relay.Close()
	l, err := net.Listen("tcp", cfg.Relay.Listen)
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	fmt.Fprintf(out, "relay listening ws://%s\n", l.Addr())
	return serveHTTP(ctx, l, relay)
}

// serveHTTP serves h on l until ctx ends, then closes every connection.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		srv.Close()
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("relay: %w", err)
		}
		return nil
	}
}
