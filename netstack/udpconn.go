package netstack

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxDatagram is the largest payload of a UDP datagram over IPv4, in bytes.
const maxDatagram = 65535 - header.IPv4MinimumSize - header.UDPMinimumSize

// A UDPConn is what a program sends to one destination from one port, and
// what it gets back. It is a net.Conn with message boundaries: each Read
// returns one datagram, each Write sends one. It ends, with net.ErrClosed,
// when it is closed or nothing has passed for Options.UDPIdle.
//
// All methods may be called concurrently.
type UDPConn struct {
	stack *Stack
	flow  flow
	route *stack.Route

	idle    *time.Timer
	touched atomic.Int64 // since Stack.started

	mu     sync.Mutex
	queue  [][]byte
	queued int // cost of the queue, in bytes
	closed bool

	arrived       chan struct{}   // holds a token while the queue may have something
	ctx           context.Context // ends with the flow
	cancel        context.CancelFunc
	readDeadline  deadline
	writeDeadline deadline
}

var (
	_ net.Conn    = (*UDPConn)(nil)
	_ io.WriterTo = (*UDPConn)(nil)
)

func newUDPConn(s *Stack, f flow) *UDPConn {
	route, err := s.gv.FindRoute(nicID, f.id.LocalAddress, f.id.RemoteAddress, f.network, false)
	if err != nil {
		return nil
	}
	c := &UDPConn{stack: s, flow: f, route: route,
		arrived:      make(chan struct{}, 1),
		readDeadline: newDeadline(), writeDeadline: newDeadline(),
	}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	c.touch()
	c.mu.Lock() // expire may come before idle is set
	defer c.mu.Unlock()
	c.idle = time.AfterFunc(s.opts.UDPIdle, c.expire)
	return c
}

// Source is the program's end.
func (c *UDPConn) Source() netip.AddrPort { return source(c.flow.id) }

// Destination is where the program sends to.
func (c *UDPConn) Destination() netip.AddrPort { return destination(c.flow.id) }

func (c *UDPConn) touch() { c.touched.Store(int64(time.Since(c.stack.started))) }

func (c *UDPConn) idleFor() time.Duration {
	return time.Since(c.stack.started) - time.Duration(c.touched.Load())
}

// expire closes a flow that has been idle for long enough, else looks again.
func (c *UDPConn) expire() {
	left := c.stack.opts.UDPIdle - c.idleFor()
	if left <= 0 {
		c.Close()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.idle.Reset(left)
	}
}

// push queues a datagram of the program. It returns false when it has to be
// dropped.
func (c *UDPConn) push(datagram []byte) bool {
	cost := len(datagram) + datagramCost
	c.touch()
	c.mu.Lock()
	defer c.mu.Unlock()
	// A queue that is empty takes any datagram, however large.
	if c.closed || c.queued > 0 && c.queued+cost > maxWaiting {
		return false
	}
	if c.stack.udp.waiting.Add(int64(cost)) > maxWaitingAll {
		c.stack.udp.waiting.Add(-int64(cost))
		return false
	}
	c.queue, c.queued = append(c.queue, datagram), c.queued+cost
	c.signalLocked()
	return true
}

func (c *UDPConn) signalLocked() {
	select {
	case c.arrived <- struct{}{}:
	default:
	}
}

// pop takes the first datagram, if there is one.
func (c *UDPConn) pop() (datagram []byte, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		return nil, false
	}
	datagram, c.queue = c.queue[0], c.queue[1:]
	c.releaseLocked(len(datagram) + datagramCost)
	if len(c.queue) == 0 {
		c.queue = nil // an idle flow holds no memory for it
	} else {
		c.signalLocked() // for another reader
	}
	c.stack.counters.fromPrograms.Add(uint64(len(datagram)))
	return datagram, true
}

func (c *UDPConn) releaseLocked(cost int) {
	c.queued -= cost
	c.stack.udp.waiting.Add(-int64(cost))
}

// next waits for a datagram; it is the caller's.
func (c *UDPConn) next() ([]byte, error) {
	for {
		select {
		case <-c.readDeadline.done():
			return nil, os.ErrDeadlineExceeded
		default:
		}
		if datagram, ok := c.pop(); ok {
			return datagram, nil
		}
		select {
		case <-c.arrived:
		case <-c.ctx.Done():
			return nil, net.ErrClosed
		case <-c.readDeadline.done():
			return nil, os.ErrDeadlineExceeded
		}
	}
}

