package compat

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// ReverseListener takes the connections that exits make for CONNECTR, and knows
// them by the UUID that they begin with: only the exit has been told it. Several
// Entries may share one.
//
// What passes on such a connection is neither encrypted nor authenticated: who
// is on the way sees and can alter it, UUID included.
type ReverseListener struct {
	listener net.Listener
	address  string
	reading  chan struct{} // a token for each connection that has not said its UUID
	wg       sync.WaitGroup

	mu      sync.Mutex
	waiting map[wire.UUID]chan<- net.Conn
	pending map[net.Conn]struct{}
	closed  bool

	taken, strangers, dropped atomic.Uint64
}

const (
	maxReverseReading = 64
	maxReverseWaiting = 1024
	// introduction is how long a connection may take to say its UUID.
	introduction = 5 * time.Second
)

// NewReverseListener returns one that accepts on l and is offered to exits as
// address, host:port.
func NewReverseListener(l net.Listener, address string) *ReverseListener {
	return &ReverseListener{
		listener: l, address: address,
		reading: make(chan struct{}, maxReverseReading),
		waiting: make(map[wire.UUID]chan<- net.Conn),
		pending: make(map[net.Conn]struct{}),
	}
}

// ReverseStats count the connections of a ReverseListener.
type ReverseStats struct {
	Taken     uint64 // for a stream
	Strangers uint64 // that named none, or none in time
	Dropped   uint64 // for want of room
}

// Stats returns the present counts.
func (l *ReverseListener) Stats() ReverseStats {
	return ReverseStats{Taken: l.taken.Load(), Strangers: l.strangers.Load(), Dropped: l.dropped.Load()}
}

// Serve accepts until ctx ends, and returns when nothing of that is left but the
// streams. It closes the listener.
func (l *ReverseListener) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.listener.Close() })
	defer stop()
	defer l.wg.Wait()
	defer l.hangUp()
	for {
		conn, err := l.listener.Accept()
		switch {
		case err == nil:
			l.take(conn)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return err
		default: // no sockets left, perhaps
			sleep(ctx, 100*time.Millisecond)
		}
	}
}

// take hears what a new connection is for, in a goroutine of its own.
func (l *ReverseListener) take(conn net.Conn) {
	select {
	case l.reading <- struct{}{}:
		l.wg.Go(func() {
			defer func() { <-l.reading }()
			l.meet(conn)
		})
	default:
		l.dropped.Add(1)
		conn.Close()
	}
}

// hangUp closes what has not become a stream.
func (l *ReverseListener) hangUp() {
	l.listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for conn := range l.pending {
		conn.Close()
	}
}

// meet reads which stream a connection is, and gives it to who waits for it.
func (l *ReverseListener) meet(conn net.Conn) {
	l.mu.Lock()
	l.pending[conn] = struct{}{}
	if l.closed {
		conn.Close()
	}
	l.mu.Unlock()
	conn.SetDeadline(time.Now().Add(introduction))
	var text [uuidText]byte
	_, err := io.ReadFull(conn, text[:])
	var id wire.UUID
	if err == nil {
		id, err = wire.ParseUUID(string(text[:]))
	}
	stream := l.claim(conn, id, err == nil)
	if stream == nil {
		l.strangers.Add(1)
		conn.Close()
		return
	}
	if _, err := conn.Write([]byte{reverseTake}); err != nil {
		conn.Close()
		stream <- nil
		return
	}
	conn.SetDeadline(time.Time{})
	l.taken.Add(1)
	stream <- conn
}

// claim returns who waits for the stream, if anybody; the first connection
// that names it is it.
func (l *ReverseListener) claim(conn net.Conn, id wire.UUID, named bool) chan<- net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, conn)
	if !named || l.closed {
		return nil
	}
	stream := l.waiting[id]
	delete(l.waiting, id)
	return stream
}

// expected is a connection that an exit was asked for.
type expected struct {
	of   *ReverseListener
	id   wire.UUID
	conn chan net.Conn // gets exactly one once it is not in of.waiting; nil is one that broke
}

// expect has the connection for a stream taken. wait must follow.
func (l *ReverseListener) expect(id wire.UUID) (*expected, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.waiting) >= maxReverseWaiting {
		return nil, &wire.Error{Code: wire.CodeBusy, Text: "no more connections from exits are taken"}
	}
	x := &expected{l, id, make(chan net.Conn, 1)}
	l.waiting[id] = x.conn
	return x, nil
}

// wait returns the connection, or an error when ctx ends first. Then the
// connection is not taken any more.
func (x *expected) wait(ctx context.Context) (net.Conn, error) {
	select {
	case conn := <-x.conn:
		if conn == nil {
			return nil, &wire.Error{Code: wire.CodeReset, Text: "the connection that the exit made broke"}
		}
		return conn, nil
	case <-ctx.Done():
	}
	x.of.mu.Lock()
	_, still := x.of.waiting[x.id]
	delete(x.of.waiting, x.id)
	x.of.mu.Unlock()
	if !still {
		if conn := <-x.conn; conn != nil {
			conn.Close()
		}
	}
	return nil, ctx.Err()
}
