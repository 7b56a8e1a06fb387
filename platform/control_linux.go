package platform

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Control returns a function for net.Dialer.Control and net.ListenConfig.Control
// that marks a socket, so that it bypasses the tunnel. A zero mark is
// DefaultMark. The mark is on the socket before its first packet; it needs
// CAP_NET_ADMIN. The function may be used concurrently.
func Control(mark uint32) func(network, address string, c syscall.RawConn) error {
	if mark == 0 {
		mark = DefaultMark
	}
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
		}); cerr != nil {
			return cerr
		}
		switch {
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("platform: mark the socket to bypass the tunnel: %w: run as root or with CAP_NET_ADMIN", err)
		case err != nil:
			return fmt.Errorf("platform: mark the socket to bypass the tunnel: %w", err)
		}
		return nil
	}
}
