// Package tlssite presents .nostr sites to local programs, such as browsers,
// that know nothing of Nostr, as sites that they trust.
//
// A Dialer stands between what dials for programs and what reaches exits. A
// connection to port 443 of a .nostr name whose key vouches for a certificate
// (see package cert) ends here: the program's TLS is answered in the name of the
// local authority, once the site's own TLS has been verified, and what one sends
// is passed to the other. Everything else passes as it is.
package tlssite

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// Next is what reaches exits.
type Next interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error)
}

// Options are the parts of a Dialer. All but Log are needed.
type Options struct {
	Authority *cert.Authority
	Find      Find
	// Names says what a host under .nostr stands for, petnames included.
	Names func(host string) (name.Name, error)
	Log   *slog.Logger
}

// Dialer is a Next itself. All methods may be called concurrently.
type Dialer struct {
	next  Next
	opts  Options
	known *known

	ctx    context.Context
	cancel context.CancelFunc
	warned atomic.Int64 // Unix seconds of the last warning

	mu      sync.Mutex // orders starting before Close
	started sync.WaitGroup
}

// NewDialer returns a dialer that dials by next.
func NewDialer(next Next, opts Options) *Dialer {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	d := &Dialer{next: next, opts: opts}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.known = newKnown(d.ctx, opts.Find, d.start)
	return d
}

// Close resets the connections that end here and waits for them.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.cancel()
	d.mu.Unlock()
	d.started.Wait()
	return nil
}

// start runs f, which ends when d.ctx does, in a goroutine, unless it is too
// late.
func (d *Dialer) start(f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return false
	}
	d.started.Go(f)
	return true
}

// DialContext dials as next does. For a site that is presented it returns when
// the exit has accepted the flow.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return d.dial(ctx, network, address, nil, func([]byte) (net.Conn, error) {
		return d.next.DialContext(ctx, network, address)
	})
}

// DialEarly dials as next does. It waits until it is known what the site
// attests to, which relays are asked for once.
func (d *Dialer) DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error) {
	return d.dial(ctx, network, address, first, func(first []byte) (net.Conn, error) {
		return d.next.DialEarly(ctx, network, address, first)
	})
}

func (d *Dialer) dial(ctx context.Context, network, address string, first []byte, dial func(first []byte) (net.Conn, error)) (net.Conn, error) {
	n, ok := site(network, address)
	if !ok {
		return dial(first)
	}
	a, err := d.known.get(ctx, n, time.Time{})
	if err != nil {
		return nil, err
	}
	switch {
	case errors.Is(a.err, cert.ErrNone), errors.Is(a.err, errUnknown):
		// What the site presents is the program's to judge.
		return dial(first)
	case a.err != nil:
		d.refused(n, a.err)
		return nil, fmt.Errorf("tlssite: %w: %w", a.err, syscall.ECONNREFUSED)
	}
	remote, err := dial(nil)
	if err != nil {
		return nil, err
	}
	program, here := newPipe()
	b := &bridge{d, n, a, here, bytes.Clone(first), remote}
	if !d.start(b.serve) {
		splice.Abort(remote, net.ErrClosed)
		return nil, net.ErrClosed
	}
	return program, nil
}

// site returns the name in an address of a TLS site under .nostr.
func site(network, address string) (n name.Name, ok bool) {
	host, port, err := net.SplitHostPort(address)
	if network != "tcp" || err != nil || port != "443" || !name.Under(host) {
		return n, false
	}
	n, err = name.ParseHost(host)
	return n, err == nil
}

// warnEvery is how often, in seconds, the user is told that a site was refused.
const warnEvery = 60

// refused logs that a site was refused, and only at debug level which.
func (d *Dialer) refused(n name.Name, err error) {
	now, last := time.Now().Unix(), d.warned.Load()
	if now-last >= warnEvery && d.warned.CompareAndSwap(last, now) {
		d.opts.Log.Warn("a .nostr site was refused for its certificate; the log at debug level says more")
	}
	d.opts.Log.Debug("tlssite: refused", "site", n.NPub(), "err", err)
}

// bridge is one connection that ends here.
type bridge struct {
	*Dialer
	site    name.Name
	answer  *answer
	program *end
	first   []byte // what the program has sent already
	remote  net.Conn
}

// handshakeTimeout bounds the time from the connection to the end of both
// handshakes.
const handshakeTimeout = 30 * time.Second

func (b *bridge) serve() {
	// The connection is aborted before its context ends: a TLS handshake that is
	// cancelled closes its connection, which looks like an orderly end.
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.ctx))
	defer cancel()
	stop := context.AfterFunc(b.ctx, func() {
		b.abort(net.ErrClosed)
		cancel()
	})
	defer stop()
	if err := b.carry(ctx); err != nil {
		b.opts.Log.Debug("tlssite: connection broken", "site", b.site.NPub(), "err", err)
	}
}

func (b *bridge) abort(err error) {
	b.program.Abort(err)
	splice.Abort(b.remote, err)
}

func (b *bridge) carry(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	asked, read, err := readHello(ctx, &begun{b.program, b.first})
	program := &begun{b.program, read}
	b.first = nil
	if err == errPlain {
		_, err := splice.Join(program, b.remote)
		return err
	}
	var in, out *tls.Conn
	if err == nil {
		in, out, err = b.handshake(ctx, program, asked)
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) { // the exit's refusal, or a loss
		b.abort(err)
		return err
	}
	if err != nil {
		b.program.Close() // after the alert that says why
		splice.Abort(b.remote, err)
		return err
	}
	_, err = splice.Join(splice.OverTLS(in), splice.OverTLS(out))
	return err
}

// handshake does both, as the host that the program asks for.
func (b *bridge) handshake(ctx context.Context, program net.Conn, asked string) (in, out *tls.Conn, err error) {
	own := name.Name{Key: b.site.Key}.Host()
	if asked == "" {
		asked = own
	}
	if n, err := b.opts.Names(asked); err != nil || n.Key != b.site.Key {
		return nil, nil, errors.New("tlssite: the program asks for another site than it has connected to")
	}
	return b.opts.Authority.Bridge(ctx, program, asked, func(ctx context.Context, alpn []string) (*tls.Conn, error) {
		config := cert.ClientConfig(own, time.Now, b.answer.list)
		config.VerifyConnection = b.known.check(ctx, b.site, b.answer)
		config.NextProtos = alpn
		conn := tls.Client(b.remote, config)
		err := conn.HandshakeContext(ctx)
		if errors.Is(err, cert.ErrMismatch) || errors.Is(err, cert.ErrExpired) {
			b.refused(b.site, err)
		}
		return conn, err
	})
}
