package dnsintercept

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/nws-vpn/nws-vpn/internal/splice"
	"github.com/nws-vpn/nws-vpn/netstack"
)

// recorder is a dialer that notes what it is asked for.
type recorder struct {
	network, address string
	conn             net.Conn
	err              error
}

func (r *recorder) DialContext(_ context.Context, network, address string) (net.Conn, error) {
	r.network, r.address = network, address
	return r.conn, r.err
}

// plainConn counts how it ends; the others can do more.
type plainConn struct {
	net.Conn
	closed, aborted, halfClosed int
}

func (c *plainConn) Close() error { c.closed++; return nil }

type streamConn struct{ plainConn }

func (c *streamConn) CloseWrite() error { c.halfClosed++; return nil }

type packetConn struct{ plainConn }

func (c *packetConn) WriteTo(io.Writer) (int64, error) { return 42, nil }

type fullConn struct{ streamConn }

func (c *fullConn) Abort(error)                      { c.aborted++ }
func (c *fullConn) WriteTo(io.Writer) (int64, error) { return 42, nil }

// flows returns the connections that keep addr, or -1.
func flows(i *Interceptor, addr netip.Addr) int {
	i.pool.mu.Lock()
	defer i.pool.mu.Unlock()
	if e := i.pool.findLocked(addr); e != nil {
		return e.flows
	}
	return -1
}

func TestDialPutsTheNameBack(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	relay := "etpjkbpf64p3ebhg5oo2sc9q6srjic0." + testKey
	for host, want := range map[string]string{
		testKey: testKey, testNPub + ".nostr": testKey, "blog.nostr": testKey, relay: relay,
	} {
		v4 := lookup(t, i, host)
		v6 := netip.AddrFrom16(answer(t, i, ask{host: host, kind: dnsmessage.TypeAAAA}).Answers[0].Body.(*dnsmessage.AAAAResource).AAAA)
		for _, addr := range []netip.Addr{v4, v6, netip.AddrFrom16(v4.As16())} {
			for _, network := range []string{"tcp", "udp"} {
				next := &recorder{conn: &plainConn{}}
				conn, err := (&nameDialer{i, next}).DialContext(t.Context(), network, netip.AddrPortFrom(addr, 8443).String())
				if err != nil || next.network != network || next.address != want+":8443" {
					t.Fatalf("%s at %s: dialled %s %s, %v", host, addr, next.network, next.address, err)
				}
				if n := flows(i, addr); n != 1 {
					t.Errorf("%d flows while the connection is open", n)
				}
				conn.Close()
				conn.Close()
				if n := flows(i, addr); n != 0 {
					t.Errorf("%d flows when the connection is closed", n)
				}
			}
		}
	}
}

// leak check 12: unknown fake addresses are refused
func TestDialRefusesUnknownFakes(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	// A petname that an earlier configuration had.
	gone, _, err := i.pool.Address("gone.nostr")
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{
		"198.18.7.7:80", "198.18.0.1:80", "198.18.0.2:853", "198.19.255.255:1", "[::ffff:198.18.7.7]:80",
		"[fd6e:7773:7670:1::7777]:80", "[fd6e:7773:7670::2]:853", netip.AddrPortFrom(gone, 80).String(),
	} {
		next := &recorder{}
		conn, err := (&nameDialer{i, next}).DialContext(t.Context(), "tcp", addr)
		if conn != nil || !errors.Is(err, syscall.ECONNREFUSED) || next.network != "" {
			t.Errorf("%s: %v, %v, dialled %q", addr, conn, err, next.address)
		}
	}
	if n := flows(i, gone); n != 0 {
		t.Errorf("%d flows left", n)
	}
}

func TestDialLeavesOthersAlone(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	for _, addr := range []string{"1.1.1.1:53", "[2606:4700::1111]:443", "example.com:80", testKey + ":80", "[fe80::1%eth0]:1", "nonsense", ""} {
		next := &recorder{conn: &plainConn{}}
		conn, err := (&nameDialer{i, next}).DialContext(t.Context(), "udp", addr)
		if err != nil || conn != next.conn || next.address != addr || next.network != "udp" {
			t.Errorf("%q: dialled %s %q, %v", addr, next.network, next.address, err)
		}
	}
}

func TestDialThatFails(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	addr := lookup(t, i, "blog.nostr")
	next := &recorder{err: syscall.EHOSTUNREACH}
	_, err := (&nameDialer{i, next}).DialContext(t.Context(), "tcp", netip.AddrPortFrom(addr, 80).String())
	if !errors.Is(err, syscall.EHOSTUNREACH) || flows(i, addr) != 0 {
		t.Errorf("%v, %d flows", err, flows(i, addr))
	}
}

