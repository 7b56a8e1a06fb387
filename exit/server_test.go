package exit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// newServer allows loopback's first two addresses, so that 127.0.0.2 can play
// a public address where a test takes that permission away from 127.0.0.1.
func newServer(t *testing.T, cfg Config, allow ...string) *Server {
	t.Helper()
	cfg.Key = testKey(t)
	if allow == nil {
		allow = []string{"127.0.0.1/32", "127.0.0.2/32"}
	}
	cfg.Policy.AllowPrivate = prefixes(t, allow...)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fakeDNS) config() Config { return Config{Nameservers: []Nameserver{{Addr: f.addr}}} }

// echoed checks that peer leads to an echoTCP server and carries half-close.
func echoed(t *testing.T, peer net.Conn) {
	t.Helper()
	if _, err := io.WriteString(peer, ", exit"); err != nil {
		t.Fatal(err)
	}
	peer.(splice.Conn).CloseWrite()
	got, err := io.ReadAll(peer)
	if err != nil || string(got) != "hello, exit" {
		t.Fatalf("read %q, %v", got, err)
	}
}

func TestDialByAddressAndName(t *testing.T) {
	addr, _ := echoTCP(t, "127.0.0.1")
	dns := newDNS(t, zone{"web.example": {{addrs: []string{"127.0.0.1"}}}, "www.example": {{cname: "web.example", addrs: []string{"127.0.0.1"}}}})
	s := newServer(t, dns.config())
	for _, to := range []string{addr, "[::ffff:127.0.0.1]:" + port(t, addr), "web.example:" + port(t, addr), "WWW.Example.:" + port(t, addr)} {
		peer, done := open(t, s, "tcp", to)
		echoed(t, peer)
		<-done
	}
	st := s.Stats()
	if st.TCPFlows != 4 || st.BytesSent != 4*6 || st.BytesReceived != 4*11 || st.OpenFlows != 0 || st.Dialling != 0 {
		t.Errorf("stats %+v", st)
	}
}

