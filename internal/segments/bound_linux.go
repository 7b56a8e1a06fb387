package segments

import "golang.org/x/sys/unix"

// bound has no effect on what is not TCP.
func bound(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, Size)
}
