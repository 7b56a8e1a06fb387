package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/internal/metrics"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// relayServer is an embedded relay with its listeners.
type relayServer struct {
	relay    *relayd.Server
	listener net.Listener      // of TCP, without TLS
	tls      *tls.Config       // or nil
	files    *certificateFiles // or nil: the certificate comes from elsewhere, if there is one
	metrics  net.Listener      // or nil
	besides  []envelope.PublicKey
	url      string
	out      io.Writer
	log      *slog.Logger
	close    func()
}

// openRelay opens the relay that the configuration describes, and listens. Serve
// or Close must be called. besides are members whoever else is, if anybody;
// control, unless nil, is for the sockets of clients.
func openRelay(c *config.Relay, besides []envelope.PublicKey, control controlFunc, out io.Writer, log *slog.Logger) (_ *relayServer, err error) {
	r := &relayServer{besides: besides, out: out, log: log}
	var opened []func() error
	r.close = sync.OnceFunc(func() {
		for _, end := range opened {
			if err := end(); err != nil && !errors.Is(err, net.ErrClosed) {
				log.Error("relay", "err", err)
			}
		}
	})
	defer func() {
		if err != nil {
			r.close()
			err = fmt.Errorf("relay: %w", err)
		}
	}()
	if r.tls, r.files, err = relayTLS(c, log); err != nil {
		return nil, err
	}
	if err := config.CheckListen(c.Listen); err != nil {
		return nil, fmt.Errorf("the address to listen on: %w", err)
	}
	if r.listener, err = (&net.ListenConfig{Control: control}).Listen(context.Background(), "tcp", c.Listen); err != nil {
		return nil, explainListen(err)
	}
	opened = append(opened, r.listener.Close)
	if r.metrics, err = listenMetrics(c.Metrics); err != nil {
		return nil, err
	}
	if r.metrics != nil {
		opened = append(opened, r.metrics.Close)
	}
	r.url = c.URL
	if r.url == "" {
		r.url = relayURLOf(r.listener.Addr(), c.ACMEHosts, r.tls != nil)
	}
	opts, err := relayOptions(c, besides, r.url, log)
	if err != nil {
		return nil, err
	}
	if c.LogEvents {
		opts.Observe = func(o relayd.Observation) {
			fmt.Fprintf(out, "event kind=%d author=%s recipient=%s size=%d\n", o.Kind, o.Author.Hex(), o.Recipient.Hex(), o.Size)
		}
	}
	if c.Database == "" {
		r.relay = relayd.New(opts)
	} else if r.relay, err = relayd.Open(opts); err != nil {
		return nil, explainDatabase(err)
	}
	opened = append([]func() error{r.relay.Close}, opened...)
	return r, nil
}

// relayOptions makes the relay's settings of the configuration.
func relayOptions(c *config.Relay, besides []envelope.PublicKey, own string, log *slog.Logger) (relayd.Options, error) {
	opts := relayd.Options{
		Limits: relayd.Limits{
			MaxEvent: int(c.MaxEventBytes), MaxConnections: c.MaxConnections, MaxPerAddress: c.MaxConnectionsPerAddress,
			MaxSubscriptions: c.MaxSubscriptions, MaxStored: c.MaxKept, MaxStoredBytes: int(c.MaxKeptBytes), MaxStoredAge: c.KeepFor.Duration(),
		},
		Rate:        relayd.Rate{Events: float64(c.EventsPerSecond), Bytes: float64(c.BytesPerSecond), Requests: float64(c.RequestsPerSecond)},
		AddressRate: relayd.Rate{Events: float64(c.AddressEventsPerSecond), Bytes: float64(c.AddressBytesPerSecond), Requests: float64(c.AddressRequestsPerSecond)},
		KeyRate:     relayd.Rate{Events: float64(c.KeyEventsPerSecond), Bytes: float64(c.KeyBytesPerSecond)},
		Path:        c.Database,
		MinPoW:      c.MinPoW,
		Names:       c.ACMEHosts,
		BehindProxy: c.BehindProxy,
		Name:        c.Name,
		Description: c.Description,
		Contact:     c.Contact,
		Version:     buildVersion(),
		Log:         log,
	}
	var err error
	if opts.Keep, err = relayd.ParseKinds(c.Keep); err != nil {
		return opts, err
	}
	if u, err := url.Parse(own); err == nil && u.Host != "" {
		opts.Names = append(opts.Names, u.Hostname())
	}
	for _, text := range c.Members {
		key, err := envelope.ParsePublicKey(text)
		if err != nil {
			return opts, fmt.Errorf("member %q: want an npub: %w", text, err)
		}
		opts.Members = append(opts.Members, key)
	}
	if opts.Members != nil {
		opts.Members = append(opts.Members, besides...)
	}
	return opts, nil
}

