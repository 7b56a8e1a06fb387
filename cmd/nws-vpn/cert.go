package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/platform"
)

func certCommand() *cobra.Command {
	var (
		flags  configFlags
		relays []string
		file   string
	)
	cmd := &cobra.Command{
		Use:   "cert NAME.nostr",
		Short: "Print the verified TLS certificate of a .nostr site",
		Long: `Looks for the certificate that the key in the name vouches for, at the relays in
the name and at your own, verifies it, and prints it in PEM:

  nws-vpn cert NAME.nostr -o site.pem
  curl --cacert site.pem https://NAME.nostr/`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			if err := overrideRelays(&cfg.Up, relays); err != nil {
				return err
			}
			if cfg.LogLevel == "info" {
				cfg.LogLevel = "warn" // how relays are reached is not what was asked
			}
			return runCert(cmd.Context(), cmd.OutOrStdout(), cfg, args[0], file)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringSliceVar(&relays, "relay", nil, "relay URL (ws:// or wss://) to look at besides those in the name; may be given more than once")
	cmd.Flags().StringVarP(&file, "output", "o", "", "write to this file")
	return cmd
}

func runCert(ctx context.Context, out io.Writer, cfg *config.Config, site, file string) error {
	log, err := newLogger(cfg.LogLevel)
	if err != nil {
		return err
	}
	n, err := siteName(site, cfg.Names)
	if err != nil {
		return err
	}
	relays := certRelays(n, cfg.Up.Relays)
	if len(relays) == 0 {
		return errors.New("no relay is known for this name: name one with --relay wss://…")
	}
	hub := nostrlink.NewHub(nostrlink.HubOptions{Relay: relay.Options{DialContext: besideTunnel(cfg.Up.Mark).DialContext}, Log: log})
	defer hub.Close()
	events, err := findAttestations(ctx, hub, envelope.PublicKey(n.Key), relays)
	if err != nil {
		return err
	}
	attested, err := cert.VerifyAll(events, envelope.PublicKey(n.Key), time.Now())
	if err != nil {
		return err
	}
	text, err := certificatesPEM(attested)
	if err != nil {
		return err
	}
	if file == "" {
		_, err = out.Write(text)
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// besideTunnel returns a dialer that bypasses a tunnel that may be up, which
// only root can: to an exit, a relay in the user's own network is out of reach.
func besideTunnel(mark uint32) *net.Dialer {
	d := &net.Dialer{Timeout: 10 * time.Second}
	if os.Geteuid() == 0 {
		d.Control = platform.Control(mark)
	}
	return d
}

// siteName reads what the user calls a site: any form of name or key, or a
// petname.
func siteName(text string, names map[string]string) (name.Name, error) {
	book, err := name.NewBook(names)
	if err != nil {
		return name.Name{}, err
	}
	n, err := findName(text, book)
	if err != nil {
		return name.Name{}, fmt.Errorf("site: %w", err)
	}
	return n, nil
}

// maxCertRelays bounds how many relays are asked for one certificate.
const maxCertRelays = 8

// certRelays are the relays to ask for the certificate of a name: the user's
// own, and of those in the name the ones that may be dialled on its word.
func certRelays(n name.Name, own []string) []string {
	relays := slices.Clone(own)
	for _, url := range n.Relays {
		if name.PublicRelay(url) == nil && !slices.Contains(relays, url) {
			relays = append(relays, url)
		}
	}
	return relays[:min(len(relays), maxCertRelays)]
}

// findTimeout bounds how long relays are asked for a certificate.
const findTimeout = 10 * time.Second

// findAttestations asks relays for what a key has said of its certificates. The
// events are not verified.
func findAttestations(ctx context.Context, hub *nostrlink.Hub, key envelope.PublicKey, relays []string) ([]*envelope.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	return hub.Find(ctx, relays, []relay.Filter{{
		Authors: []string{key.Hex()},
		Kinds:   []int{envelope.KindCertificate},
	}})
}

// certificatesPEM writes the certificates of attestations for curl's --cacert.
func certificatesPEM(attested []*cert.Attestation) ([]byte, error) {
	var text bytes.Buffer
	for _, a := range attested {
		text.Write(a.PEM())
	}
	if text.Len() == 0 {
		return nil, errors.New("only the hash of this site's certificate has been published, which a program cannot be told to trust: switch on trust_sites and see `nws-vpn trust`")
	}
	return text.Bytes(), nil
}
