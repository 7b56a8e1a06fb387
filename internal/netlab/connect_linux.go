package netlab

import (
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// connectPatience is how long a call on a socket of Connect may take: longer than
// anything that has not stalled.
const connectPatience = 10 * time.Second

// Connect makes a plain blocking connect() on the calling thread, as most
// programs do: it is for Do. The connection begins at from, if that is valid.
// Calls on the socket give up after ten seconds. The caller closes it. Errors are
// the kernel's own, as they are.
func Connect(to, from netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(int64(connectPatience))
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit)
		}
	}
	if err == nil && from.IsValid() {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
			err = unix.Bind(fd, Sockaddr(from))
		}
	}
	if err == nil {
		err = unix.Connect(fd, Sockaddr(to))
	}
	if err == unix.EINTR {
		err = finishConnect(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// finishConnect waits for a connect() that a signal of Go's runtime interrupted.
func finishConnect(fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(connectPatience.Milliseconds()))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		}
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		return err
	}
}

// Sockaddr is an address as system calls take it. A zone is an interface's
// number.
func Sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	zone, _ := strconv.ParseUint(a.Addr().Zone(), 10, 32)
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port()), ZoneId: uint32(zone)}
}
