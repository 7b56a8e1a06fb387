package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/nws-vpn/nws-vpn/internal/await"
)

// pingEcho answers each echo, until the flow ends.
func pingEcho(_ context.Context, c *PingConn) { c.WriteTo(c) }

const testIdent = 0xbeef

// echo is an ICMP echo message in its packet; kind is 8 or 0, as over IPv4.
func echo(src, dst netip.Addr, kind byte, sequence uint16, payload []byte) []byte {
	m := make([]byte, header.ICMPv4MinimumSize, header.ICMPv4MinimumSize+len(payload))
	m[0] = kind
	binary.BigEndian.PutUint16(m[4:], testIdent)
	binary.BigEndian.PutUint16(m[6:], sequence)
	m = append(m, payload...)
	if src.Is4() {
		header.ICMPv4(m).SetChecksum(^checksum.Checksum(m, 0))
		return ipPacket(src, dst, header.ICMPv4ProtocolNumber, m)
	}
	m[0] = byte(header.ICMPv6EchoRequest)
	if kind == 0 {
		m[0] = byte(header.ICMPv6EchoReply)
	}
	header.ICMPv6(m).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: toGVisor(src), Dst: toGVisor(dst)}))
	return ipPacket(src, dst, header.ICMPv6ProtocolNumber, m)
}

var echoWays = []struct {
	name    string
	src     netip.Addr
	dst     netip.Addr
	headers int
}{
	{"IPv4", program4, server4.Addr(), header.IPv4MinimumSize},
	{"IPv6", program6, server6.Addr(), header.IPv6MinimumSize},
}

func TestEchoesAreAFlow(t *testing.T) {
	for _, way := range echoWays {
		t.Run(way.name, func(t *testing.T) {
			conns := make(chan *PingConn, 10)
			p := newProbe(t, handlerFuncs{ping: func(ctx context.Context, c *PingConn) {
				conns <- c
				<-ctx.Done()
			}}, Options{})
			p.write(t, echo(way.src, way.dst, 8, 7, []byte("payload")))
			p.write(t, echo(way.src, way.dst, 8, 8, nil))
			c := take(t, conns)
			if c.Source() != way.src || c.Destination() != way.dst {
				t.Errorf("flow from %s to %s", c.Source(), c.Destination())
			}
			buf := make([]byte, 100)
			for _, want := range []string{"\x00\x07payload", "\x00\x08"} {
				if n, err := c.Read(buf); err != nil || string(buf[:n]) != want {
					t.Errorf("read %q, %v, want %q", buf[:n], err, want)
				}
			}
			if _, err := c.Write([]byte("\x01\x02back")); err != nil {
				t.Fatal(err)
			}
			got := take(t, p.sent)
			if want := echo(way.dst, way.src, 0, 0x102, []byte("back")); !bytes.Equal(got[way.headers:], want[way.headers:]) {
				t.Errorf("sent % x, want % x", got[way.headers:], want[way.headers:])
			}
			if s := p.stack.Stats(); s.PingOpen != 1 || s.PingAccepted != 1 || s.UDPOpen != 0 {
				t.Errorf("stats %+v, want one flow", s)
			}
			for p, want := range map[string]error{"": syscall.EINVAL, "x": syscall.EINVAL, string(make([]byte, maxDatagram+3)): syscall.EMSGSIZE} {
				if _, err := c.Write([]byte(p)); !errors.Is(err, want) {
					t.Errorf("write of %d bytes: %v, want %v", len(p), err, want)
				}
			}
		})
	}
}

// What the program's ping shows.
func TestRejectedEchoesAreUnreachable(t *testing.T) {
	for _, test := range []struct {
		err    error
		v4, v6 byte
	}{
		{syscall.EACCES, 13, 1},
		{syscall.EOPNOTSUPP, 13, 1},
		{syscall.EHOSTUNREACH, 1, 3},
		{syscall.ENETUNREACH, 0, 0},
		{syscall.ETIMEDOUT, 1, 3},
		{syscall.ECONNREFUSED, 3, 4},
	} {
		for _, way := range echoWays {
			refuse := make(chan struct{})
			p := newProbe(t, handlerFuncs{ping: func(_ context.Context, c *PingConn) {
				<-refuse
				c.Reject(test.err)
				c.Reject(syscall.EACCES) // after the end, for nothing
			}}, Options{})
			p.write(t, echo(way.src, way.dst, 8, 1, nil))
			second := echo(way.src, way.dst, 8, 2, []byte("later"))
			p.write(t, second)
			await.That(t, "both echoes are there", func() bool { return waitingIn(&p.stack.ping) == 2 })
			close(refuse)
			got := take(t, p.sent)[way.headers:]
			want := []byte{3, test.v4}
			if way.src.Is6() {
				want = []byte{1, test.v6}
			}
			if !bytes.Equal(got[:2], want) {
				t.Errorf("%s: %v is sent as type and code %d, want %d", way.name, test.err, got[:2], want)
			}
			if quote := second[:way.headers+quotedTransport]; !bytes.Equal(got[8:], quote) {
				t.Errorf("%s: quoted % x, want the newest echo, % x", way.name, got[8:], quote)
			}
			await.That(t, "the flow is gone", func() bool { return p.stack.Stats().PingOpen == 0 })
			if s := p.stack.Stats(); s.PingRejected != 1 {
				t.Errorf("stats %+v, want one rejected", s)
			}
		}
	}
}

