package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// openCertificate returns the exit's certificate, making one if need be, or nil
// when no service needs it.
func openCertificate(e *config.Exit, key envelope.PublicKey) (*cert.Keeper, error) {
	if !anyTLS(e.Services) {
		return nil, nil
	}
	path := e.CertificateFile
	if path == "" {
		path = e.KeyFile + ".tls"
	}
	keeper, err := cert.OpenKeeper(path, key, []string{name.Name{Key: key, Relays: e.Relays}.Host()}, time.Now())
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

// The exit's certificate is published again so often, since relays forget, and
// sooner when no relay took it.
const (
	publishEvery   = 2 * time.Hour
	publishRetry   = time.Minute
	publishTimeout = 30 * time.Second
)

// certificatePublisher tells relays of the exit's certificate, and renews it.
type certificatePublisher struct {
	keeper  *cert.Keeper
	key     envelope.SecretKey
	publish func(ctx context.Context, event []byte, id [32]byte) error
	out     io.Writer
	log     *slog.Logger
}

// publishCertificate serves p in the background until stop, which waits.
func publishCertificate(ctx context.Context, p *certificatePublisher) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() { p.serve(ctx) })
	return func() { cancel(); serving.Wait() }
}

// serve works until ctx ends.
func (p *certificatePublisher) serve(ctx context.Context) {
	for {
		now := time.Now()
		wait := publishEvery
		if err := p.once(ctx, now); err != nil {
			if ctx.Err() != nil {
				return
			}
			p.log.Warn("exit: the certificate is not published", "err", err)
			wait = publishRetry
		}
		if renew := p.keeper.RenewAt().Sub(now); renew > 0 {
			wait = min(wait, renew)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (p *certificatePublisher) once(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	_, renewing := p.keeper.Renew(now) // if that fails, the old one is good for a while
	c := p.keeper.Certificate()
	event, id, err := cert.Append(nil, p.key, now, c)
	if err == nil {
		err = p.publish(ctx, event, id)
	}
	if err = errors.Join(renewing, err); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "certificate published, valid until %s\n", c.NotAfter.UTC().Format(time.DateOnly))
	return nil
}
