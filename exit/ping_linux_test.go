package exit

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/labtest"
)

// pinger is a host behind a router that has no way to anywhere else. Its exit
// may ping whomever it likes.
func pinger(t *testing.T) (*netlab.Host, *Server) {
	t.Helper()
	lab := labtest.New(t)
	host, err := lab.Host("exit")
	if err != nil {
		t.Fatal(err)
	}
	router, err := lab.Host("router")
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		lab.Link(netlab.Port(host, "up0", "192.0.2.2/24", "2001:db8::2/64"), netlab.Port(router, "down0", "192.0.2.1/24", "2001:db8::1/64")),
		host.Route("0.0.0.0/0", "192.0.2.1"), host.Route("::/0", "2001:db8::1"), router.Forward(),
	)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Config{}, "192.0.2.0/24", "203.0.113.0/24", "2001:db8::/32")
	s.pingSocket = func(a netip.Addr) (c net.Conn, err error) {
		err = host.Do(func() error {
			c, err = dialPing(a)
			return err
		})
		return c, err
	}
	return host, s
}

// Both kinds of socket, both families.
func TestPingOverTheNet(t *testing.T) {
	host, s := pinger(t)
	for groups, raw := range map[string]bool{"1 0": true, "0 0": false} {
		if err := host.Sysctl("net/ipv4/ping_group_range", groups); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"} {
			c, err := s.pingSocket(netip.MustParseAddr(to))
			if err != nil {
				t.Fatal(err)
			}
			if got := c.(*echoConn).format.raw; got != raw {
				t.Errorf("groups %s: the socket is raw: %v", groups, got)
			}
			c.Close()
			peer, done := open(t, s, "ping", to)
			pinged(t, peer, "\x00\x01", "\x00\x02payload", "\x12\x34"+strings.Repeat("x", 1400), "\x12\x35"+strings.Repeat("x", 20000))
			peer.Close()
			<-done
		}
		// Two pings of one host do not get each other's answers.
		a, aDone := open(t, s, "ping", "192.0.2.1")
		b, bDone := open(t, s, "ping", "192.0.2.1")
		pinged(t, a, "\x00\x01a")
		pinged(t, b, "\x00\x01b")
		pinged(t, a, "\x00\x02a")
		pinged(t, b, "\x00\x02b")
		a.Close()
		b.Close()
		<-aDone
		<-bDone
	}
}

func TestPingErrorsFromTheNet(t *testing.T) {
	host, s := pinger(t)
	for _, groups := range []string{"1 0", "0 0"} {
		if err := host.Sysctl("net/ipv4/ping_group_range", groups); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"203.0.113.1", "2001:db8:1::1"} {
			r := newRequest(t, "ping", to)
			flow := &abortable{r.flow, make(chan error, 1)}
			r.flow = flow
			done := handle(t, s, r)
			<-r.accepted
			if _, err := r.peer.Write([]byte("\x00\x01")); err != nil {
				t.Fatal(err)
			}
			if err := <-flow.aborted; !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EHOSTUNREACH) {
				t.Errorf("groups %s, %s: the flow ends with %v, want unreachable", groups, to, err)
			}
			<-done
		}
	}
}

func TestPingSocketFallsBack(t *testing.T) {
	a := netip.MustParseAddr("192.0.2.1")
	for _, test := range []struct {
		dgram, raw error
		want       error
	}{
		{nil, nil, nil},
		{unix.EACCES, nil, nil},
		{unix.EPERM, nil, nil},
		{unix.EACCES, unix.EPERM, os.ErrPermission},
		{unix.EMFILE, nil, unix.EMFILE},
	} {
		_, raw, err := pingSocket(a, func(_, kind, _ int) (int, error) {
			if kind&unix.SOCK_RAW == unix.SOCK_RAW {
				return 0, test.raw
			}
			return 0, test.dgram
		})
		if !errors.Is(err, test.want) || err == nil && raw != (test.dgram != nil) {
			t.Errorf("%v, then %v: raw %v, %v", test.dgram, test.raw, raw, err)
		}
	}
}
