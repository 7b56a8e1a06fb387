package netstack

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// opError turns gVisor's error into the one a kernel socket would have given.
// The end of a stream is io.EOF itself.
func opError(op string, err tcpip.Error) error {
	var errno syscall.Errno
	switch err.(type) {
	case *tcpip.ErrClosedForReceive:
		return io.EOF
	case *tcpip.ErrClosedForSend:
		errno = syscall.EPIPE
	case *tcpip.ErrConnectionReset:
		errno = syscall.ECONNRESET
	case *tcpip.ErrConnectionRefused:
		errno = syscall.ECONNREFUSED
	case *tcpip.ErrConnectionAborted, *tcpip.ErrAborted:
		errno = syscall.ECONNABORTED
	case *tcpip.ErrTimeout:
		errno = syscall.ETIMEDOUT
	case *tcpip.ErrNotConnected:
		errno = syscall.ENOTCONN
	case *tcpip.ErrHostUnreachable:
		errno = syscall.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		errno = syscall.ENETUNREACH
	default:
		return fmt.Errorf("netstack: %s: %w", op, errors.New(err.String()))
	}
	return fmt.Errorf("netstack: %s: %w", op, errno)
}
