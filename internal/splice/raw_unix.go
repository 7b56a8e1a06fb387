//go:build unix

package splice

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
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
	for {
		m, err := moveOnce(dst, raw)
		n += int64(m)
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, true, err
		}
	}
}

// moveOnce waits until raw is readable, reads once and writes that to dst.
func moveOnce(dst io.Writer, raw syscall.RawConn) (int, error) {
	var (
		buf     *[bufferSize]byte
		n       int
		readErr error
	)
	err := raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[bufferSize]byte)
		for {
			n, readErr = syscall.Read(int(fd), buf[:])
			if readErr != syscall.EINTR {
				break
			}
		}
		if readErr == syscall.EAGAIN {
			buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer buffers.Put(buf)
	}
	switch {
	case err != nil:
		return 0, err
	case readErr != nil:
		return 0, os.NewSyscallError("read", readErr)
	case n == 0:
		return 0, io.EOF
	}
	return dst.Write(buf[:n])
}

func isNotConnected(err error) bool { return errors.Is(err, syscall.ENOTCONN) }
