package exit

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

// Target is what stands behind a port of the exit's own .nostr name.
type Target struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or the socket's path
	// TLS: the exit does the TLS that clients speak, by Config.TLS, and the
	// service gets what is inside.
	TLS bool
}

// ParseTarget reads "host:port", or "unix:" and the path of a socket, either of
// them after "tls:".
func ParseTarget(s string) (Target, error) {
	if inner, ok := strings.CutPrefix(s, "tls:"); ok && !strings.HasPrefix(inner, "tls:") {
		t, err := ParseTarget(inner)
		t.TLS = err == nil
		return t, err
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" {
			return Target{}, fmt.Errorf("service target %q: the path of the socket is missing", s)
		}
		return Target{Network: "unix", Address: path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return Target{}, fmt.Errorf("service target %q: want host:port or unix:/path, after tls: perhaps", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Target{}, fmt.Errorf("service target %q: want a port from 1 to 65535", s)
	}
	return Target{Network: "tcp", Address: s}, nil
}

// String returns what ParseTarget reads.
func (t Target) String() string {
	s := t.Address
	if t.Network == "unix" {
		s = "unix:" + s
	}
	if t.TLS {
		s = "tls:" + s
	}
	return s
}

// service is a Target in use.
type service struct {
	Target
	warned atomic.Int64 // Unix seconds of the last warning that it is down
}

// warnEvery is how often the operator is told that a service is down: whoever
// knows the name can knock as often as he likes.
const warnEvery = 60

// service finds what d, a name with a key, asks for. Without a port it is the
// only service there is.
func (s *Server) service(network string, d destination) (*service, error) {
	if *d.exit != s.key {
		return nil, refuse(ReasonOtherExit, "this is another exit's name: connect to that exit itself")
	}
	if network != "tcp" {
		return nil, refuse(ReasonNoService, "services behind a .nostr name are reached over TCP only")
	}
	if d.port == 0 && len(s.services) == 1 {
		for _, only := range s.services {
			return only, nil
		}
	}
	found := s.services[d.port]
	if found == nil {
		return nil, refuse(ReasonNoService, "this exit has no service on port %d", d.port)
	}
	return found, nil
}

// handshakeTimeout bounds how long a client may take for TLS with a service.
const handshakeTimeout = 30 * time.Second

// carryTLS does the TLS of a service and joins the client with it.
func (s *Server) carryTLS(ctx context.Context, in, out net.Conn) (splice.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(in, s.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		conn.Close() // after the alert that says why
		splice.Abort(out, err)
		return splice.Stats{}, err
	}
	return splice.Join(splice.OverTLS(conn), out)
}

// isTLS reports whether d is a service whose TLS is the exit's to do.
func (s *Server) isTLS(network string, d destination) bool {
	if d.exit == nil {
		return false
	}
	svc, err := s.service(network, d)
	return err == nil && svc.TLS
}

// dialService connects to what the operator named, whatever the policy says.
// It goes by the system's resolver: the name is the operator's, not a
// stranger's.
func (s *Server) dialService(ctx context.Context, network string, d destination) (net.Conn, error) {
	svc, err := s.service(network, d)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, svc.Network, svc.Address)
	if err == nil {
		return conn, nil
	}
	now, last := time.Now().Unix(), svc.warned.Load()
	if ctx.Err() == nil && now-last >= warnEvery && svc.warned.CompareAndSwap(last, now) {
		s.log.Warn("exit: a service does not answer", "port", d.port, "target", svc.String(), "err", err)
	}
	r := refuseDial("the service", err)
	if r.Reason == ReasonFailed || r.Reason == ReasonUnreachable {
		// Nobody there is nobody there, be it a socket that does not exist.
		r = refuse(ReasonRefused, "the service is not running")
	}
	return nil, r
}
