//go:build unix

package splice

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/nws-vpn/nws-vpn/internal/nonblock"
)

// copyRaw copies from a kernel socket and takes a buffer only once there is
// something to read, so that a thousand idle flows hold none. handled is
// false when src is no kernel socket.
func copyRaw(dst io.Writer, src net.Conn) (n int64, handled bool, err error) {
	if !isKernelConn(src) {
		return 0, false, nil
	}
	raw, err := src.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, true, err
	}
	r := newRawReader(raw)
	for {
		m, err := r.moveTo(dst)
		n += int64(m)
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, true, err
		}
	}
}

// rawReader reads from a kernel socket. The function is bound once, because a
// closure per read would be garbage per read.
type rawReader struct {
	raw  syscall.RawConn
	call func(fd uintptr) bool

	buf *[bufferSize]byte // while there is something in it
	n   int
	err error
}

func newRawReader(raw syscall.RawConn) *rawReader {
	r := &rawReader{raw: raw}
	r.call = r.try
	return r
}

// try reads once; false means that there is nothing.
func (r *rawReader) try(fd uintptr) bool {
	r.buf = buffers.Get().(*[bufferSize]byte)
	r.n, r.err = nonblock.Read(fd, r.buf[:])
	if r.err == syscall.EAGAIN {
		r.release()
		return false
	}
	return true
}

func (r *rawReader) release() {
	buffers.Put(r.buf)
	r.buf = nil
}

// moveTo waits until there is something, reads once and writes that to dst.
func (r *rawReader) moveTo(dst io.Writer) (int, error) {
	err := r.raw.Read(r.call)
	if err != nil {
		return 0, err
	}
	defer r.release()
	switch {
	case r.err != nil:
		return 0, os.NewSyscallError("read", r.err)
	case r.n == 0:
		return 0, io.EOF
	}
	return dst.Write(r.buf[:r.n])
}

func isNotConnected(err error) bool { return errors.Is(err, syscall.ENOTCONN) }