// What a stranger asks for and must not get, with the errno that reaches his
// application. Nothing of it may be dialled.
func TestRefusals(t *testing.T) {
	addr, connections := echoTCP(t, "127.0.0.1")
	p := port(t, addr)
	dns := newDNS(t, zone{
		"private.example": {{addrs: []string{"127.0.0.1"}}},
		"six.example":     {{addrs: []string{"::1"}}},
		"mapped.example":  {{addrs: []string{"::ffff:127.0.0.1"}}},
		"nat64.example":   {{addrs: []string{"64:ff9b::127.0.0.1"}}},
		"zero.example":    {{addrs: []string{"0.0.0.0"}}},
		"mixed.example":   {{addrs: []string{"127.0.0.2", "127.0.0.1"}}},
		"mixed6.example":  {{addrs: []string{"127.0.0.2", "::1"}}},
		"cname.example":   {{cname: "private.example", addrs: []string{"127.0.0.1"}}},
		"rebind.example":  {{addrs: []string{"127.0.0.2"}}, {addrs: []string{"127.0.0.1"}}},
		"empty.example":   {{}},
		"broken.example":  {{rcode: 2}},
		"garbage.example": {{edit: cutAnswer, addrs: []string{"127.0.0.2"}}},
		"localhost":       {{addrs: []string{"127.0.0.1"}}},
		"secret.nostr":    {{addrs: []string{"127.0.0.2"}}},
		"2130706433":      {{addrs: []string{"127.0.0.2"}}},
	})
	cfg := dns.config()
	cfg.Services = map[uint16]Target{80: {Network: "tcp", Address: addr}}
	s := newServer(t, cfg, "127.0.0.2/32")
	own, other := name.Name{Key: testKey(t)}.Host(), name.Name{Key: [32]byte{1}}.Host()
	for _, tt := range []struct {
		network, address string
		want             Reason
		errno            syscall.Errno
	}{
		{"tcp", "127.0.0.1:" + p, ReasonSpecial, syscall.EACCES},
		{"udp", "127.0.0.1:" + p, ReasonSpecial, syscall.EACCES},
		{"tcp", "[::ffff:127.0.0.1]:" + p, ReasonSpecial, syscall.EACCES},
		{"tcp", "[::1]:" + p, ReasonSpecial, syscall.EACCES},
		{"tcp", "0.0.0.0:" + p, ReasonSpecial, syscall.EACCES},
		{"tcp", "[::]:" + p, ReasonSpecial, syscall.EACCES},
		{"tcp", "169.254.169.254:80", ReasonSpecial, syscall.EACCES},
		{"tcp", "2130706433:" + p, ReasonMalformed, syscall.EACCES},
		{"tcp", "0x7f000001:" + p, ReasonMalformed, syscall.EACCES},
		{"tcp", "private.example:" + p, ReasonSpecial, syscall.EACCES},
		{"udp", "private.example:" + p, ReasonSpecial, syscall.EACCES},
		{"tcp", "six.example:" + p, ReasonSpecial, syscall.EACCES},
		{"tcp", "mapped.example:" + p, ReasonSpecial, syscall.EACCES},
		{"tcp", "nat64.example:" + p, ReasonSpecial, syscall.EACCES},
		{"tcp", "zero.example:" + p, ReasonSpecial, syscall.EACCES},
		{"tcp", "cname.example:" + p, ReasonSpecial, syscall.EACCES},
		{"tcp", "mixed.example:" + p, ReasonMixed, syscall.EACCES},
		{"tcp", "mixed6.example:" + p, ReasonMixed, syscall.EACCES},
		{"tcp", "127.0.0.2:25", ReasonPolicy, syscall.EACCES},
		{"tcp", "mail.example:25", ReasonPolicy, syscall.EACCES},
		{"tcp", "missing.example:80", ReasonNameNotFound, syscall.EHOSTUNREACH},
		{"tcp", "empty.example:80", ReasonNameNotFound, syscall.EHOSTUNREACH},
		{"tcp", "localhost:" + p, ReasonNameNotFound, syscall.EHOSTUNREACH},
		{"tcp", "secret.nostr:80", ReasonNameNotFound, syscall.EHOSTUNREACH},
		{"tcp", "broken.example:80", ReasonResolver, syscall.EHOSTUNREACH},
		{"tcp", "garbage.example:80", ReasonResolver, syscall.EHOSTUNREACH},
		{"tcp", "127.0.0.2:" + port(t, closedPort(t)), ReasonRefused, syscall.ECONNREFUSED},
		{"tcp", own + ":81", ReasonNoService, syscall.ECONNREFUSED},
		{"tcp", own + ":25", ReasonNoService, syscall.ECONNREFUSED},
		{"udp", own + ":80", ReasonNoService, syscall.ECONNREFUSED},
		{"tcp", other + ":80", ReasonOtherExit, syscall.EACCES},
		{"tcp", "", ReasonMalformed, syscall.EACCES},
		{"sctp", "127.0.0.2:80", ReasonNetwork, syscall.EOPNOTSUPP},
		{"", "127.0.0.2:80", ReasonNetwork, syscall.EOPNOTSUPP},
	} {
		before := s.Stats().Refused[tt.want]
		err := rejection(t, s, tt.network, tt.address)
		if reasonOf(err) != tt.want || !errors.Is(err, tt.errno) {
			t.Errorf("%s %s: %v (%v), want %v with %v", tt.network, tt.address, err, reasonOf(err), tt.want, tt.errno)
		}
		if told := wire.AsError(err).Text; told == "" || len(told) > wire.MaxText || strings.Contains(told, "\n") {
			t.Errorf("%s %s: tells %q", tt.network, tt.address, told)
		}
		if s.Stats().Refused[tt.want] != before+1 {
			t.Errorf("%s %s: not counted as %v", tt.network, tt.address, tt.want)
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections were made all the same", n)
	}
}

// cutAnswer takes the last byte off a message that has an answer.
func cutAnswer(m []byte) []byte {
	if m[7] > 0 {
		return m[:len(m)-1]
	}
	return m
}

// A name that was good the first time is judged again the second time.
//
// leak check 50: rebinding: a name that is public first, and private then
func TestRebinding(t *testing.T) {
	good, goodCount := echoTCP(t, "127.0.0.2")
	bad := listenTCP(t, "127.0.0.1")
	dns := newDNS(t, zone{"rebind.example": {{addrs: []string{"127.0.0.2"}}, {addrs: []string{"127.0.0.1"}}}})
	s := newServer(t, dns.config(), "127.0.0.2/32")
	s.resolver.cache = nil // or the answer is the first one for a second more
	peer, done := open(t, s, "tcp", "rebind.example:"+port(t, good))
	echoed(t, peer)
	<-done
	err := rejection(t, s, "tcp", "rebind.example:"+port(t, bad.Addr().String()))
	if reasonOf(err) != ReasonSpecial || goodCount.Load() != 1 {
		t.Errorf("second time: %v", err)
	}
}

// Whatever a lookup let through is judged once more where it is dialled.
//
// leak check 50: the address is judged once more where the kernel gets it
func TestControlJudgesWhatIsDialled(t *testing.T) {
	l := listenTCP(t, "127.0.0.1")
	p := uint16(l.Addr().(*net.TCPAddr).Port)
	s := newServer(t, Config{}, "127.0.0.2/32")
	for _, network := range []string{"tcp", "udp"} {
		for _, a := range []string{"127.0.0.1", "::ffff:127.0.0.1", "::1", "0.0.0.0", "::"} {
			conn, err := dialAddr(context.Background(), s.gate.Load(), wish{network: network, port: p}, netip.AddrPortFrom(netip.MustParseAddr(a), p))
			if err == nil {
				conn.Close()
			}
			if r := (*Refusal)(nil); !errors.As(err, &r) || r.Reason != ReasonSpecial {
				t.Errorf("%s %s: %v", network, a, err)
			}
		}
	}
	l.(*net.TCPListener).SetDeadline(time.Unix(1, 0))
	if c, err := l.Accept(); err == nil {
		c.Close()
		t.Error("a connection was made")
	}
}

func TestDestinationsReset(t *testing.T) {
	l := listenTCP(t, "127.0.0.1")
	s := newServer(t, Config{})
	peer, done := open(t, s, "tcp", l.Addr().String())
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other end reads %v, want a reset", err)
	}
	<-done
}

