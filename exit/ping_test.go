package exit

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// mirror is a host that answers pings: each message comes back as a reply.
type mirror struct {
	net.Conn
	replies chan []byte
	closed  chan struct{}
}

func newMirror() *mirror {
	return &mirror{replies: make(chan []byte, 10), closed: make(chan struct{})}
}

func (m *mirror) Write(p []byte) (int, error) {
	reply := bytes.Clone(p)
	reply[0] = 0
	m.replies <- reply
	return len(p), nil
}

func (m *mirror) Read(p []byte) (int, error) {
	select {
	case reply := <-m.replies:
		return copy(p, reply), nil
	case <-m.closed:
		return 0, net.ErrClosed
	}
}

func (m *mirror) Close() error { close(m.closed); return nil }

func pinged(t *testing.T, peer net.Conn, echoes ...string) {
	t.Helper()
	buf := make([]byte, maxDatagram)
	for _, echo := range echoes {
		if _, err := peer.Write([]byte(echo)); err != nil {
			t.Fatal(err)
		}
		if n, err := peer.Read(buf); err != nil || string(buf[:n]) != echo {
			t.Fatalf("%.20q came back as %.20q, %v", echo, buf[:n], err)
		}
	}
}

func TestPing(t *testing.T) {
	dns := newDNS(t, zone{"host.example": {{addrs: []string{"127.0.0.1"}}}})
	s := newServer(t, dns.config())
	var asked []netip.Addr
	s.pingSocket = func(a netip.Addr) (net.Conn, error) {
		asked = append(asked, a)
		return &echoConn{newMirror(), echoFormat{}}, nil
	}
	for _, to := range []string{"127.0.0.1", "::ffff:127.0.0.1", "host.example", "Host.Example."} {
		peer, done := open(t, s, "ping", to)
		pinged(t, peer, "\x00\x01", "\x00\x02payload", "\xff\xff"+strings.Repeat("x", 9000))
		peer.Write([]byte("x")) // no sequence number, no echo
		pinged(t, peer, "\x00\x03")
		peer.Close()
		<-done
	}
	for _, a := range asked {
		if a != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("pinged %s", a)
		}
	}
	if st := s.Stats(); st.PingFlows != 4 || st.OpenFlows != 0 || st.BytesSent != 4*(2+9+9002+2+1) || len(s.pings) > 0 {
		t.Errorf("stats %+v, %d pings left", st, len(s.pings))
	}
}