// Read returns one datagram. What of it does not fit p is lost.
func (c *UDPConn) Read(p []byte) (int, error) {
	datagram, err := c.next()
	return copy(p, datagram), err
}

// WriteTo writes each datagram to w by one Write, until either fails. It holds
// no buffer while it waits.
func (c *UDPConn) WriteTo(w io.Writer) (total int64, err error) {
	for {
		datagram, err := c.next()
		if err != nil {
			return total, err
		}
		n, err := w.Write(datagram)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// Write sends one datagram to the program.
func (c *UDPConn) Write(p []byte) (int, error) {
	if len(p) > maxDatagram {
		return 0, fmt.Errorf("netstack: write: datagram of %d bytes: %w", len(p), syscall.EMSGSIZE)
	}
	route, err := c.acquire()
	if err != nil {
		return 0, err
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.UDPMinimumSize + int(route.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(p),
	})
	defer pkt.DecRef()
	length := uint16(header.UDPMinimumSize + len(p))
	h := header.UDP(pkt.TransportHeader().Push(header.UDPMinimumSize))
	pkt.TransportProtocolNumber = header.UDPProtocolNumber
	h.Encode(&header.UDPFields{SrcPort: c.flow.id.LocalPort, DstPort: c.flow.id.RemotePort, Length: length})
	sum := checksum.Combine(route.PseudoHeaderChecksum(header.UDPProtocolNumber, length), pkt.Data().Checksum())
	if sum = ^h.CalculateChecksum(sum); sum == 0 {
		sum = 0xffff // zero means that there is none (RFC 768)
	}
	h.SetChecksum(sum)
	params := stack.NetworkHeaderParams{Protocol: header.UDPProtocolNumber, TTL: route.DefaultTTL()}
	if err := route.WritePacket(params, pkt); err != nil {
		return 0, opError("write", err)
	}
	c.touch()
	c.stack.counters.toPrograms.Add(uint64(len(p)))
	return len(p), nil
}

// acquire returns the route, to be released, unless the flow has ended.
func (c *UDPConn) acquire() (*stack.Route, error) {
	select {
	case <-c.writeDeadline.done():
		return nil, os.ErrDeadlineExceeded
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, net.ErrClosed
	}
	c.route.Acquire()
	return c.route, nil
}

// Close ends the flow. Its next datagram begins another.
func (c *UDPConn) Close() error {
	c.end()
	return nil
}

// Reject ends the flow as Close does, and makes the next call on the program's
// connected socket fail: with EACCES (over IPv4 EHOSTUNREACH) when err is that,
// else with ECONNREFUSED.
func (c *UDPConn) Reject(err error) {
	if !c.end() {
		return
	}
	// Kernels keep messages about an unreachable host or network from
	// datagram sockets, which would then wait for an answer that cannot come.
	kind, _ := unreachableFor(err)
	if kind != unreachableProhibited {
		kind = unreachablePort
	}
	c.stack.counters.udpRejected.Add(1)
	c.stack.opts.Log.Debug("netstack: datagrams rejected", "destination", c.Destination(), "err", err)
	c.stack.sendUnreachable(c.flow, kind)
}

// end closes the flow, and reports whether this call did.
func (c *UDPConn) end() bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	c.closed = true
	c.idle.Stop()
	c.releaseLocked(c.queued)
	c.queue = nil
	c.route.Release()
	c.cancel()
	c.mu.Unlock()
	c.readDeadline.stop()
	c.writeDeadline.stop()
	c.stack.udp.remove(c)
	return true
}

// LocalAddr is the address the program sends to.
func (c *UDPConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.Destination()) }

// RemoteAddr is the program's address.
func (c *UDPConn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.Source()) }

func (c *UDPConn) SetDeadline(t time.Time) error {
	c.readDeadline.set(t)
	c.writeDeadline.set(t)
	return nil
}

func (c *UDPConn) SetReadDeadline(t time.Time) error {
	c.readDeadline.set(t)
	return nil
}

func (c *UDPConn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.set(t)
	return nil
}
