package relayd

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestSourceOf(t *testing.T) {
	for _, tt := range []struct {
		remote, forwarded string
		behindProxy       bool
		want              string // "" for unbounded
	}{
		{remote: "192.0.2.1:1234", want: "192.0.2.1/32"},
		{remote: "[::ffff:192.0.2.1]:1234", want: "192.0.2.1/32"},
		{remote: "[2001:db8:1:2:3:4:5:6]:1", want: "2001:db8:1:2::/64"},
		{remote: "[fe80::1%eth0]:1", want: "fe80::/64"},
		{remote: "127.0.0.1:1"},
		{remote: "[::1]:1"},
		{remote: "pipe"},
		{remote: "192.0.2.1:1", forwarded: "198.51.100.9", behindProxy: true, want: "192.0.2.1/32"},
		{remote: "127.0.0.1:1", forwarded: "203.0.113.5, 198.51.100.9", want: ""},
		{remote: "127.0.0.1:1", forwarded: "203.0.113.5, 198.51.100.9", behindProxy: true, want: "198.51.100.9/32"},
		{remote: "127.0.0.1:1", forwarded: "127.0.0.1\n198.51.100.9", behindProxy: true, want: "198.51.100.9/32"},
		{remote: "127.0.0.1:1", forwarded: "nonsense", behindProxy: true},
	} {
		r := &http.Request{RemoteAddr: tt.remote, Header: http.Header{}}
		for line := range strings.SplitSeq(tt.forwarded, "\n") {
			r.Header.Add("X-Forwarded-For", line)
		}
		got := sourceOf(r, tt.behindProxy)
		if got.bounded() != (tt.want != "") || tt.want != "" && netip.Prefix(got).String() != tt.want {
			t.Errorf("%+v: %v", tt, netip.Prefix(got))
		}
	}
}

func TestLimitersAreOfEach(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiters[string](Rate{Events: 2, Requests: 1, RequestBurst: 1}, 1000)
	for n, want := range []error{nil, nil, tooManyEvents} {
		if err := l.take("a", 10, now); !errors.Is(err, want) {
			t.Errorf("event %d: %v", n, err)
		}
	}
	if err := l.take("b", 10, now); err != nil {
		t.Error(err)
	}
	l.request("b", now)
	for range 9 { // the burst is ten seconds' at least
		l.request("b", now)
	}
	if wait := l.request("b", now); wait != time.Second {
		t.Errorf("the eleventh request waits %v", wait)
	}
	if wait := l.request("b", now); wait != 2*time.Second {
		t.Errorf("the twelfth request waits %v", wait)
	}
	if len(l.of) != 2 {
		t.Errorf("%d are remembered", len(l.of))
	}
	l.take("c", 10, now.Add(time.Hour)) // the others have recovered
	if len(l.of) != 1 {
		t.Errorf("%d are remembered an hour later", len(l.of))
	}
}

func TestConnectionsOfAnAddress(t *testing.T) {
	s := New(Options{Limits: Limits{MaxConnections: 5, MaxPerAddress: 2}})
	defer s.Close()
	client := func(remote string) *conn {
		return &conn{source: sourceOf(&http.Request{RemoteAddr: remote}, false)}
	}
	var open []*conn
	for n, tt := range []struct {
		remote string
		ok     bool
	}{
		{"192.0.2.1:1", true}, {"192.0.2.1:2", true}, {"192.0.2.1:3", false}, {"192.0.2.2:1", true},
		{"[2001:db8::1]:1", true}, {"[2001:db8::ffff]:1", true}, {"[2001:db8:0:1::]:1", false}, // now it is MaxConnections
	} {
		c := client(tt.remote)
		if why := s.begin(c); (why == "") != tt.ok {
			t.Errorf("%d, %s: %q", n, tt.remote, why)
		} else if why == "" {
			open = append(open, c)
		}
	}
	for _, c := range open {
		s.end(c)
	}
	if len(s.sources) != 0 {
		t.Errorf("%v is left", s.sources)
	}
}

// remoteConn is a connection from an address.
type remoteConn struct {
	net.Conn
	addr   net.Addr
	closed bool
}

