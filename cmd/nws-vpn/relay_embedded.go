package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"sync"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/internal/segments"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// embeddedRelay is a relay within a process that also uses it.
type embeddedRelay struct {
	URL   string // as others reach it
	host  string // and port, of the URL
	at    string // where it listens
	close func()

	server *relayServer
}

// DialContext is net.Dialer's, but that it reaches the relay where it listens,
// whatever the way to its URL from here is.
func (e *embeddedRelay) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return e.before((&net.Dialer{ControlContext: segments.Control}).DialContext)(ctx, network, address)
}

// before reaches the relay as DialContext does, and all else by dial.
func (e *embeddedRelay) before(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == e.host {
			return new(net.Dialer).DialContext(ctx, network, e.at)
		}
		return dial(ctx, network, address)
	}
}

// Close ends the relay and waits for it.
func (e *embeddedRelay) Close() { e.close() }

// embedRelay runs the relay of the configuration at an address until Close. If it
// has members, own is one of them. control is openRelay's.
func embedRelay(c *config.Relay, listen string, own envelope.PublicKey, control controlFunc, out io.Writer, log *slog.Logger) (*embeddedRelay, error) {
	settings := *c
	settings.Listen = listen
	server, err := openRelay(&settings, []envelope.PublicKey{own}, control, out, log)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(server.URL())
	if err == nil && net.ParseIP(u.Hostname()).IsUnspecified() {
		err = fmt.Errorf("relay: listens on %s, which is no address to reach it by: set url in section [relay], such as ws://198.51.100.7:7777", listen)
	}
	if err != nil {
		server.Close()
		return nil, err
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), map[string]string{"ws": "80", "wss": "443"}[u.Scheme])
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ctx); err != nil {
			log.Error("the embedded relay has ended", "err", err)
		}
	})
	return &embeddedRelay{
		URL:    server.URL(),
		host:   host,
		at:     server.Addr().String(),
		server: server,
		close: func() {
			cancel()
			serving.Wait()
		},
	}, nil
}