func TestContextEndsFlows(t *testing.T) {
	addr, _ := echoTCP(t, "127.0.0.1")
	udp := echoUDP(t)
	dns := newDNS(t, zone{})
	s := newServer(t, dns.config())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	for network, to := range map[string]string{"tcp": addr, "udp": udp, "dns": ""} {
		r := newRequest(t, network, to)
		go func() {
			s.Handle(ctx, r)
			done <- struct{}{}
		}()
		<-r.accepted
	}
	if n := s.Stats().OpenFlows; n != 3 {
		t.Errorf("%d flows are open", n)
	}
	cancel()
	for range 3 {
		<-done
	}
	if n := s.Stats().OpenFlows; n != 0 {
		t.Errorf("%d flows are open after the end", n)
	}
}

// A dial that nobody waits for any more ends, and is no fault of the target's.
func TestContextEndsDials(t *testing.T) {
	hold, arrived := make(chan struct{}), make(chan struct{}, 2)
	defer close(hold)
	dns := newDNS(t, zone{"slow.example": {{hold: hold, arrived: arrived}}})
	s := newServer(t, dns.config())
	r := newRequest(t, "tcp", "slow.example:80")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Handle(ctx, r)
	}()
	<-arrived
	cancel()
	if err := <-r.rejected; reasonOf(err) != ReasonCancelled {
		t.Errorf("rejected with %v", err)
	}
	<-done
}

// leak check 52: flows and dials in total; dials into black holes end
func TestBounds(t *testing.T) {
	addr, _ := echoTCP(t, "127.0.0.1")
	hold := make(chan struct{})
	dns := newDNS(t, zone{"slow.example": {{hold: hold, addrs: []string{"127.0.0.1"}}}})
	cfg := dns.config()
	cfg.MaxFlows, cfg.MaxDials = 2, 1
	s := newServer(t, cfg)
	defer close(hold)

	peer, done := open(t, s, "tcp", addr)
	// The slow dial takes the one place there is, and gives up by itself.
	s.dialTimeout = 20 * time.Millisecond
	if err := rejection(t, s, "tcp", "slow.example:80"); reasonOf(err) != ReasonResolver {
		t.Errorf("a dial that takes too long: %v", err)
	}
	s.dials <- struct{}{} // another one takes the place
	err := rejection(t, s, "tcp", addr)
	<-s.dials
	if reasonOf(err) != ReasonBusy || wire.CodeOf(err) != wire.CodeBusy {
		t.Errorf("with all dials taken: %v", err)
	}
	s.dialTimeout = DefaultDialTimeout
	second, secondDone := open(t, s, "tcp", addr)
	for _, network := range []string{"tcp", "udp", "dns"} {
		if err := rejection(t, s, network, addr); reasonOf(err) != ReasonBusy {
			t.Errorf("%s with all flows taken: %v", network, err)
		}
	}
	echoed(t, peer)
	<-done
	third, thirdDone := open(t, s, "tcp", addr)
	echoed(t, second)
	echoed(t, third)
	<-secondDone
	<-thirdDone
	if got := s.Stats().Refused[ReasonBusy]; got != 4 {
		t.Errorf("%d refusals counted as busy, want 4", got)
	}
}

