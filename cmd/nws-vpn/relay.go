package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
)

func relayCommand() *cobra.Command {
	var (
		flags     configFlags
		relay     relayFlags
		logEvents bool
		events    int
		bytes     int
	)
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Run a Nostr relay for the traffic of a group, or of the public",
		Long: `Runs a Nostr relay. It forwards ephemeral events, which is what nws-vpn's
traffic is made of, and stores none of them. Of what relays are to keep it keeps
the few kinds that nws-vpn needs: in memory, or with --db in a file, where what
it has acknowledged survives a crash. All its settings are in section [relay] of
the configuration file.

  for this machine and its network   nws-vpn relay --listen 192.168.1.5:7777
  for the public, with certificate   nws-vpn relay --listen :443 --acme-host relay.example --db relay.db
  for a few people only              nws-vpn relay … --member npub1… --member npub1…

SIGHUP has it read its configuration file again: members, limits, certificate and
log level change while clients stay connected.

A client that proves its key (NIP-42), as nws-vpn does, is spared the check of
its own events' signatures. To be believed it must call the relay by the address
that it listens on, or by --url.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRelay(cmd.Context(), cmd.OutOrStdout(), func() (*config.Config, error) {
				cfg, err := flags.load()
				if err != nil {
					return nil, err
				}
				r := &cfg.Relay
				relay.apply(cmd, r)
				r.LogEvents = r.LogEvents || logEvents
				if cmd.Flags().Changed("events-per-second") {
					r.EventsPerSecond = events
				}
				if cmd.Flags().Changed("bytes-per-second") {
					r.BytesPerSecond = config.Size(bytes)
				}
				if r.EventsPerSecond < 0 || r.BytesPerSecond < 0 {
					return nil, errors.New("relay: a rate below zero: use 0 for no bound")
				}
				return cfg, relay.check()
			})
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&relay.listen, "listen", "", "address to listen on (default 127.0.0.1:7777)")
	relay.add(cmd)
	cmd.Flags().BoolVar(&logEvents, "log-events", false, "print a line for each event: kind, author, recipient, size")
	cmd.Flags().IntVar(&events, "events-per-second", 0, "events that each client may publish a second (default: no bound)")
	cmd.Flags().IntVar(&bytes, "bytes-per-second", 0, "bytes of events that each client may publish a second (default: no bound)")
	return cmd
}

// relayFlags are those of a relay, in a process of its own or not.
type relayFlags struct {
	listen, url, database string
	members, acmeHosts    []string
	tlsCert, tlsKey       string
	metrics               string
}

func (f *relayFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.url, "url", "", "ws:// or wss:// URL by which clients reach the relay, if not by its address")
	cmd.Flags().StringVar(&f.database, "db", "", "file for the events that are kept (default: memory only)")
	cmd.Flags().StringSliceVar(&f.members, "member", nil, "npub of one who may use the relay, then nobody else may; may be given more than once")
	cmd.Flags().StringVar(&f.tlsCert, "tls-cert", "", "file with the certificate, for wss://")
	cmd.Flags().StringVar(&f.tlsKey, "tls-key", "", "file with the certificate's key")
	cmd.Flags().StringSliceVar(&f.acmeHosts, "acme-host", nil, "name for which to get a certificate by ACME; the world must reach --listen as port 443")
	cmd.Flags().StringVar(&f.metrics, "metrics", "", "where Prometheus finds figures: HOST:PORT on loopback, or unix:/PATH")
}

// check judges the flags, since the configuration was checked without them.
func (f *relayFlags) check() error {
	if f.listen != "" {
		if err := config.CheckListen(f.listen); err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
	}
	if f.url != "" {
		if err := config.CheckRelays([]string{f.url}); err != nil {
			return fmt.Errorf("--url: %w", err)
		}
	}
	return nil
}

// apply puts the flags over the configuration.
func (f *relayFlags) apply(cmd *cobra.Command, r *config.Relay) {
	for _, flag := range []struct {
		name  string
		value string
		into  *string
	}{
		{"listen", f.listen, &r.Listen},
		{"url", f.url, &r.URL},
		{"db", f.database, &r.Database},
		{"tls-cert", f.tlsCert, &r.TLSCert},
		{"tls-key", f.tlsKey, &r.TLSKey},
		{"metrics", f.metrics, &r.Metrics},
	} {
		if cmd.Flags().Changed(flag.name) {
			*flag.into = flag.value
		}
	}
	if len(f.members) > 0 {
		r.Members = f.members
	}
	if len(f.acmeHosts) > 0 {
		r.ACMEHosts = f.acmeHosts
	}
}