func TestPingOfTheExitItself(t *testing.T) {
	s := newServer(t, Config{})
	s.pingSocket = func(netip.Addr) (net.Conn, error) { panic("a socket for our own name") }
	n := name.Name{Key: testKey(t)}
	for _, to := range []string{n.Host(), strings.ToUpper(n.Host())} {
		peer, done := open(t, s, "ping", to)
		pinged(t, peer, "\x00\x01", "\x00\x02"+strings.Repeat("y", 1400))
		peer.Close()
		<-done
	}
	if st := s.Stats(); st.PingFlows != 2 || st.OpenFlows != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestPingRefusals(t *testing.T) {
	dns := newDNS(t, zone{
		"private.example": {{addrs: []string{"127.0.0.1"}}},
		"mixed.example":   {{addrs: []string{"127.0.0.2", "127.0.0.1"}}},
	})
	s := newServer(t, dns.config(), "127.0.0.2/32")
	fail := func(err error) func(netip.Addr) (net.Conn, error) {
		return func(a netip.Addr) (net.Conn, error) {
			if a != netip.MustParseAddr("127.0.0.2") {
				t.Errorf("a socket for %s", a)
			}
			return nil, err
		}
	}
	for _, tt := range []struct {
		address string
		err     error // of the socket
		want    Reason
		errno   syscall.Errno
	}{
		{"127.0.0.1", nil, ReasonSpecial, syscall.EACCES},
		{"::1", nil, ReasonSpecial, syscall.EACCES},
		{"::ffff:127.0.0.1", nil, ReasonSpecial, syscall.EACCES},
		{"224.0.0.1", nil, ReasonSpecial, syscall.EACCES},
		{"255.255.255.255", nil, ReasonSpecial, syscall.EACCES},
		{"fe80::1%lo", nil, ReasonMalformed, syscall.EACCES},
		{"private.example", nil, ReasonSpecial, syscall.EACCES},
		{"mixed.example", nil, ReasonMixed, syscall.EACCES},
		{"missing.example", nil, ReasonNameNotFound, syscall.EHOSTUNREACH},
		{"127.0.0.2:80", nil, ReasonMalformed, syscall.EACCES},
		{"", nil, ReasonMalformed, syscall.EACCES},
		{name.Name{Key: [32]byte{1}}.Host(), nil, ReasonOtherExit, syscall.EACCES},
		{"127.0.0.2", os.NewSyscallError("socket", syscall.EACCES), ReasonNoPing, syscall.EACCES},
		{"127.0.0.2", os.NewSyscallError("socket", syscall.EPERM), ReasonNoPing, syscall.EACCES},
		{"127.0.0.2", errors.ErrUnsupported, ReasonNetwork, syscall.EOPNOTSUPP},
		{"127.0.0.2", os.NewSyscallError("connect", syscall.ENETUNREACH), ReasonUnreachable, syscall.ENETUNREACH},
	} {
		s.pingSocket = fail(tt.err)
		err := rejection(t, s, "ping", tt.address)
		if reasonOf(err) != tt.want || !errors.Is(err, tt.errno) {
			t.Errorf("%q: %v (%v), want %v with %v", tt.address, err, reasonOf(err), tt.want, tt.errno)
		}
		if told := wire.AsError(err).Text; told == "" || len(told) > wire.MaxText {
			t.Errorf("%q: tells %q", tt.address, told)
		}
	}
	for range cap(s.pings) {
		s.pings <- struct{}{}
	}
	if err := rejection(t, s, "ping", "127.0.0.2"); reasonOf(err) != ReasonBusy {
		t.Errorf("one ping too many: %v", err)
	}
}

func TestEchoFormats(t *testing.T) {
	for _, f := range []echoFormat{{}, {v6: true}, {raw: true, ident: 0xabcd}, {v6: true, raw: true, ident: 0xabcd}} {
		for _, echo := range []string{"\x12\x34", "\x12\x34payload", "\x12\x34" + strings.Repeat("z", 65507)} {
			m, ok := f.appendRequest(nil, []byte(echo))
			if !ok {
				t.Fatalf("%+v: an echo of %d bytes is refused", f, len(echo))
			}
			if f.raw && !f.v6 && sum16(m) != 0xffff {
				t.Errorf("%+v: wrong sum", f)
			}
			if got, ok := f.parseReply(ipv4(f, m)); ok {
				t.Errorf("%+v: the request is read as the reply %.20q", f, got)
			}
			m[0] = map[bool]byte{false: 0, true: 129}[f.v6]
			if got, ok := f.parseReply(ipv4(f, m)); !ok || string(got) != echo {
				t.Errorf("%+v: %.20q is read as %.20q, %v", f, echo, got, ok)
			}
			other := f
			other.ident++
			if _, ok := other.parseReply(ipv4(f, m)); ok == f.raw {
				t.Errorf("%+v: reply to another identifier taken: %v", f, ok)
			}
		}
		if _, ok := f.appendRequest(nil, make([]byte, 65510)); ok {
			t.Errorf("%+v: an echo that fits no packet is made", f)
		}
	}
}

// ipv4 puts the header before m that a raw socket shows.
func ipv4(f echoFormat, m []byte) []byte {
	if !f.raw || f.v6 {
		return m
	}
	return append(append([]byte{0x46}, make([]byte, 23)...), m...) // with an option
}

// FuzzEchoReply holds that whatever a socket brings is read without harm, and
// only what an echo's reply looks like as one.
func FuzzEchoReply(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 2, 3, 4}, uint16(0x102))
	f.Add(append([]byte{0x45}, make([]byte, 27)...), uint16(0))
	f.Add([]byte{129, 0, 0, 0, 1, 2, 3, 4, 5}, uint16(0x102))
	f.Add([]byte{0x4f}, uint16(0))
	f.Add([]byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, m []byte, ident uint16) {
		for _, format := range []echoFormat{{}, {v6: true}, {raw: true, ident: ident}, {v6: true, raw: true, ident: ident}} {
			reply, ok := format.parseReply(m)
			if !ok {
				continue
			}
			if len(reply) < 2 || len(reply)+6 > len(m) || !bytes.HasSuffix(m, reply) {
				t.Fatalf("%+v: % x is read as % x", format, m, reply)
			}
			again, ok := format.appendRequest(nil, reply)
			if ok && !bytes.Equal(again[6:], reply) {
				t.Fatalf("%+v: % x is sent as % x", format, reply, again)
			}
		}
	})
}
