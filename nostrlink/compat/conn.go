package compat

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

const (
	// maxUnsent is how much a stream buffers before Write waits.
	maxUnsent = 64 << 10
	// afterEnd is how long a stream whose writing half is closed waits for what
	// may still come. The other end cannot know, and cannot say that it has
	// finished.
	afterEnd = 30 * time.Second
	// linger is how long a closed stream may take to send what was written.
	linger = 30 * time.Second
)

// Conn is one stream. All methods are safe for concurrent use.
//
// A Read never gives io.EOF: the protocol cannot say that the other end has
// finished. It fails with a *wire.Error once the stream has ended, for one that
// fell silent with wire.CodeTimedOut; what arrived before can still be read.
// Write buffers, and an error of sending comes with a later call. After Close
// both fail with net.ErrClosed, past a deadline with os.ErrDeadlineExceeded.
type Conn struct {
	id   wire.UUID
	peer envelope.PublicKey
	dest string // what an entry repeats in every message
	of   *end

	ctx    context.Context // of sending
	cancel context.CancelFunc
	opened chan struct{} // closed when the request is sent, or nil

	mu       sync.Mutex
	readable sync.Cond
	writable sync.Cond

	in      [][]byte // what waits for the reader
	inCost  int      // of it, as counted in end.buffered
	out     []byte   // what waits to be sent
	request *wire.Message
	speaks  string // the type of data messages

	pumping   bool      // the goroutine that sends is there
	notBefore time.Time // the next message leaves
	writing   bool      // a Write is under way
	fin       bool      // nothing more is written
	closed    bool      // by its user
	over      bool      // nothing more is sent or received
	err       error     // why it is over

	seen            seen
	answered        bool      // something was heard
	heard, active   time.Time // something came; something came or went
	timer           *time.Timer
	readBy, writeBy deadline
}

var (
	_ splice.Conn    = (*Conn)(nil)
	_ splice.Aborter = (*Conn)(nil)
)

func (e *end) newConn(id wire.UUID, peer envelope.PublicKey) *Conn {
	c := &Conn{id: id, peer: peer, of: e}
	c.ctx, c.cancel = context.WithCancel(e.ctx)
	c.readable.L, c.writable.L = &c.mu, &c.mu
	c.heard = e.now()
	c.active = c.heard
	return c
}

// watch starts the clock.
func (c *Conn) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.timer = time.AfterFunc(c.due().Sub(c.of.now()), c.check)
	}
}

// due is when the stream ends if nothing happens. c.mu is held.
func (c *Conn) due() time.Time {
	idle := c.of.opts.Idle
	if !c.answered && c.of.unheard > 0 {
		idle = min(idle, c.of.unheard)
	}
	if c.fin {
		idle = min(idle, afterEnd)
	}
	due := c.active.Add(idle)
	if silence := c.of.silence; silence > 0 {
		if by := c.heard.Add(silence); by.Before(due) {
			due = by
		}
	}
	return due
}

func (c *Conn) check() {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return
	}
	if left := c.due().Sub(c.of.now()); left > 0 {
		c.timer.Reset(left)
		c.mu.Unlock()
		return
	}
	text := "nothing passed for too long"
	if !c.answered && c.of.unheard > 0 {
		text = "nothing came back: refused, unreachable, or the exit is gone"
	}
	c.mu.Unlock()
	if c.end(&wire.Error{Code: wire.CodeTimedOut, Text: text}) {
		c.of.timedOut.Add(1)
	}
}

// end ends the stream with err, unless it has ended. No lock is held.
func (c *Conn) end(err error) bool {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return false
	}
	c.over, c.err = true, err
	c.out, c.request = nil, nil
	if c.timer != nil {
		c.timer.Stop()
	}
	c.readable.Broadcast()
	c.writable.Broadcast()
	c.mu.Unlock()
	c.cancel()
	c.of.forget(c)
	c.of.opts.Log.Debug("nws stream ended", "stream", c.id.String(), "err", err)
	return true
}

// bufferCost is what a message in the buffer costs besides its bytes.
const bufferCost = 64

// deliver takes a message that arrived. It returns an error that the stream
// ends with: the caller calls end when it holds no lock.
func (c *Conn) deliver(in Incoming) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	books := &c.of.books
	if c.over {
		books.unknown.Add(1)
		return nil
	}
	if !c.seen.add(in.ID, in.CreatedAt) {
		books.repeated.Add(1)
		return nil
	}
	c.heard = c.of.now()
	c.active = c.heard
	if in.Message.Type == wire.TypeData || in.Message.Type == wire.TypeSocks5Response {
		c.speaks = in.Message.Type
		c.answered = true
	}
	data := in.Message.Data
	if len(data) == 0 || c.closed {
		return nil
	}
	cost := len(data) + bufferCost
	total := c.of.buffered.Add(int64(cost))
	if c.inCost+cost > c.of.opts.MaxBuffer || total > int64(c.of.opts.MaxBuffered) {
		c.of.buffered.Add(-int64(cost))
		books.overflowed.Add(1)
		return &wire.Error{Code: wire.CodeFlowControl, Text: "more came than was read, and the protocol cannot ask the other end to wait"}
	}
	c.inCost += cost
	c.in = append(c.in, data)
	books.received.Add(uint64(len(data)))
	c.readable.Broadcast()
	return nil
}

