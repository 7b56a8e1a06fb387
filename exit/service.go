package exit

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httputil"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

// service is a Target in use.
type service struct {
	Target
	web    *httputil.ReverseProxy // for HTTP
	warned atomic.Int64           // Unix seconds of the last warning that it is down
}

// warnEvery is how often the operator is told that a service is down: whoever
// knows the name can knock as often as he likes.
const warnEvery = 60

// service finds what d, a name with a key, asks for. Without a port it is the
// only service there is.
func (t *site) service(network string, d destination) (*service, error) {
	if *d.exit != t.key {
		return nil, refuse(ReasonOtherExit, "this is another exit's name: connect to that exit itself")
	}
	if network != "tcp" {
		return nil, refuse(ReasonNoService, "services behind a .nostr name are reached over TCP only")
	}
	if d.port == 0 && len(t.services) == 1 {
		for _, only := range t.services {
			return only, nil
		}
	}
	found := t.services[d.port]
	if found == nil {
		return nil, refuse(ReasonNoService, "this exit has no service on port %d", d.port)
	}
	return found, nil
}

// handshakeTimeout bounds how long a client may take for TLS with a service.
const handshakeTimeout = 30 * time.Second

// takeOver does the TLS of a service with the client of a flow.
func (t *site) takeOver(ctx context.Context, in net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(in, t.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		conn.Close() // after the alert that says why
		return nil, err
	}
	return conn, nil
}

// carryService joins the client of a flow with the service that was dialled for
// it.
func (s *Server) carryService(ctx context.Context, req Request, svc *service, in, out net.Conn) (splice.Stats, error) {
	if svc.Proxy {
		if _, err := out.Write(proxyHeader(clientOf(req), s.siteOf(req).key)); err != nil {
			splice.Abort(in, err)
			splice.Abort(out, err)
			return splice.Stats{}, err
		}
	}
	if !svc.TLS {
		return splice.Join(in, out)
	}
	conn, err := s.siteOf(req).takeOver(ctx, in)
	if err != nil {
		splice.Abort(out, err)
		return splice.Stats{}, err
	}
	return splice.Join(splice.OverTLS(conn), out)
}

// dialService connects to what the operator named, whatever the policy says.
// It goes by the system's resolver: the name is the operator's, not a
// stranger's.
func (s *Server) dialService(ctx context.Context, svc *service, port uint16) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, svc.Network, svc.Address)
	if err == nil {
		return conn, nil
	}
	s.serviceFailed(ctx, svc, port, err)
	r := refuseDial("the service", err)
	if r.Reason == ReasonFailed || r.Reason == ReasonUnreachable {
		// Nobody there is nobody there, be it a socket that does not exist.
		r = refuse(ReasonRefused, "the service is not running")
	}
	return nil, r
}

// serviceFailed tells the operator, now and then, that a service is down.
func (s *Server) serviceFailed(ctx context.Context, svc *service, port uint16, err error) {
	now, last := time.Now().Unix(), svc.warned.Load()
	if ctx.Err() == nil && now-last >= warnEvery && svc.warned.CompareAndSwap(last, now) {
		s.log.Warn("exit: a service does not answer", "port", port, "target", svc.String(), "err", err)
	}
}
