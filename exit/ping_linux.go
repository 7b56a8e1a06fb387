package exit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// dialPing opens a socket for echoes to a: an unprivileged one if this group
// may have them, else a raw one if this process may.
func dialPing(a netip.Addr) (net.Conn, error) {
	fd, raw, err := pingSocket(a, unix.Socket)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "ping")
	defer file.Close() // FileConn has one of its own
	if err := connectPing(fd, a); err != nil {
		return nil, err
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("exit: ping: %w", err)
	}
	return &echoConn{conn, echoFormat{v6: a.Is6(), raw: raw, ident: uint16(rand.Uint32())}}, nil
}

// pingSocket makes the socket. Its error is a permission error when neither
// kind is allowed.
func pingSocket(a netip.Addr, socket func(family, kind, protocol int) (int, error)) (fd int, raw bool, err error) {
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if a.Is6() {
		family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err = socket(family, unix.SOCK_DGRAM|flags, protocol)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EPROTONOSUPPORT) {
		raw = true
		fd, err = socket(family, unix.SOCK_RAW|flags, protocol)
	}
	if err != nil {
		return -1, false, fmt.Errorf("exit: ping: %w", os.NewSyscallError("socket", err))
	}
	return fd, raw, nil
}

// connectPing connects, and asks to hear of hosts and networks that cannot be
// reached.
func connectPing(fd int, a netip.Addr) error {
	level, option := unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	to := unix.Sockaddr(&unix.SockaddrInet6{Addr: a.As16()})
	if a.Is4() {
		level, option, to = unix.IPPROTO_IP, unix.IP_RECVERR, &unix.SockaddrInet4{Addr: a.As4()}
	}
	err := os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, 1))
	if err == nil {
		err = os.NewSyscallError("connect", unix.Connect(fd, to))
	}
	if err != nil {
		return fmt.Errorf("exit: ping: %w", err)
	}
	return nil
}
