package exit

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Target is what stands behind a port of the exit's own .nostr name.
type Target struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or the socket's path
	// TLS: the exit does the TLS that clients speak, by Config.TLS, and the
	// service gets what is inside.
	TLS bool
	// Proxy: what the client sends follows a header of the PROXY protocol,
	// version 2, that tells clients apart.
	Proxy bool
	// HTTP is "http" or "https" for a web server that the exit passes requests
	// to, one by one; "" for a service that gets the connection as it is.
	HTTP string
}

// ParseTarget reads "host:port", or "unix:" and the path of a socket. Before
// either may stand "http://" or "https://", or "proxy:", and before that "tls:".
func ParseTarget(s string) (Target, error) {
	var t Target
	rest, tls := strings.CutPrefix(s, "tls:")
	t.TLS = tls
	if inner, ok := strings.CutPrefix(rest, "proxy:"); ok {
		t.Proxy, rest = true, inner
	} else if scheme, inner, ok := strings.Cut(rest, "://"); ok {
		if scheme != "http" && scheme != "https" {
			return Target{}, fmt.Errorf("service target %q: the exit does not know %s://", s, scheme)
		}
		t.HTTP, rest = scheme, strings.TrimSuffix(inner, "/")
	}
	if path, ok := strings.CutPrefix(rest, "unix:"); ok {
		if path == "" {
			return Target{}, fmt.Errorf("service target %q: the path of the socket is missing", s)
		}
		t.Network, t.Address = "unix", path
		return t, nil
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil || host == "" || strings.Contains(rest, "/") {
		return Target{}, fmt.Errorf("service target %q: want host:port or unix:/path, after tls:, http:// or proxy: perhaps", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Target{}, fmt.Errorf("service target %q: want a port from 1 to 65535", s)
	}
	t.Network, t.Address = "tcp", rest
	return t, nil
}

// String returns what ParseTarget reads.
func (t Target) String() string {
	s := t.Address
	if t.Network == "unix" {
		s = "unix:" + s
	}
	switch {
	case t.Proxy:
		s = "proxy:" + s
	case t.HTTP != "":
		s = t.HTTP + "://" + s
	}
	if t.TLS {
		s = "tls:" + s
	}
	return s
}
