package netstack

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// datagramConn is what flows of UDP and flows of echoes have in common: a
// bounded queue of what the program has sent, and the end that comes when
// nothing has passed for the table's idle time.
type datagramConn struct {
	stack *Stack
	table *datagramTable
	id    stack.TransportEndpointID
	route *stack.Route

	idle    *time.Timer
	touched atomic.Int64 // since Stack.started

	mu     sync.Mutex
	flow   flow // quotes the newest packet
	queue  [][]byte
	queued int // cost of the queue, in bytes
	closed bool

	arrived chan struct{}   // holds a token while the queue may have something
	ctx     context.Context // ends with the flow
	cancel  context.CancelFunc
	deadlines
}

func newDatagramConn(t *datagramTable, f flow) *datagramConn {
	route, err := t.stack.gv.FindRoute(nicID, f.id.LocalAddress, f.id.RemoteAddress, f.network, false)
	if err != nil {
		return nil
	}
	c := &datagramConn{stack: t.stack, table: t, id: f.id, flow: f, route: route,
		arrived:   make(chan struct{}, 1),
		deadlines: newDeadlines(),
	}
	c.ctx, c.cancel = context.WithCancel(t.stack.ctx)
	c.touch()
	c.mu.Lock() // expire may come before idle is set
	defer c.mu.Unlock()
	c.idle = time.AfterFunc(t.idle, c.expire)
	return c
}

func (c *datagramConn) touch() { c.touched.Store(int64(time.Since(c.stack.started))) }

func (c *datagramConn) idleFor() time.Duration {
	return time.Since(c.stack.started) - time.Duration(c.touched.Load())
}

// expire closes a flow that has been idle for long enough, else looks again.
func (c *datagramConn) expire() {
	left := c.table.idle - c.idleFor()
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
func (c *datagramConn) push(datagram []byte) bool {
	cost := len(datagram) + datagramCost
	c.touch()
	c.mu.Lock()
	defer c.mu.Unlock()
	// A queue that is empty takes any datagram, however large.
	if c.closed || c.queued > 0 && c.queued+cost > maxWaiting {
		return false
	}
	if c.table.waiting.Add(int64(cost)) > maxWaitingAll {
		c.table.waiting.Add(-int64(cost))
		return false
	}
	c.queue, c.queued = append(c.queue, datagram), c.queued+cost
	c.signalLocked()
	return true
}

func (c *datagramConn) signalLocked() {
	select {
	case c.arrived <- struct{}{}:
	default:
	}
}

// pop takes the first datagram, if there is one.
func (c *datagramConn) pop() (datagram []byte, ok bool) {
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

func (c *datagramConn) releaseLocked(cost int) {
	c.queued -= cost
	c.table.waiting.Add(-int64(cost))
}

// next waits for a datagram; it is the caller's.
func (c *datagramConn) next() ([]byte, error) {
	for {
		select {
		case <-c.deadlines.read.done():
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
		case <-c.deadlines.read.done():
			return nil, os.ErrDeadlineExceeded
		}
	}
}

// Read returns one datagram. What of it does not fit p is lost.
func (c *datagramConn) Read(p []byte) (int, error) {
	datagram, err := c.next()
	return copy(p, datagram), err
}

// WriteTo writes each datagram to w by one Write, until either fails. It holds
// no buffer while it waits.
func (c *datagramConn) WriteTo(w io.Writer) (total int64, err error) {
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

// acquire returns the route, to be released, unless the flow has ended.
func (c *datagramConn) acquire() (*stack.Route, error) {
	select {
	case <-c.deadlines.write.done():
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

// send sends a message to the program: its transport header, whose sum of the
// rest encode completes, and payload.
func (c *datagramConn) send(protocol tcpip.TransportProtocolNumber, headerSize int, payload []byte,
	encode func(h []byte, route *stack.Route, payloadSum uint16)) error {
	route, err := c.acquire()
	if err != nil {
		return err
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: headerSize + int(route.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(payload),
	})
	defer pkt.DecRef()
	h := pkt.TransportHeader().Push(headerSize)
	pkt.TransportProtocolNumber = protocol
	encode(h, route, pkt.Data().Checksum())
	params := stack.NetworkHeaderParams{Protocol: protocol, TTL: route.DefaultTTL()}
	if err := route.WritePacket(params, pkt); err != nil {
		return opError("write", err)
	}
	c.touch()
	return nil
}

// Close ends the flow. Its next datagram begins another.
func (c *datagramConn) Close() error {
	c.end()
	return nil
}

// reject ends the flow, and has the program told that its destination is
// unreachable.
func (c *datagramConn) reject(kind unreachable) {
	if c.end() {
		c.table.rejected.Add(1)
		c.stack.sendUnreachable(c.quoted(), kind)
	}
}

// quoted is the flow with its newest packet, for an ICMP error.
func (c *datagramConn) quoted() flow {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flow
}

// end closes the flow, and reports whether this call did.
func (c *datagramConn) end() bool {
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
	c.deadlines.stop()
	c.table.remove(c)
	return true
}
