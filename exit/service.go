package exit

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Target is what stands behind a port of the exit's own .nostr name.
type Target struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or the socket's path
}

// ParseTarget reads "host:port", or "unix:" and the path of a socket.
func ParseTarget(s string) (Target, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" {
			return Target{}, fmt.Errorf("service target %q: the path of the socket is missing", s)
		}
		return Target{"unix", path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return Target{}, fmt.Errorf("service target %q: want host:port or unix:/path", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Target{}, fmt.Errorf("service target %q: want a port from 1 to 65535", s)
	}
	return Target{"tcp", s}, nil
}

// String returns what ParseTarget reads.
func (t Target) String() string {
	if t.Network == "unix" {
		return "unix:" + t.Address
	}
	return t.Address
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