func (c *remoteConn) RemoteAddr() net.Addr { return c.addr }
func (c *remoteConn) Close() error         { c.closed = true; return nil }

func TestDoorway(t *testing.T) {
	s := New(Options{Limits: Limits{MaxConnections: 4, MaxPerAddress: 2}})
	defer s.Close()
	changed := s.ConnState()
	var all []*remoteConn
	for n, want := range []bool{false, false, true, false, false} { // closed?
		ip := net.IPv4(192, 0, 2, 1)
		if n > 2 {
			ip = net.IPv4(192, 0, 2, byte(n))
		}
		c := &remoteConn{addr: &net.TCPAddr{IP: ip, Port: n + 1}}
		changed(c, http.StateNew)
		if n == 2 {
			changed(c, http.StateClosed)
		}
		if all = append(all, c); c.closed != want {
			t.Errorf("connection %d: closed %v", n, c.closed)
		}
	}
	fifth := &remoteConn{addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 9}}
	changed(fifth, http.StateNew)
	if !fifth.closed {
		t.Error("more than there may be clients wait")
	}
	changed(fifth, http.StateClosed)
	changed(all[0], http.StateHijacked) // it is a client now
	again := &remoteConn{addr: all[0].addr}
	if changed(again, http.StateNew); again.closed {
		t.Error("a client counts twice")
	}
}

func TestIsUs(t *testing.T) {
	local := netip.MustParseAddrPort("[::ffff:192.0.2.1]:7777")
	names := []string{"relay.example", "other.example:8443"}
	for relay, want := range map[string]bool{
		"wss://relay.example":         true,
		"ws://relay.example:9/x":      true,
		"wss://other.example:8443":    true,
		"wss://other.example":         false,
		"ws://192.0.2.1:7777":         true,
		"ws://192.0.2.1:7777/":        true,
		"ws://192.0.2.1":              false,
		"ws://192.0.2.2:7777":         false,
		"ws://localhost:7777":         false,
		"http://relay.example":        false,
		"wss://relay.example.evil":    false,
		"wss://evil/?x=relay.example": false,
		"wss://relay.example@evil":    false,
		"":                            false,
		"%":                           false,
	} {
		if isUs(relay, names, local) != want {
			t.Errorf("%q: %v", relay, !want)
		}
	}
	if !isUs("ws://localhost:80", nil, netip.MustParseAddrPort("127.0.0.1:80")) || isUs("ws://x", nil, netip.AddrPort{}) {
		t.Error("loopback, or nothing")
	}
}

func TestParseKinds(t *testing.T) {
	kinds, err := ParseKinds([]string{"30000-39999", "5", "4-6", "7", "5"})
	if err != nil || len(kinds) != 2 || kinds[0] != (KindRange{4, 7}) || kinds[1] != (KindRange{30000, 39999}) {
		t.Errorf("%v, %v", kinds, err)
	}
	for kind, want := range map[int]bool{3: false, 4: true, 7: true, 8: false, 30000: true, 39999: true, 40000: false} {
		if kinds.Has(kind) != want {
			t.Errorf("kind %d: %v", kind, !want)
		}
	}
	for kind := range maxKind + 1 {
		if class := classOf(kind); kinds.Has(kind) == kinds.others().Has(kind) && class != ephemeral {
			t.Errorf("kind %d is in both or neither", kind)
		}
	}
	for _, bad := range []string{"", "x", "-1", "6-5", "65536", "20000", "19999-20000", "1-2-3", "28333"} {
		if got, err := ParseKinds([]string{bad}); err == nil {
			t.Errorf("%q reads as %v", bad, got)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("30001:3f7548fb75fa0f5efae800c6e2122a0a42f9d5d0a3e0df05d1c7d8b6d4a7c1ab:x:y")
	f.Add("3:3f7548fb75fa0f5efae800c6e2122a0a42f9d5d0a3e0df05d1c7d8b6d4a7c1ab:")
	f.Fuzz(func(t *testing.T, text string) {
		at, ok := parseAddress(text)
		if !ok {
			return
		}
		if class := classOf(at.kind); class != replaceable && class != addressable || class == replaceable && at.d != "" {
			t.Errorf("%q: %+v", text, at)
		}
	})
}
