package netstack

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/nws-vpn/nws-vpn/tun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// The programs' machine, and places that it talks to.
var (
	program4 = netip.MustParseAddr("10.0.0.1")
	program6 = netip.MustParseAddr("fd00::1")
	server4  = netip.MustParseAddrPort("198.51.100.1:80")
	server6  = netip.MustParseAddrPort("[2001:db8::1]:80")
)

// world is a machine in memory, with a TCP of its own, whose default routes
// lead to a Stack.
type world struct {
	stack   *Stack
	machine *stack.Stack
}

func newWorld(t *testing.T, h Handler, opts Options) *world {
	t.Helper()
	inside, outside := tun.Pipe(1500)
	s, err := New(inside, h, opts)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{stack: s, machine: newMachine(t, outside)}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// newMachine is gVisor as the kernel and the programs.
func newMachine(t *testing.T, dev tun.Device) *stack.Stack {
	t.Helper()
	l := newLink(dev, slog.New(slog.DiscardHandler), new(counters))
	l.serves = everything
	gv, err := newGVisor(l)
	if err != nil {
		t.Fatal(err)
	}
	for proto, addr := range map[tcpip.NetworkProtocolNumber]netip.Addr{
		header.IPv4ProtocolNumber: program4,
		header.IPv6ProtocolNumber: program6,
	} {
		at := tcpip.ProtocolAddress{Protocol: proto, AddressWithPrefix: toGVisor(addr).WithPrefix()}
		if err := gv.AddProtocolAddress(nicID, at, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	l.start(func(packet) {}, func(error) {})
	t.Cleanup(func() {
		for _, e := range gv.RegisteredEndpoints() {
			e.Abort()
		}
		l.close()
		gv.Destroy()
	})
	return gv
}

// everything lets all packets through, for a machine hears ICMP.
func everything(first []byte) (packet, bool) {
	if header.IPVersion(first) == header.IPv6Version {
		return packet{network: header.IPv6ProtocolNumber}, true
	}
	return packet{network: header.IPv4ProtocolNumber}, true
}

func toGVisor(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func fullAddress(a netip.AddrPort) (tcpip.FullAddress, tcpip.NetworkProtocolNumber) {
	network := tcpip.NetworkProtocolNumber(header.IPv6ProtocolNumber)
	if a.Addr().Is4() {
		network = header.IPv4ProtocolNumber
	}
	return tcpip.FullAddress{NIC: nicID, Addr: toGVisor(a.Addr()), Port: a.Port()}, network
}

// abort resets all connections of the machine's programs.
func (w *world) abort() {
	for _, e := range w.machine.RegisteredEndpoints() {
		e.Abort()
	}
}

// dial opens a connection as a program does.
func (w *world) dial(to netip.AddrPort) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addr, network := fullAddress(to)
	return gonet.DialContextTCP(ctx, w.machine, addr, network)
}

func (w *world) mustDial(t *testing.T, to netip.AddrPort) *gonet.TCPConn {
	t.Helper()
	c, err := w.dial(to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// dialUDP opens a connected socket as a program does.
func (w *world) dialUDP(t *testing.T, to netip.AddrPort) *gonet.UDPConn {
	t.Helper()
	addr, network := fullAddress(to)
	c, err := gonet.DialUDP(w.machine, nil, &addr, network)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// handlerFuncs is a Handler of functions, or nil.
type handlerFuncs struct {
	tcp  func(context.Context, *TCPRequest)
	udp  func(context.Context, *UDPConn)
	ping func(context.Context, *PingConn)
}

func (h handlerFuncs) HandleTCP(ctx context.Context, r *TCPRequest) { h.tcp(ctx, r) }
func (h handlerFuncs) HandleUDP(ctx context.Context, c *UDPConn)    { h.udp(ctx, c) }
func (h handlerFuncs) HandlePing(ctx context.Context, c *PingConn)  { h.ping(ctx, c) }

// accepting hands each accepted connection to the test, and holds the flow
// until the stack is closed.
func accepting(t *testing.T) (Handler, chan *tcpConn) {
	conns := make(chan *tcpConn, 64)
	return handlerFuncs{tcp: func(ctx context.Context, r *TCPRequest) {
		c, err := r.accept()
		if err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			return
		}
		conns <- c
		<-ctx.Done()
		c.Close()
	}}, conns
}

// dialerFunc is a Dialer.
type dialerFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (f dialerFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

// loopback is a dialer whose connections are sockets; the other ends come out
// of the channel.
func loopback(t *testing.T) (Dialer, chan *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	servers := make(chan *net.TCPConn, 64)
	t.Cleanup(func() { l.Close() })
	return dialerFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		s, err := l.Accept()
		if err != nil {
			c.Close()
			return nil, err
		}
		s.SetDeadline(time.Now().Add(patience))
		servers <- s.(*net.TCPConn)
		return c, nil
	}), servers
}

func take[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

var errTest = errors.New("some error")