// knows reports whether the message came before.
func (c *Conn) knows(in Incoming) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen.has(in.ID)
}

// Read reads into p. It waits until there is something.
func (c *Conn) Read(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for len(c.in) == 0 || c.closed || c.readBy.passed(c.of.now()) {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.readBy.passed(c.of.now()):
			return 0, os.ErrDeadlineExceeded
		case c.over:
			return 0, c.err
		}
		c.readable.Wait()
	}
	for n < len(p) && len(c.in) > 0 {
		m := copy(p[n:], c.in[0])
		n += m
		if c.in[0] = c.in[0][m:]; len(c.in[0]) == 0 {
			c.in[0] = nil
			c.in = c.in[1:]
			m += bufferCost
		}
		c.inCost -= m
		c.of.buffered.Add(-int64(m))
	}
	return n, nil
}

// discard drops what waits for the reader. c.mu is held.
func (c *Conn) discard() {
	c.of.buffered.Add(-int64(c.inCost))
	c.in, c.inCost = nil, 0
}

// Write writes p. It waits while the buffer is full.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.writing { // writes do not mix
		if err := c.writeError(); err != nil {
			return 0, err
		}
		c.writable.Wait()
	}
	c.writing = true
	defer func() {
		c.writing = false
		c.writable.Broadcast()
	}()
	for {
		if err := c.writeError(); err != nil {
			return n, err
		}
		m := min(len(p)-n, maxUnsent-len(c.out))
		c.out = append(c.out, p[n:n+m]...)
		n += m
		c.pump()
		if n == len(p) {
			return n, nil
		}
		c.writable.Wait()
	}
}

func (c *Conn) writeError() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.writeBy.passed(c.of.now()):
		return os.ErrDeadlineExceeded
	case c.over:
		return c.err
	case c.fin:
		return syscall.EPIPE
	}
	return nil
}

// CloseWrite ends writing. What was written is still sent, and reading goes on,
// but the other end cannot be told: the stream ends when nothing has passed for
// 30 seconds.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.fin = true
	c.active = c.of.now()
	c.hurry()
	c.writable.Broadcast()
	return nil
}

// hurry sets the clock, which may be due earlier now. c.mu is held.
func (c *Conn) hurry() {
	if c.timer != nil && !c.over {
		c.timer.Reset(c.due().Sub(c.of.now()))
	}
}

// Close ends the stream here; the other end cannot be told. What was written is
// still sent, for 30 seconds at most.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed, c.fin = true, true
	c.discard()
	c.readable.Broadcast()
	c.writable.Broadcast()
	sending := c.pumping && !c.over
	if sending && c.timer != nil {
		c.timer.Stop()
		c.timer = time.AfterFunc(linger, func() { c.end(net.ErrClosed) })
	}
	c.mu.Unlock()
	if !sending {
		c.end(net.ErrClosed)
	}
	return nil
}

// Abort ends the stream here and drops what was not sent; the other end cannot
// be told.
func (c *Conn) Abort(err error) {
	if err == nil {
		err = net.ErrClosed
	}
	c.end(err)
	c.Close()
}

// LocalAddr is the stream's UUID.
func (c *Conn) LocalAddr() net.Addr { return addr(c.id.String()) }

// RemoteAddr is the peer's npub.
func (c *Conn) RemoteAddr() net.Addr { return addr(c.peer.NPub()) }

type addr string

func (addr) Network() string  { return "nws" }
func (a addr) String() string { return string(a) }

// SetDeadline sets both deadlines; the zero time is none.
func (c *Conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline makes reads fail after t.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.readBy, &c.readable, t) }

// SetWriteDeadline makes writes fail after t.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeBy, &c.writable, t) }

func (c *Conn) setDeadline(d *deadline, waiting *sync.Cond, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at = t
	waiting.Broadcast()
	if left := t.Sub(c.of.now()); !t.IsZero() && left > 0 {
		d.timer = time.AfterFunc(left, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			waiting.Broadcast()
		})
	}
	return nil
}

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed(now time.Time) bool { return !d.at.IsZero() && !now.Before(d.at) }