// waitingIn counts the datagrams in a table's queues.
func waitingIn(t *datagramTable) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, c := range t.flows {
		c.mu.Lock()
		n += len(c.queue)
		c.mu.Unlock()
	}
	return n
}

func TestIdleEchoesEnd(t *testing.T) {
	ended := make(chan error, 1)
	p := newProbe(t, handlerFuncs{ping: func(_ context.Context, c *PingConn) {
		_, err := c.WriteTo(c)
		ended <- err
	}}, Options{PingIdle: 20 * time.Millisecond})
	p.write(t, echo(program4, server4.Addr(), 8, 1, nil))
	if err := take(t, ended); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ended with %v, want closed", err)
	}
}

func TestFlowsOfEchoesAreBounded(t *testing.T) {
	const most = 8
	p := newProbe(t, handlerFuncs{udp: udpEcho, ping: func(ctx context.Context, _ *PingConn) { <-ctx.Done() }}, Options{MaxPingFlows: most})
	for i := range 2 * most {
		dst := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		p.write(t, echo(program4, dst, 8, 1, nil))
	}
	p.expectOnlyAnswerTo(t, app4, server4)
	if s := p.stack.Stats(); s.PingOpen != most || s.PacketsDropped != most {
		t.Errorf("stats %+v, want %d flows and as many packets dropped", s, most)
	}
}

// smallConn takes no more than limit bytes at a time.
type smallConn struct {
	net.Conn
	limit int
}

func (c *smallConn) MaxDatagram() int { return c.limit }

func (c *smallConn) Write(p []byte) (int, error) {
	if len(p) > c.limit {
		return 0, syscall.EMSGSIZE
	}
	return c.Conn.Write(p)
}

// forwardTo forwards everything over a connection with a limit, and returns
// its other end.
func forwardTo(limit int) (Handler, net.Conn) {
	near, far := net.Pipe()
	return Forward(dialerFunc(func(context.Context, string, string) (net.Conn, error) {
		return &smallConn{near, limit}, nil
	}), ForwardOptions{}), far
}

func TestTooLargeDatagramsAreSaidToBe(t *testing.T) {
	type packet func(src, dst netip.Addr, payload []byte) []byte
	for name, send := range map[string]struct {
		packet packet
		prefix int // of the payload, on the other side
	}{
		"UDP": {func(src, dst netip.Addr, payload []byte) []byte {
			return udpPacket(netip.AddrPortFrom(src, 4000), netip.AddrPortFrom(dst, 80), payload)
		}, 0},
		"echo": {func(src, dst netip.Addr, payload []byte) []byte { return echo(src, dst, 8, 1, payload) }, sequenceSize},
	} {
		for _, way := range echoWays {
			t.Run(name+" "+way.name, func(t *testing.T) {
				const limit = 1300
				h, far := forwardTo(limit)
				p := newProbe(t, h, Options{})
				most := limit - send.prefix
				p.write(t, send.packet(way.src, way.dst, make([]byte, most+1)))
				got := take(t, p.sent)
				mtu, want := int(binary.BigEndian.Uint16(got[way.headers+6:])), way.headers+8+most
				if kind := [2]byte(got[way.headers:]); way.src.Is4() && kind != [2]byte{3, 4} || way.src.Is6() && kind != [2]byte{2, 0} {
					t.Errorf("type and code %d", kind)
				}
				if mtu != want {
					t.Errorf("MTU %d, want %d", mtu, want)
				}
				// One of the size that was said passes, in the same flow.
				p.write(t, send.packet(way.src, way.dst, make([]byte, most)))
				far.SetDeadline(time.Now().Add(patience))
				if n, err := far.Read(make([]byte, 2000)); err != nil || n != limit {
					t.Errorf("read %d bytes, %v, want %d", n, err, limit)
				}
			})
		}
	}
}

// IPv6 has no links with less than 1,280 bytes; to say otherwise is no use.
func TestTooLargeIsNeverBelowTheLeastMTU(t *testing.T) {
	h, _ := forwardTo(500)
	p := newProbe(t, h, Options{})
	p.write(t, udpPacket(app6, server6, make([]byte, 501)))
	got := take(t, p.sent)
	if mtu := binary.BigEndian.Uint32(got[header.IPv6MinimumSize+4:]); mtu != header.IPv6MinimumMTU {
		t.Errorf("MTU %d, want %d", mtu, header.IPv6MinimumMTU)
	}
}