func TestCodesOfDialErrors(t *testing.T) {
	timeout := &net.OpError{Op: "dial", Err: context.DeadlineExceeded}
	for _, tt := range []struct {
		err   error
		want  Reason
		errno syscall.Errno
	}{
		{syscall.ECONNREFUSED, ReasonRefused, syscall.ECONNREFUSED},
		{syscall.ECONNRESET, ReasonRefused, syscall.ECONNRESET},
		{syscall.EHOSTUNREACH, ReasonUnreachable, syscall.EHOSTUNREACH},
		{syscall.ENETUNREACH, ReasonUnreachable, syscall.ENETUNREACH},
		{syscall.ETIMEDOUT, ReasonTimedOut, syscall.ETIMEDOUT},
		{timeout, ReasonTimedOut, syscall.ETIMEDOUT},
		{syscall.EMFILE, ReasonBusy, syscall.ECONNREFUSED},
		{errors.New("odd"), ReasonFailed, syscall.ECONNRESET},
	} {
		r := refuseDial("there", fmt.Errorf("dial: %w", tt.err))
		if r.Reason != tt.want || !errors.Is(r, tt.errno) {
			t.Errorf("%v: %v %v, want %v with %v", tt.err, r.Reason, wire.CodeOf(r), tt.want, tt.errno)
		}
	}
	for r := range reasons {
		if r.String() == "" || r.String() == "unknown" {
			t.Errorf("reason %d has no name", r)
		}
	}
}

// Nothing of what strangers do is logged unless the operator wants to debug.
//
// leak check 54: no destinations in logs by default
func TestLogsHoldNoDestinations(t *testing.T) {
	addr, _ := echoTCP(t, "127.0.0.1")
	dns := newDNS(t, zone{"web.example": {{addrs: []string{"127.0.0.1"}}}})
	for level, want := range map[slog.Level]bool{slog.LevelInfo: false, slog.LevelDebug: true} {
		var logged bytes.Buffer
		cfg := dns.config()
		cfg.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: level}))
		s := newServer(t, cfg)
		peer, done := open(t, s, "tcp", "web.example:"+port(t, addr))
		echoed(t, peer)
		<-done
		rejection(t, s, "tcp", "web.example:25")
		rejection(t, s, "tcp", "10.9.8.7:80")
		got := strings.Contains(logged.String(), "web.example") && strings.Contains(logged.String(), "10.9.8.7")
		if got != want || level == slog.LevelInfo && logged.Len() > 0 {
			t.Errorf("at level %v:\n%s", level, &logged)
		}
	}
}

// When the other end has given up meanwhile, the connection made for it ends.
func TestAcceptFails(t *testing.T) {
	l := listenTCP(t, "127.0.0.1")
	s := newServer(t, Config{})
	s.Handle(context.Background(), goneRequest(l.Addr().String()))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the destination is still connected")
	}
	if st := s.Stats(); st.OpenFlows != 0 || st.TCPFlows != 0 {
		t.Errorf("stats %+v", st)
	}
}

type goneRequest string

func (goneRequest) Network() string           { return "tcp" }
func (r goneRequest) Address() string         { return string(r) }
func (goneRequest) Accept() (net.Conn, error) { return nil, errors.New("gone") }
func (goneRequest) Reject(error)              { panic("rejected what was to be accepted") }

// TestDialBack: what an entry calls its own address is judged as any other.
func TestDialBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	own := name.Name{Key: [32]byte{1}}.Host()
	strict, err := New(Config{Key: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{l.Addr().String(), "10.0.0.1:80", own + ":80", "nothing"} {
		if conn, err := strict.DialBack(t.Context(), "tcp", address); err == nil {
			conn.Close()
			t.Errorf("connected to %s", address)
		}
	}
	open, err := New(Config{Key: [32]byte{1}, Policy: Policy{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := open.DialBack(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