// prepare finds out what is wrong with c before anything changes. What it returns
// has the settings of c count, as far as a running relay can take others.
func (r *relayServer) prepare(c *config.Relay) (apply func(), err error) {
	if err := checkTLS(c); err != nil {
		return nil, err
	}
	opts, err := relayOptions(c, r.besides, r.url, r.log)
	if err != nil {
		return nil, err
	}
	certificate := func() {}
	if r.files != nil && c.TLSCert != "" {
		if certificate, err = r.files.prepare(c.TLSCert, c.TLSKey, time.Now()); err != nil {
			return nil, err
		}
	}
	return func() {
		certificate()
		r.relay.Change(opts)
	}, nil
}

// relayURLOf is the URL of a relay that has been given none.
func relayURLOf(addr net.Addr, hosts []string, secure bool) string {
	scheme, host := "ws", addr.String()
	if secure {
		scheme = "wss"
	}
	if len(hosts) > 0 {
		host = hosts[0]
	}
	return scheme + "://" + host
}

// URL is how clients reach the relay.
func (r *relayServer) URL() string { return r.url }

// Addr is the address that the relay listens on, as this machine reaches it.
func (r *relayServer) Addr() netip.AddrPort {
	addr, err := netip.ParseAddrPort(r.listener.Addr().String())
	if err == nil && addr.Addr().IsUnspecified() {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if addr.Addr().Is6() && !addr.Addr().Is4In6() {
			loopback = netip.IPv6Loopback()
		}
		return netip.AddrPortFrom(loopback, addr.Port())
	}
	return addr
}

// Close ends the relay and its clients' connections. Serve returns then.
func (r *relayServer) Close() { r.close() }

// Serve serves clients until ctx ends, then tells them so and closes the relay.
func (r *relayServer) Serve(ctx context.Context) error {
	defer r.close()
	fmt.Fprintf(r.out, "relay listening %s\n", relayURLOf(r.listener.Addr(), nil, r.tls != nil))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var others sync.WaitGroup
	defer others.Wait()
	if r.metrics != nil {
		fmt.Fprintf(r.out, "metrics on %s\n", r.metrics.Addr())
		figures := metricsHandler(withProcess(time.Now(), r.relay.WriteMetrics))
		others.Go(func() { serveHTTP(ctx, r.metrics, figures, nil) })
	}
	stop := context.AfterFunc(ctx, r.close)
	defer stop()
	l := r.listener
	if r.tls != nil {
		l = tls.NewListener(l, r.tls)
	}
	err := serveHTTP(ctx, l, r.relay, r.relay.ConnState())
	cancel()
	return err
}

// metricsHandler answers GET /metrics.
func metricsHandler(write func(io.Writer) error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = write(w) // the reader is gone, and knows
	})
	return mux
}

// withProcess has figures of the process written before others.
func withProcess(since time.Time, write func(io.Writer) error) func(io.Writer) error {
	return func(w io.Writer) error {
		var set metrics.Set
		metrics.AddProcess(&set, buildVersion(), since)
		if _, err := set.WriteTo(w); err != nil {
			return err
		}
		return write(w)
	}
}

// listenMetrics listens on host:port or on the socket behind unix:, whose file
// only this user and the process's group may use: who collects figures is another
// user. An empty place is none.
func listenMetrics(place string) (net.Listener, error) {
	if place == "" {
		return nil, nil
	}
	path, isUnix := strings.CutPrefix(place, "unix:")
	if !isUnix {
		if err := config.CheckMetrics(place); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
		l, err := net.Listen("tcp", place)
		if err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
		return l, nil
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			conn.Close()
			return nil, fmt.Errorf("metrics: %s is in use by another process", path)
		}
		_ = os.Remove(path) // of one that did not end in order
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return l, nil
}

// serveHTTP serves h on l until ctx ends, then closes every connection.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, state func(net.Conn, http.ConnState)) error {
	srv := &http.Server{
		Handler: h, ConnState: state,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), // it would tell of every scanner
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		if ctx.Err() != nil {
			return nil
		}
		return err
	case <-ctx.Done():
		srv.Close()
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("relay: %w", err)
		}
		return nil
	}
}
