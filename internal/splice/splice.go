// Package splice joins two connections: what one sends, the other receives,
// in both directions, until both have ended.
//
// It is the one copy loop that both ends of a link share, so it keeps the
// promises an application relies on without knowing of us: a FIN on one side
// becomes a FIN on the other while the opposite direction goes on (half-close),
// a reset becomes a reset, and a flow that is idle holds no copy buffer.
package splice

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is a connection whose sending half can be closed on its own.
// *net.TCPConn, *net.UnixConn, *tls.Conn and the project's streams are Conns.
type Conn interface {
	net.Conn
	// CloseWrite sends the end of the stream; reading goes on.
	CloseWrite() error
}

// Aborter is a connection that can be torn down so that its peer sees a reset
// instead of an orderly end. Abort releases the connection as Close does, is
// safe to call at any time and from any goroutine, and only its first call
// has an effect. err is the cause, which an implementation may pass on.
type Aborter interface {
	Abort(err error)
}

// Stats says how many bytes Join carried in each direction.
type Stats struct {
	AToB, BToA int64
}

// halfIdle is how long a connection of which one side has ended may be silent,
// up to twice that: the other side may have gone without a word, and whoever
// is left to answer may never do so (RFC 5382, REQ-5, asks for 4 minutes).
const halfIdle = 10 * time.Minute

// Join copies from a to b and from b to a until both directions have ended,
// then closes both. The end of one direction is passed on with CloseWrite (or,
// on a connection that cannot half-close, with Close). An error in either
// direction aborts both connections, so that neither peer takes a broken
// transfer for a whole one; Join returns the first such error. So does silence,
// once one direction has ended and nothing has passed in the other for 10
// minutes: then the error is syscall.ETIMEDOUT.
//
// Join blocks; close or abort either connection to end it early.
func Join(a, b net.Conn) (Stats, error) { return joinFor(a, b, halfIdle) }

func joinFor(a, b net.Conn, idle time.Duration) (Stats, error) {
	j := joint{a: a, b: b, idle: idle}
	aToB, bToA := make(chan struct{}), make(chan struct{})
	var s Stats
	var both sync.WaitGroup
	both.Go(func() {
		s.BToA = j.pipe(a, b)
		close(bToA)
		j.wait(aToB)
	})
	s.AToB = j.pipe(b, a)
	close(aToB)
	j.wait(bToA)
	both.Wait()
	a.Close()
	b.Close()
	return s, j.err
}

// joint is what the two directions share.
type joint struct {
	a, b net.Conn
	idle time.Duration

	moves atomic.Int64 // writes in both directions

	once sync.Once
	err  error // the first
}

func (j *joint) fail(err error) {
	j.once.Do(func() { j.err = err })
	Abort(j.a, err)
	Abort(j.b, err)
}

// pipe copies src to dst until src ends, then ends dst's sending half.
func (j *joint) pipe(dst, src net.Conn) int64 {
	n, err := copyTo(&mover{dst, &j.moves}, src)
	if err == nil {
		err = closeWrite(dst)
	}
	if err != nil {
		j.fail(err)
	}
	return n
}

// wait waits for the other direction, and ends it when it is silent.
func (j *joint) wait(other <-chan struct{}) {
	timer := time.NewTimer(j.idle)
	defer timer.Stop()
	for last := j.moves.Load(); ; timer.Reset(j.idle) {
		select {
		case <-other:
			return
		case <-timer.C:
		}
		moves := j.moves.Load()
		if moves == last {
			j.fail(fmt.Errorf("splice: half closed, and silent for %v: %w", j.idle, syscall.ETIMEDOUT))
			<-other
			return
		}
		last = moves
	}
}

// mover counts writes. It also hides ReadFrom, which would allocate buffers of
// its own.
type mover struct {
	to    io.Writer
	moves *atomic.Int64
}

func (m *mover) Write(p []byte) (int, error) {
	n, err := m.to.Write(p)
	m.moves.Add(1)
	return n, err
}

func copyTo(dst io.Writer, src net.Conn) (int64, error) {
	if w, ok := src.(io.WriterTo); ok && !isKernelConn(src) {
		return w.WriteTo(dst)
	}
	if n, handled, err := copyRaw(dst, src); handled {
		return n, err
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	// The struct hides WriteTo, which would allocate a buffer of its own.
	return io.CopyBuffer(dst, struct{ io.Reader }{src}, buf[:])
}

// isKernelConn reports whether c is one of the standard library's sockets,
// whose WriteTo would hold a buffer while it waits.
func isKernelConn(c net.Conn) bool {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

func closeWrite(c net.Conn) error {
	var err error
	if cw, ok := c.(Conn); ok {
		err = cw.CloseWrite()
	} else {
		err = c.Close()
	}
	// A peer that has gone entirely needs no FIN. What it left unread was
	// its choice, and the other direction reports a reset if there was one.
	if errors.Is(err, net.ErrClosed) || isNotConnected(err) {
		return nil
	}
	return err
}

// Abort tears c down so that its peer sees a reset where the transport can
// express one: by its Abort method, by a zero linger on a TCP socket, else by
// Close.
func Abort(c net.Conn, err error) {
	switch c := c.(type) {
	case Aborter:
		c.Abort(err)
	case *net.TCPConn:
		c.SetLinger(0)
		c.Close()
	default:
		c.Close()
	}
}

const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}
