//go:build unix

package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// shareAddress lets another process of the same user listen at the same address:
// one that takes over, before this one lets go.
func shareAddress(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return err
	}
	return failed
}
