package netstack

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nws-vpn/nws-vpn/internal/splice"
	"github.com/nws-vpn/nws-vpn/tun"
)

// Programs that vanish without a FIN (a namespace taken down, a lost reset)
// are found out by keep-alives, which cost nothing here.
const (
	keepAliveIdle     = 5 * time.Minute
	keepAliveInterval = 15 * time.Second
)

// tcpConn is an accepted connection.
type tcpConn struct {
	stack *Stack
	id    stack.TransportEndpointID
	ep    tcpip.Endpoint
	queue *waiter.Queue

	readable, writable           chan struct{}
	onReadable, onWritable, onUp waiter.Entry
	deadlines

	readMu sync.Mutex // one Read at a time
	sink   tcpip.SliceWriter

	writeMu   sync.Mutex // one Write at a time
	payload   bytes.Reader
	writeSize int

	closing sync.Once
	closed  chan struct{}

	// lost ends when the connection has failed, for whoever waits for
	// something else on its behalf.
	lost context.Context
	lose context.CancelCauseFunc

	// The flow counts as open until both we and gVisor are done with it.
	gone    sync.Once
	holders atomic.Int32
}

var (
	_ splice.Conn    = (*tcpConn)(nil)
	_ splice.Aborter = (*tcpConn)(nil)
	_ io.WriterTo    = (*tcpConn)(nil)
)

func newTCPConn(s *Stack, id stack.TransportEndpointID, ep tcpip.Endpoint, queue *waiter.Queue) *tcpConn {
	c := &tcpConn{
		stack: s, id: id, ep: ep, queue: queue,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		deadlines: newDeadlines(),
		writeSize: writeSize(s.link.MTU(), id),
		closed:    make(chan struct{}),
	}
	c.holders.Store(2)
	c.lost, c.lose = context.WithCancelCause(s.ctx)
	c.keepAlive()
	c.onReadable.Init(waiter.ChannelNotifier(c.readable), waiter.ReadableEvents)
	c.onWritable.Init(waiter.ChannelNotifier(c.writable), waiter.WritableEvents)
	c.onUp = waiter.NewFunctionEntry(waiter.EventHUp, func(waiter.EventMask) { c.watch() })
	for _, e := range []*waiter.Entry{&c.onReadable, &c.onWritable, &c.onUp} {
		queue.EventRegister(e)
	}
	c.watch() // what happened before
	return c
}

// writeSize is how much to give gVisor at a time: as many whole segments as
// the kernel cuts out of one packet. A little more would leave a packet of a
// few bytes after each.
func writeSize(mtu uint32, id stack.TransportEndpointID) int {
	const (
		most       = tun.MaxPacket - header.TCPTotalHeaderMaximumSize - 1
		timestamps = 12
	)
	segment := int(mtu) - header.IPv4MinimumSize - header.TCPMinimumSize - timestamps
	if id.LocalAddress.Len() == header.IPv6AddressSize {
		segment -= header.IPv6MinimumSize - header.IPv4MinimumSize
	}
	if segment > most {
		return most
	}
	return most - most%segment
}

func (c *tcpConn) keepAlive() {
	idle, interval := tcpip.KeepaliveIdleOption(keepAliveIdle), tcpip.KeepaliveIntervalOption(keepAliveInterval)
	// Neither can fail on a TCP endpoint, and without them the flow works.
	_ = c.ep.SetSockOpt(&idle)
	_ = c.ep.SetSockOpt(&interval)
	c.ep.SocketOptions().SetKeepAlive(true)
}

// watch notes the connection's end. gVisor calls it with its locks held.
func (c *tcpConn) watch() {
	switch tcp.EndpointState(c.ep.State()) {
	case tcp.StateError:
		c.lose(syscall.ECONNRESET)
	case tcp.StateClose:
	default:
		return
	}
	c.gone.Do(c.letGo)
}

func (c *tcpConn) letGo() {
	if c.holders.Add(-1) == 0 {
		c.lose(nil)
		c.stack.tcp.release()
	}
}

// wait blocks until event, the deadline or the connection's close.
func (c *tcpConn) wait(event <-chan struct{}, d *deadline) error {
	select {
	case <-event:
		return nil
	case <-c.closed:
		return net.ErrClosed
	case <-d.done():
		return os.ErrDeadlineExceeded
	}
}

