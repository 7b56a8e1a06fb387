package nonblock

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// NewConn wraps a connection, which is not to be used otherwise then.
func NewConn(c net.Conn) *Conn {
	w := &Conn{Conn: c}
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return w
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return w
	}
	w.in.raw, w.out.raw = raw, raw
	w.in.call = func(fd uintptr) bool { return w.in.try(Readv, fd) }
	w.out.call = func(fd uintptr) bool { return w.out.try(Writev, fd) }
	w.in.wait, w.out.wait = raw.Read, raw.Write
	w.in.op, w.out.op = "read", "write"
	return w
}

// transfer is one direction. Its functions are bound once, because a closure
// per call would be garbage per call.
type transfer struct {
	sync.Mutex                 // held during a call
	raw        syscall.RawConn // nil: not in this way
	op         string
	wait       func(func(fd uintptr) bool) error
	call       func(fd uintptr) bool

	bufs [][]byte // of the call under way, like those below
	one  [1][]byte
	n    int
	err  error
}

// do makes one successful call.
func (t *transfer) do(bufs [][]byte) (int, error) {
	t.bufs = bufs
	err := t.wait(t.call)
	t.bufs = nil
	switch {
	case err != nil: // closed, or past the deadline
		return 0, err
	case t.err != nil:
		return 0, os.NewSyscallError(t.op, t.err)
	case t.n == 0 && t.op == "read":
		return 0, io.EOF
	}
	return t.n, nil
}

// try makes one attempt; false means that the descriptor is not ready.
func (t *transfer) try(call func(uintptr, [][]byte) (int, error), fd uintptr) bool {
	t.n, t.err = call(fd, t.bufs)
	return t.err != syscall.EAGAIN
}
