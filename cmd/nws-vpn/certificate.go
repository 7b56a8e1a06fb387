package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// openCertificate returns the certificate of a name that is reached over relays,
// making one if need be, or nil when no service needs it.
func openCertificate(n *config.ExitName, relays []string, key envelope.PublicKey) (*cert.Keeper, error) {
	if !anyTLS(n.Services) {
		return nil, nil
	}
	path := n.CertificateFile
	if path == "" {
		path = n.KeyFile + ".tls"
	}
	keeper, err := cert.OpenKeeper(path, key, []string{name.Name{Key: key, Relays: relays}.Host()}, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%w (another file can be named with certificate_file in the section [exit] of the configuration)", err)
	}
	return keeper, nil
}

func anyTLS(services map[uint16]exit.Target) bool {
	for _, target := range services {
		if target.TLS {
			return true
		}
	}
	return false
}

// The exit's certificate is published again so often, since relays forget, and to
// a relay that is connected anew. One that did not take it is asked again sooner:
// after publishRetry, and then twice as long each time.
const (
	publishEvery   = 2 * time.Hour
	publishRetry   = time.Minute
	publishTimeout = 30 * time.Second
)

// certificatePublisher tells relays of the exit's certificate, and renews it.
type certificatePublisher struct {
	keeper  *cert.Keeper
	key     envelope.SecretKey
	relays  []string
	publish func(ctx context.Context, relay string, event []byte, id [32]byte) error
	back    <-chan string // relays that may have forgotten it, or nil
	out     io.Writer
	log     *slog.Logger
}

// publishCertificate serves p in the background until stop, which waits.
// follow, or nil, tells which relays are connected again.
func publishCertificate(ctx context.Context, p *certificatePublisher, follow followFunc) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	if follow != nil {
		back := make(chan string)
		p.back = back
		serving.Go(func() { follow(ctx, p.relays, func(relay string) { tellAgain(ctx, back, relay) }) })
	}
	serving.Go(func() { p.serve(ctx) })
	return func() { cancel(); serving.Wait() }
}

// serve works until ctx ends.
func (p *certificatePublisher) serve(ctx context.Context) {
	var left []string // have not taken it yet
	var all time.Time // when all are told again
	retry := publishRetry
	for {
		now := time.Now()
		renewed, err := p.keeper.Renew(now)
		if err != nil { // the old one is good for a while
			p.log.Warn("exit: the certificate cannot be renewed", "err", err)
		}
		if renewed || !now.Before(all) {
			left, all, retry = p.relays, now.Add(publishEvery), publishRetry
		}
		left = p.tell(ctx, now, left)
		wait := all.Sub(now)
		if len(left) > 0 {
			wait = min(wait, retry)
			retry *= 2
		}
		if renew := p.keeper.RenewAt().Sub(now); renew > 0 {
			wait = min(wait, renew)
		}
		select {
		case <-ctx.Done():
			return
		case relay := <-p.back:
			if !slices.Contains(left, relay) {
				left = append(left, relay)
			}
		case <-time.After(wait):
		}
	}
}

// followFunc is nostrlink.Hub's Reconnections.
type followFunc func(ctx context.Context, relays []string, made func(relay string))

func tellAgain(ctx context.Context, back chan<- string, relay string) {
	select {
	case back <- relay:
	case <-ctx.Done():
	}
}

// tell publishes the certificate in use on relays, and returns those that did
// not take it.
func (p *certificatePublisher) tell(ctx context.Context, now time.Time, relays []string) (left []string) {
	c := p.keeper.Certificate()
	event, id, err := cert.Append(nil, p.key, now, c)
	if err != nil {
		p.log.Warn("exit: the certificate cannot be published", "err", err)
		return relays
	}
	tellOne := func(relay string) error {
		ctx, cancel := context.WithTimeout(ctx, publishTimeout)
		defer cancel()
		return p.publish(ctx, relay, event, id)
	}
	failed := make([]error, len(relays))
	var telling sync.WaitGroup
	for i, relay := range relays {
		telling.Go(func() { failed[i] = tellOne(relay) })
	}
	telling.Wait()
	for i, relay := range relays {
		switch {
		case failed[i] == nil:
			fmt.Fprintf(p.out, "certificate published on %s, valid until %s\n", relay, c.NotAfter.UTC().Format(time.DateOnly))
		case ctx.Err() == nil:
			p.log.Warn("exit: the certificate is not published", "relay", relay, "err", failed[i])
			left = append(left, relay)
		}
	}
	return left
}