func (c *tcpConn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// check returns the reason for which a call must not begin.
func (c *tcpConn) check(d *deadline) error {
	select {
	case <-c.closed:
		return net.ErrClosed
	case <-d.done():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// fail turns gVisor's error into the caller's. gVisor tells the reason of a
// lost connection to one caller only; to the next it says that the stream has
// ended, and nobody may take that for the end of a whole one.
func (c *tcpConn) fail(op string, err tcpip.Error) error {
	if c.isClosed() {
		return net.ErrClosed
	}
	if tcp.EndpointState(c.ep.State()) == tcp.StateError {
		switch err.(type) {
		case *tcpip.ErrClosedForReceive, *tcpip.ErrClosedForSend:
			err = &tcpip.ErrConnectionReset{}
		}
	}
	return opError(op, err)
}

func (c *tcpConn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for {
		if err := c.check(&c.deadlines.read); err != nil {
			return 0, err
		}
		n, wait, err := c.readNow(p)
		if !wait {
			return n, err
		}
		if err := c.wait(c.readable, &c.deadlines.read); err != nil {
			return 0, err
		}
	}
}

// readNow reads what is there; wait says that nothing is.
func (c *tcpConn) readNow(p []byte) (n int, wait bool, err error) {
	if len(p) == 0 {
		return 0, false, nil
	}
	c.sink = p
	res, terr := c.ep.Read(&c.sink, tcpip.ReadOptions{})
	c.sink = nil
	if _, ok := terr.(*tcpip.ErrWouldBlock); ok {
		return 0, true, nil
	}
	if terr != nil {
		return 0, false, c.fail("read", terr)
	}
	c.stack.counters.fromPrograms.Add(uint64(res.Count))
	return res.Count, false, nil
}

// WriteTo implements io.WriterTo. It takes a buffer only while it moves data:
// gVisor cannot write to w by itself, because it would hold the connection's
// lock as long as w blocks.
func (c *tcpConn) WriteTo(w io.Writer) (total int64, err error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for {
		n, err := c.moveOnce(w)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// awaitReadable waits until there is something to read, be it the end.
func (c *tcpConn) awaitReadable() error {
	for {
		if err := c.check(&c.deadlines.read); err != nil {
			return err
		}
		if c.ep.Readiness(waiter.ReadableEvents) != 0 {
			return nil
		}
		if err := c.wait(c.readable, &c.deadlines.read); err != nil {
			return err
		}
	}
}

func (c *tcpConn) moveOnce(w io.Writer) (int, error) {
	if err := c.awaitReadable(); err != nil {
		return 0, err
	}
	buf := copyBuffers.Get().(*[copyBufferSize]byte)
	defer copyBuffers.Put(buf)
	n, _, err := c.readNow(buf[:])
	if n == 0 {
		return 0, err
	}
	return w.Write(buf[:n])
}

const copyBufferSize = 64 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBufferSize]byte) }}

func (c *tcpConn) Write(p []byte) (total int, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	defer c.payload.Reset(nil)
	for {
		if err := c.check(&c.deadlines.write); err != nil {
			return total, err
		}
		c.payload.Reset(p[:min(len(p), c.writeSize)])
		n, terr := c.ep.Write(&c.payload, tcpip.WriteOptions{})
		total, p = total+int(n), p[n:]
		c.stack.counters.toPrograms.Add(uint64(n))
		_, block := terr.(*tcpip.ErrWouldBlock)
		switch {
		case terr != nil && !block:
			return total, c.fail("write", terr)
		case len(p) == 0:
			return total, nil
		case n > 0:
			continue
		}
		if err := c.wait(c.writable, &c.deadlines.write); err != nil {
			return total, err
		}
	}
}

// CloseWrite sends a FIN.
func (c *tcpConn) CloseWrite() error {
	if c.stack.ctx.Err() != nil {
		c.Abort(nil)
		return net.ErrClosed
	}
	if err := c.ep.Shutdown(tcpip.ShutdownWrite); err != nil {
		return c.fail("close for writing", err)
	}
	return nil
}

// Close sends a FIN, or a reset if something was left unread. What has been
// written is still delivered. While the stack closes it sends a reset: nobody is
// left to deliver anything.
func (c *tcpConn) Close() error {
	if c.stack.ctx.Err() != nil {
		c.finish(c.ep.Abort)
	} else {
		c.finish(c.ep.Close)
	}
	return nil
}

// Abort sends a reset. What has been written and not delivered is lost.
func (c *tcpConn) Abort(error) {
	c.finish(c.ep.Abort)
}

func (c *tcpConn) finish(end func()) {
	c.closing.Do(func() {
		close(c.closed)
		end()
		c.deadlines.stop()
		c.letGo()
	})
}

// LocalAddr is the address the program connected to.
func (c *tcpConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(destination(c.id)) }

// RemoteAddr is the program's address.
func (c *tcpConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(source(c.id)) }