func TestDialKeepsWhatTheConnectionCan(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	addr := lookup(t, i, "blog.nostr")
	plain, stream, packets, full := &plainConn{}, &streamConn{}, &packetConn{}, &fullConn{}
	for _, tt := range []struct {
		conn                 net.Conn
		state                *plainConn
		half, writeTo, abort bool
	}{
		{plain, plain, false, false, false},
		{stream, &stream.plainConn, true, false, false},
		{packets, &packets.plainConn, false, true, false},
		{full, &full.plainConn, true, true, true},
	} {
		d := &nameDialer{i, &recorder{conn: tt.conn}}
		conn, err := d.DialContext(t.Context(), "tcp", netip.AddrPortFrom(addr, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		half, ok := conn.(splice.Conn)
		if ok != tt.half {
			t.Errorf("%T: half-close %v", tt.conn, ok)
		} else if ok && (half.CloseWrite() != nil || tt.state.halfClosed != 1 || flows(i, addr) != 1) {
			t.Errorf("%T: half-closed %d times, %d flows", tt.conn, tt.state.halfClosed, flows(i, addr))
		}
		w, ok := conn.(io.WriterTo)
		if ok != tt.writeTo {
			t.Errorf("%T: WriteTo %v", tt.conn, ok)
		} else if ok {
			if n, err := w.WriteTo(io.Discard); n != 42 || err != nil {
				t.Errorf("WriteTo: %d, %v", n, err)
			}
		}
		conn.(splice.Aborter).Abort(errors.New("reset"))
		if tt.state.aborted+tt.state.closed != 1 || (tt.state.aborted == 1) != tt.abort || flows(i, addr) != 0 {
			t.Errorf("%T: aborted %d, closed %d times, %d flows", tt.conn, tt.state.aborted, tt.state.closed, flows(i, addr))
		}
	}
}

// earlyRecorder dials early, too.
type earlyRecorder struct {
	recorder
	first string
}

func (r *earlyRecorder) DialEarly(_ context.Context, network, address string, first []byte) (net.Conn, error) {
	r.network, r.address, r.first = network, address, string(first)
	return r.conn, r.err
}

func TestDialEarlyPutsTheNameBack(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	addr := lookup(t, i, "blog.nostr")
	next := &earlyRecorder{recorder: recorder{conn: &streamConn{}}}
	d, ok := i.Dialer(next).(netstack.EarlyDialer)
	if !ok {
		t.Fatal("not an EarlyDialer around one")
	}
	conn, err := d.DialEarly(t.Context(), "tcp", netip.AddrPortFrom(addr, 80).String(), []byte("GET /"))
	if err != nil || next.network != "tcp" || next.address != testKey+":80" || next.first != "GET /" {
		t.Fatalf("dialled %s %s with %q, %v", next.network, next.address, next.first, err)
	}
	if n := flows(i, addr); n != 1 {
		t.Errorf("%d flows while the connection is open", n)
	}
	conn.Close()
	if n := flows(i, addr); n != 0 {
		t.Errorf("%d flows when the connection is closed", n)
	}
	if _, err := d.DialEarly(t.Context(), "tcp", "1.1.1.1:80", nil); err != nil || next.address != "1.1.1.1:80" || next.first != "" {
		t.Errorf("dialled %s with %q, %v", next.address, next.first, err)
	}
	if _, err := d.DialEarly(t.Context(), "tcp", "198.18.7.7:80", nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("an address without a name: %v", err)
	}
	if _, ok := i.Dialer(&recorder{}).(netstack.EarlyDialer); ok {
		t.Error("an EarlyDialer around a plain one")
	}
}

func TestPingsGoToTheName(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	addr := lookup(t, i, "blog.nostr")
	for address, want := range map[string]string{
		addr.String(): testKey, "9.9.9.9": "9.9.9.9", "2620:fe::9": "2620:fe::9", "example.com": "example.com",
	} {
		next := &recorder{conn: &packetConn{}}
		conn, err := i.Dialer(next).DialContext(t.Context(), "ping", address)
		if err != nil || next.network != "ping" || next.address != want {
			t.Fatalf("%s: dialled %s %s, %v", address, next.network, next.address, err)
		}
		conn.Close()
	}
	next := &recorder{}
	if _, err := i.Dialer(next).DialContext(t.Context(), "ping", "198.18.7.7"); !errors.Is(err, syscall.EHOSTUNREACH) || next.network != "" {
		t.Errorf("an address without a name: %v, dialled %q", err, next.address)
	}
}

type limitedConn struct{ packetConn }

func (limitedConn) MaxDatagram() int { return 1234 }

func TestDialKeepsTheLongestDatagram(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	addr := lookup(t, i, "blog.nostr")
	for _, test := range []struct {
		conn net.Conn
		want int
	}{{&packetConn{}, 0}, {&limitedConn{}, 1234}} {
		conn, err := i.Dialer(&recorder{conn: test.conn}).DialContext(t.Context(), "udp", netip.AddrPortFrom(addr, 443).String())
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.(interface{ MaxDatagram() int }).MaxDatagram(); got != test.want {
			t.Errorf("%T: %d, want %d", test.conn, got, test.want)
		}
		conn.Close()
	}
}
