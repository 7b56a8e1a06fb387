package netstack

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/nws-vpn/nws-vpn/tun"
)

// Handler answers flows. Its methods are called in a goroutine of their own,
// as many at a time as Options allows, and the flow ends when they return. ctx
// ends when the stack is closed; a handler must return soon after that.
type Handler interface {
	// HandleTCP answers a connection by req.Accept or req.Reject. Returning
	// without either rejects it.
	HandleTCP(ctx context.Context, req *TCPRequest)
	// HandleUDP serves a new flow, whose first datagram waits to be read. ctx
	// also ends with the flow. Returning closes conn.
	HandleUDP(ctx context.Context, conn *UDPConn)
	// HandlePing does the same for a new flow of ICMP echo requests. The
	// machine's own addresses answer without us.
	HandlePing(ctx context.Context, conn *PingConn)
}

// Dialer opens the other half of a flow: network is "tcp" or "udp", address an
// IP address (or a name, for those who put one there) and a port; or network is
// "ping", whose address has no port, and whose datagrams are as PingConn's.
// *net.Dialer is a Dialer, but for pings.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// EarlyDialer is a Dialer that can send a connection's first bytes along with
// the wish for it. DialEarly does not wait for the destination: that it refuses
// comes as an error of the connection. network is "tcp"; first is the caller's
// again when DialEarly returns.
type EarlyDialer interface {
	Dialer
	DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error)
}

// Options are the limits of a Stack. The zero value is fit for one machine's
// programs.
type Options struct {
	// MaxPending bounds the TCP connections that are neither accepted nor
	// rejected yet: 1024. A SYN above it is dropped; the kernel repeats it.
	MaxPending int
	// MaxTCPFlows bounds accepted TCP connections, until their last packet:
	// 16384. Above it, connections are refused.
	MaxTCPFlows int
	// MaxUDPFlows bounds UDP flows: 4096. Above it, one that has long been
	// idle makes room.
	MaxUDPFlows int
	// UDPIdle is how long a UDP flow lives without a datagram in either
	// direction: 5 minutes, as RFC 4787 recommends. The other end may end one
	// sooner.
	UDPIdle time.Duration
	// MaxPingFlows bounds flows of echoes: 1024. Above it, one that has long
	// been idle makes room.
	MaxPingFlows int
	// PingIdle is how long a flow of echoes lives without one: 30 s.
	PingIdle time.Duration
	// Log gets what goes wrong with the device, and flows at debug level.
	// The default discards it.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	o.MaxPending = cmp.Or(o.MaxPending, 1024)
	o.MaxTCPFlows = cmp.Or(o.MaxTCPFlows, 16384)
	o.MaxUDPFlows = cmp.Or(o.MaxUDPFlows, 4096)
	o.UDPIdle = cmp.Or(o.UDPIdle, 5*time.Minute)
	o.MaxPingFlows = cmp.Or(o.MaxPingFlows, 1024)
	o.PingIdle = cmp.Or(o.PingIdle, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// A Stack serves the flows of one device. Its methods may be called
// concurrently.
type Stack struct {
	handler Handler
	opts    Options
	gv      *stack.Stack
	link    *link
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	started time.Time

	handlers sync.WaitGroup
	tcp      tcpTable
	udp      datagramTable
	ping     datagramTable
	counters counters

	closing sync.Once
	failed  chan struct{}
}

// New starts serving dev's packets to h. The device then belongs to the
// stack, which closes it; on an error it remains the caller's.
func New(dev tun.Device, h Handler, opts Options) (*Stack, error) {
	s := &Stack{handler: h, opts: opts.withDefaults(), started: time.Now(), failed: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.link = newLink(dev, s.opts.Log, &s.counters)
	gv, err := newGVisor(s.link)
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("netstack: set up: %w", err)
	}
	s.gv = gv
	s.tcp.start(s)
	s.startUDP()
	s.startPing()
	s.link.start(s.tcp.makeWay, func(err error) {
		if s.ctx.Err() == nil {
			s.opts.Log.Error("netstack: the device failed", "device", dev.Name(), "err", err)
		}
		close(s.failed)
	})
	return s, nil
}

// Failed is closed when the device is read no more: after Close, or because
// somebody took it away.
func (s *Stack) Failed() <-chan struct{} { return s.failed }

// Close closes the device, resets every flow, and waits until all handlers
// have returned. Programs see their connections reset where a reset still
// reaches them.
func (s *Stack) Close() error {
	var err error
	s.closing.Do(func() {
		s.cancel()
		s.tcp.refuse()
		s.udp.closeAll()
		s.ping.closeAll()
		s.abortUntil(s.handlersGone())
		s.link.flush()
		err = s.link.close()
		s.gv.Destroy()
	})
	return err
}

func (s *Stack) handlersGone() <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		s.handlers.Wait()
		close(gone)
	}()
	return gone
}

// abortUntil resets TCP connections until done. Once is not enough: a
// handshake may just be about to register its endpoint, and would then wait
// for an answer.
func (s *Stack) abortUntil(done <-chan struct{}) {
	const again = 10 * time.Millisecond
	for {
		for _, e := range s.gv.RegisteredEndpoints() {
			e.Abort()
		}
		select {
		case <-done:
			return
		case <-time.After(again):
		}
	}
}
