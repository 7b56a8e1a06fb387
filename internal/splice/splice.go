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
	"io"
	"net"
	"sync"
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

// Join copies from a to b and from b to a until both directions have ended,
// then closes both. The end of one direction is passed on with CloseWrite (or,
// on a connection that cannot half-close, with Close). An error in either
// direction aborts both connections, so that neither peer takes a broken
// transfer for a whole one; Join returns the first such error.
//
// Join blocks; close or abort either connection to end it early.
func Join(a, b net.Conn) (Stats, error) {
	var (
		s     Stats
		first error
		once  sync.Once
		done  = make(chan struct{})
	)
	fail := func(err error) {
		once.Do(func() { first = err })
		Abort(a, err)
		Abort(b, err)
	}
	go func() {
		defer close(done)
		var err error
		if s.BToA, err = pipe(a, b); err != nil {
			fail(err)
		}
	}()
	var err error
	if s.AToB, err = pipe(b, a); err != nil {
		fail(err)
	}
	<-done
	a.Close()
	b.Close()
	return s, first
}

// pipe copies src to dst until src ends, then ends dst's sending half.
func pipe(dst, src net.Conn) (int64, error) {
	n, err := copyTo(dst, src)
	if err != nil {
		return n, err
	}
	return n, closeWrite(dst)
}

func copyTo(dst, src net.Conn) (int64, error) {
	if w, ok := src.(io.WriterTo); ok && !isKernelConn(src) {
		return w.WriteTo(dst)
	}
	if n, handled, err := copyRaw(dst, src); handled {
		return n, err
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	// The struct hides ReadFrom and WriteTo: they would allocate buffers of
	// their own.
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf[:])
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
