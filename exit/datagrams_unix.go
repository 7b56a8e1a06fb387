//go:build unix

package exit

import (
	"io"
	"net"
	"os"
	"syscall"
)

// copySocket writes each datagram of src to dst by one Write. A kernel socket
// is waited for without a buffer: most flows are idle most of the time.
func copySocket(dst io.Writer, src net.Conn) error {
	switch src.(type) {
	case *net.UDPConn, *net.IPConn:
	default:
		return copyBuffered(dst, src)
	}
	raw, err := src.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	r := datagramReader{}
	try := r.try // bound once: a closure for each datagram would be garbage
	for {
		if err := raw.Read(try); err != nil {
			return err
		}
		if err := r.passTo(dst); err != nil {
			return err
		}
	}
}

// datagramReader reads from a socket that is ready.
type datagramReader struct {
	buf *[maxDatagram]byte // while there is something in it
	n   int
	err error
}

// try reads once; false means that there is nothing.
func (r *datagramReader) try(fd uintptr) bool {
	r.buf = datagramBuffers.Get().(*[maxDatagram]byte)
	for {
		if r.n, r.err = syscall.Read(int(fd), r.buf[:]); r.err != syscall.EINTR {
			break
		}
	}
	if r.err == syscall.EAGAIN {
		r.release()
		return false
	}
	return true
}

func (r *datagramReader) release() {
	datagramBuffers.Put(r.buf)
	r.buf = nil
}

// passTo writes what was read to dst.
func (r *datagramReader) passTo(dst io.Writer) error {
	defer r.release()
	if r.err != nil {
		return os.NewSyscallError("read", r.err)
	}
	_, err := dst.Write(r.buf[:r.n])
	return err
}
