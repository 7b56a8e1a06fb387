package ws

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/nonblock"
)

// Message is a text message in up to three parts, so that a part that many
// connections send need not be copied for each. All parts are borrowed until
// Owner is released. On a client's connection the parts are overwritten (masked)
// and must not be shared.
type Message struct {
	Head, Body, Tail []byte
	Owner            Releaser // or nil
}

// Releaser is told when a message has been written or given up.
type Releaser interface{ Release() }

func (m *Message) size() int { return len(m.Head) + len(m.Body) + len(m.Tail) }

func (m *Message) release() {
	if m.Owner != nil {
		m.Owner.Release()
	}
}

const (
	// maxControl bounds the control frames that wait. Beyond it pongs are
	// dropped: a peer that sends pings faster than it reads gets no more.
	maxControl = 1024
	// batchBytes is how much is gathered for one system call. It is also what a
	// slow peer has to take within the write timeout.
	batchBytes = 64 << 10
)

var (
	errSlow  = errors.New("ws: the peer takes nothing")
	errEnded = fmt.Errorf("ws: ended by the peer: %w", net.ErrClosed)
)

// outbox is the queue of a connection and its writer.
type outbox struct {
	conn    *nonblock.Conn
	mask    bool
	timeout time.Duration // for one batch
	done    chan struct{} // the writer has ended
	closing chan struct{} // closed together with err being set
	over    chan struct{} // closed when there is nothing to linger for

	mu      sync.Mutex
	wake    sync.Cond
	queue   []Message // from head on
	head    int
	frames  []byte    // control frames
	bytes   int       // of messages queued and being written
	moved   time.Time // when the queue began to fill, or something was last written
	room    chan struct{}
	err     error // why nothing more is taken; nil while open
	aborted bool  // do not write what is queued
	isOver  bool  // over is closed
	lingers bool  // a close frame was sent that deserves an answer
	until   time.Time
}

func newOutbox(conn *nonblock.Conn, mask bool, timeout time.Duration) *outbox {
	o := &outbox{conn: conn, mask: mask, timeout: timeout, done: make(chan struct{}), closing: make(chan struct{}), over: make(chan struct{})}
	o.wake.L = &o.mu
	return o
}

func (o *outbox) add(m Message, limit int) (<-chan struct{}, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return nil, o.err
	}
	n := m.size()
	if o.bytes > 0 && o.bytes+n > limit {
		if o.room == nil {
			o.room = make(chan struct{})
		}
		return o.room, nil
	}
	if o.bytes == 0 {
		o.moved = time.Now()
	}
	o.bytes += n
	o.queue = append(o.queue, m)
	o.wake.Signal()
	return nil, nil
}

func (o *outbox) queued() (bytes int, stalled time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bytes == 0 {
		return 0, 0
	}
	return o.bytes, time.Since(o.moved)
}

// control takes a control frame from coder/websocket, masked where it must be.
func (o *outbox) control(frame []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	o.frame(frame)
	return nil
}

func (o *outbox) frame(frame []byte) {
	if len(o.frames)+len(frame) <= maxControl {
		o.frames = append(o.frames, frame...)
		o.wake.Signal()
	}
}

func (o *outbox) ping() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.frame(controlFrame(opPing, nil, o.mask))
	}
}

// finish lets the writer send what is queued and a close frame (unless code is
// 0) within a second, and then end. Others get err as the reason.
func (o *outbox) finish(err error, code uint16, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return
	}
	o.endLocked(err)
	if code != 0 {
		payload := binary.BigEndian.AppendUint16(nil, code)
		payload = append(payload, reason[:min(len(reason), 123)]...)
		o.queue = append(o.queue, Message{Body: payload, Owner: closeFrame{}})
		o.bytes += len(payload)
		o.lingers = true
	}
	o.until = time.Now().Add(closeGrace)
	o.conn.SetWriteDeadline(o.until)
}

// closeFrame marks the message that is not text.
type closeFrame struct{}

func (closeFrame) Release() {}

// peerDone is called when nothing more will be read.
func (o *outbox) peerDone() {
	o.finish(errEnded, 0, "")
	o.mu.Lock()
	defer o.mu.Unlock()
	o.overLocked()
}

func (o *outbox) overLocked() {
	if !o.isOver {
		o.isOver = true
		close(o.over)
	}
}

// fail ends the connection at once.
func (o *outbox) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.endLocked(err)
	}
	o.aborted = true
	o.overLocked()
	o.wake.Signal()
	o.conn.Close()
}

func (o *outbox) endLocked(err error) {
	o.err = err
	close(o.closing)
	o.wake.Signal()
	o.signalRoomLocked()
}

func (o *outbox) signalRoomLocked() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// cause is the error the connection ended with, net.ErrClosed when we ended it in
// order, errEnded when coder/websocket did, nil while it is open.
func (o *outbox) cause() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// run is the writer. It ends when the outbox has failed, or has been finished and
// is empty, and closes the network connection.
func (o *outbox) run() {
	defer close(o.done)
	gather := !o.conn.Vectors()
	for o.wait() {
		b := newBatch(gather)
		o.fill(b)
		if err := b.write(o.conn); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = fmt.Errorf("%w for %v", errSlow, o.timeout)
			}
			o.fail(err)
		}
		o.release(b)
		b.free()
	}
	if o.lingers { // constant from here on
		o.linger()
	}
	o.conn.Close()
	o.mu.Lock()
	defer o.mu.Unlock()
	for ; o.head < len(o.queue); o.head++ {
		o.queue[o.head].release()
	}
	o.queue, o.frames, o.bytes = nil, nil, 0
}

// linger gives the peer time to take our farewell and to answer it. Closing at
// once, with input unread, would reset the connection and destroy it.
func (o *outbox) linger() {
	t := time.NewTimer(time.Until(o.until))
	defer t.Stop()
	select {
	case <-o.over:
	case <-t.C:
	}
}

// wait reports whether there is something to write, and false when there will
// be nothing more.
func (o *outbox) wait() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.aborted && o.head == len(o.queue) && len(o.frames) == 0 {
		if o.err != nil {
			return false
		}
		o.wake.Wait()
	}
	return !o.aborted
}

// fill moves what is to be written next to the batch.
func (o *outbox) fill(b *batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b.copy(o.frames)
	o.frames = o.frames[:0]
	for o.head < len(o.queue) && b.size < batchBytes && b.fits() {
		b.message(o.queue[o.head], o.mask)
		o.queue[o.head] = Message{}
		o.head++
	}
	if o.head == len(o.queue) {
		o.queue, o.head = o.queue[:0], 0
		if cap(o.queue) > 256 {
			o.queue = nil // a burst is over
		}
	} else if o.head >= 64 && o.head*2 >= len(o.queue) {
		n := copy(o.queue, o.queue[o.head:])
		clear(o.queue[n:])
		o.queue, o.head = o.queue[:n], 0
	}
	deadline := o.until
	if deadline.IsZero() {
		deadline = time.Now().Add(o.timeout)
	}
	o.conn.SetWriteDeadline(deadline)
}

func (o *outbox) release(b *batch) {
	n := 0
	for i := range b.messages {
		n += b.messages[i].size()
		b.messages[i].release()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes -= n
	o.moved = time.Now()
	o.signalRoomLocked()
}
