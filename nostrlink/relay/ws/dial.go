package ws

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/nws-vpn/nws-vpn/internal/nonblock"
)

// DialOptions are the settings of Dial. The zero value works.
type DialOptions struct {
	// DialContext opens the network connection; nil for net.Dialer's.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is the configuration for wss; nil for the default.
	TLS *tls.Config
	// WriteTimeout is how long the peer may take to accept 64 KiB; zero for 30 s.
	WriteTimeout time.Duration
}

// Dial connects to a ws:// or wss:// URL and performs the handshake. It never
// uses a proxy and follows no redirect: the host of the URL is the only one it
// talks to. The context bounds the dialling only. Errors say how far it came.
func Dial(ctx context.Context, rawURL string, opts DialOptions) (*Conn, error) {
	d := dialer{opts: opts}
	if d.opts.DialContext == nil {
		d.opts.DialContext = new(net.Dialer).DialContext
	}
	if d.opts.WriteTimeout <= 0 {
		d.opts.WriteTimeout = 30 * time.Second
	}
	transport := &http.Transport{
		DialContext:       d.plain,
		DialTLSContext:    d.secure,
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	c, resp, err := websocket.Dial(ctx, rawURL, &websocket.DialOptions{
		HTTPClient: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		HTTPHeader:      http.Header{"User-Agent": {"nws-vpn"}},
		CompressionMode: websocket.CompressionDisabled,
	})
	sock := d.finish()
	if err != nil {
		if sock != nil {
			sock.Close()
		}
		return nil, d.explain(ctx, err, resp)
	}
	return newConn(c, sock, newOutbox(sock.Conn, true, d.opts.WriteTimeout)), nil
}

// CheckURL reports whether rawURL is a ws:// or wss:// URL with a host.
func CheckURL(rawURL string) error {
	u, err := url.Parse(rawURL)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a URL", rawURL)
	case u.Scheme != "ws" && u.Scheme != "wss":
		return fmt.Errorf("%q does not begin with ws:// or wss://", rawURL)
	case u.Hostname() == "":
		return fmt.Errorf("%q names no host", rawURL)
	case u.User != nil:
		return fmt.Errorf("a relay's URL holds no user name or password")
	}
	return nil
}

// ErrSilent is wrapped by Dial's error when the host was reached and did not
// answer in time.
var ErrSilent = errors.New("no answer")

// dialer keeps the socket that http.Transport has been given. Transport dials
// in a goroutine of its own, which may outlive the request.
type dialer struct {
	opts DialOptions

	mu       sync.Mutex
	sock     *socket
	reached  bool // there is a network connection, or was
	dialErr  error
	finished bool
}

func (d *dialer) plain(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.connect(ctx, network, address)
	return d.keep(conn, err)
}

func (d *dialer) connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.opts.DialContext(ctx, network, address)
	d.mu.Lock()
	d.reached = d.reached || err == nil
	d.mu.Unlock()
	return conn, err
}

func (d *dialer) secure(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.connect(ctx, network, address)
	if err != nil {
		return d.keep(nil, err)
	}
	config := new(tls.Config)
	if d.opts.TLS != nil {
		config = d.opts.TLS.Clone()
	}
	config.NextProtos = []string{"http/1.1"}
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	secure := tls.Client(nonblock.NewConn(conn), config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return d.keep(nil, fmt.Errorf("TLS: %w", err))
	}
	return d.keep(secure, nil)
}

func (d *dialer) keep(conn net.Conn, err error) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.dialErr = err
		return nil, err
	}
	if d.finished {
		conn.Close()
		return nil, net.ErrClosed
	}
	d.sock = newSocket(conn)
	return d.sock, nil
}

func (d *dialer) finish() *socket {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finished = true
	return d.sock
}

// explain says in one sentence what the other side did.
func (d *dialer) explain(ctx context.Context, err error, resp *http.Response) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.sock == nil && d.reached && timedOut(err):
		return fmt.Errorf("accepted the connection but did not answer the TLS handshake in time: %w: %w", ErrSilent, err)
	case d.sock == nil && d.dialErr != nil:
		return fmt.Errorf("cannot be reached: %w", d.dialErr)
	case d.sock == nil && timedOut(err):
		return fmt.Errorf("cannot be reached: it did not answer in time: %w", err)
	case resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		return fmt.Errorf("answered HTTP %d instead of a websocket%s; is this the URL of a Nostr relay?", resp.StatusCode, detail(resp))
	case d.sock != nil && timedOut(err):
		return fmt.Errorf("accepted the connection but did not answer the websocket handshake in time: %w: %w", ErrSilent, err)
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("closed the connection during the websocket handshake; is this the URL of a Nostr relay?")
	}
	return err
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// detail is what a refusing server adds, shortened and made printable.
func detail(resp *http.Response) string {
	if to := resp.Header.Get("Location"); to != "" {
		return fmt.Sprintf(" (a redirect to %.200q)", to)
	}
	if resp.Body == nil {
		return ""
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	if text := strings.TrimSpace(string(b)); text != "" {
		return fmt.Sprintf(" (%q)", text)
	}
	return ""
}
