//go:build unix

package exit

import (
	"net"
	"os"
	"syscall"
)

// moveDatagram moves one datagram from src to dst. A kernel socket is waited
// for without a buffer: most flows are idle most of the time.
func moveDatagram(dst, src net.Conn) (int, error) {
	sock, ok := src.(*net.UDPConn)
	if !ok {
		return moveBuffered(dst, src)
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		return 0, err
	}
	var (
		buf     *[maxDatagram]byte
		n       int
		readErr error
	)
	err = raw.Read(func(fd uintptr) bool {
		buf = datagramBuffers.Get().(*[maxDatagram]byte)
		for {
			if n, readErr = syscall.Read(int(fd), buf[:]); readErr != syscall.EINTR {
				break
			}
		}
		if readErr == syscall.EAGAIN {
			datagramBuffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer datagramBuffers.Put(buf)
	}
	if err != nil {
		return 0, err
	}
	if readErr != nil {
		return 0, os.NewSyscallError("read", readErr)
	}
	return dst.Write(buf[:n])
}
