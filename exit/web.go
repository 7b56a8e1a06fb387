package exit

import (
	"context"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

const (
	// clientHeader tells a web server the npub of a client that has proven it.
	// Whatever a client itself writes there is taken out, also what servers take
	// for the same (see withoutClaims).
	clientHeader = "Nws-Client"

	webHeaderTimeout = 30 * time.Second
	webIdle          = 2 * time.Minute
	maxWebHeader     = 64 << 10
	maxWebBackends   = 256 // connections to one web server
)

// newWebProxy passes requests on to a web server: with the name that the client
// asked for, and with headers of its own about the client.
func (s *Server) newWebProxy(svc *service, port uint16) *httputil.ReverseProxy {
	target := &url.URL{Scheme: svc.HTTP, Host: svc.Address}
	if svc.Network == "unix" {
		target.Host = "localhost"
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			withoutClaims(r.Out.Header)
			r.Out.Header.Set("X-Forwarded-Host", r.In.Host)
			r.Out.Header.Set("X-Forwarded-Proto", "http")
			if svc.TLS {
				r.Out.Header.Set("X-Forwarded-Proto", "https")
			}
			switch c, _ := r.In.Context().Value(clientKey{}).(client); {
			case c.proven:
				r.Out.Header.Set(clientHeader, name.Name{Key: c.key}.NPub())
				fallthrough
			case c != client{}:
				r.Out.Header.Set("X-Forwarded-For", addressOf(c.key).String())
			}
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, svc.Network, svc.Address)
			},
			DisableCompression: true, MaxConnsPerHost: maxWebBackends,
			IdleConnTimeout: serverIdle, TLSHandshakeTimeout: handshakeTimeout, MaxResponseHeaderBytes: maxWebHeader,
		},
		ErrorLog: log.New(discard{}, "", 0),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			s.serviceFailed(r.Context(), svc, port, err)
			http.Error(w, "the service does not answer", http.StatusBadGateway)
		},
	}
}

// withoutClaims takes out what a client says of itself in the place of a proxy,
// also in headers that many servers cannot tell from those: programs get them as
// variables, in which a hyphen is an underscore (RFC 3875, section 4.1.18).
func withoutClaims(h http.Header) {
	for key := range h {
		if isClaim(strings.ToLower(strings.ReplaceAll(key, "_", "-"))) {
			delete(h, key)
		}
	}
}

// isClaim reports whether proxies tell a web server in a header, in lower case,
// who asks and how.
func isClaim(header string) bool {
	switch header {
	case "nws-client", "forwarded", "x-forwarded", "forwarded-for", "x-original-forwarded-for",
		"x-real-ip", "x-client-ip", "client-ip", "x-cluster-client-ip", "x-remote-ip", "x-remote-addr", "x-originating-ip",
		"true-client-ip", "cf-connecting-ip", "cf-connecting-ipv6", "cf-pseudo-ipv4", "fastly-client-ip", "fly-client-ip",
		"x-appengine-user-ip", "x-azure-clientip", "x-azure-socketip", "x-envoy-external-address", "x-proxyuser-ip":
		return true
	}
	return strings.HasPrefix(header, "x-forwarded-")
}

// discard is where the library's log goes: what is worth knowing is logged here.
type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

type clientKey struct{}

// serveWeb answers the requests of one flow.
func (s *Server) serveWeb(ctx context.Context, req Request, svc *service) {
	s.join(ctx, req, nil, func(in net.Conn) (splice.Stats, error) {
		s.tcpFlows.Add(1)
		conn := &webConn{Conn: in, closed: make(chan struct{})}
		served := net.Conn(conn)
		if svc.TLS {
			over, err := s.siteOf(req).takeOver(ctx, conn)
			if err != nil {
				return conn.stats(), err
			}
			served = over
		}
		server := &http.Server{
			Handler:           svc.web,
			ReadHeaderTimeout: webHeaderTimeout, IdleTimeout: webIdle, MaxHeaderBytes: maxWebHeader,
			ErrorLog:    log.New(discard{}, "", 0),
			BaseContext: func(net.Listener) context.Context { return context.WithValue(ctx, clientKey{}, clientOf(req)) },
		}
		one := make(listenOnce, 1)
		one <- served
		close(one)
		server.Serve(one) // returns when it has taken the connection
		<-conn.closed
		return conn.stats(), nil
	})
}

// webConn counts what passes and tells when it is closed.
type webConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}

	read, written atomic.Int64
}

func (c *webConn) stats() splice.Stats {
	return splice.Stats{AToB: c.read.Load(), BToA: c.written.Load()}
}

func (c *webConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

func (c *webConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

func (c *webConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}

// listenOnce is a listener with one connection.
type listenOnce chan net.Conn

func (l listenOnce) Accept() (net.Conn, error) {
	if conn, ok := <-l; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (l listenOnce) Close() error   { return nil }
func (l listenOnce) Addr() net.Addr { return &net.TCPAddr{} }
