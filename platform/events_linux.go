package platform

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// events hears of changes to routes, rules, addresses, devices, nftables and the
// resolver's file. What exactly they say does not matter: they are a reason to
// look.
type events struct {
	e       *env
	wakeFD  int
	inotify int
	fds     []unix.PollFd
}

func newEvents(e *env) (*events, error) {
	ev := &events{e: e, inotify: -1}
	var err error
	if ev.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, err
	}
	ev.add(ev.wakeFD)
	routes, err := listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		ev.close()
		return nil, fmt.Errorf("hear of changes to routes: %w", err)
	}
	ev.add(routes)
	// Without nf_tables there is no filter to watch, and without inotify the
	// file is looked at from time to time.
	if filters, err := listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES); err == nil {
		ev.add(filters)
	}
	if ev.inotify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err == nil {
		ev.add(ev.inotify)
		ev.watchFiles()
	}
	return ev, nil
}

func (ev *events) add(fd int) {
	ev.fds = append(ev.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
}

// watchFiles watches the directory, for a file that is replaced, and the file,
// which may be mounted from elsewhere.
func (ev *events) watchFiles() {
	if ev.inotify < 0 {
		return
	}
	const mask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_MODIFY | unix.IN_ATTRIB
	_, _ = unix.InotifyAddWatch(ev.inotify, filepath.Dir(ev.e.resolvConf), mask|unix.IN_ONLYDIR)
	_, _ = unix.InotifyAddWatch(ev.inotify, ev.e.resolvConf, unix.IN_MODIFY|unix.IN_ATTRIB)
}

// listen opens a socket that the kernel tells of changes.
func listen(protocol int, groups ...uint) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return -1, err
	}
	addr := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, g := range groups {
		addr.Groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, addr); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// await waits for a change, at most so long, and reports whether there was one.
func (ev *events) await(patience time.Duration) (bool, error) {
	n, err := unix.Poll(ev.fds, int(patience.Milliseconds()))
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if err != nil || n == 0 {
		return false, err
	}
	buf := make([]byte, 16<<10)
	for _, p := range ev.fds {
		if p.Revents == 0 {
			continue
		}
		for range 1024 { // a storm ends, or is looked at in the midst
			if _, err := unix.Read(int(p.Fd), buf); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if int(p.Fd) == ev.inotify {
			ev.watchFiles() // the file may be another one
		}
	}
	return true, nil
}

// wake ends await. It may be called from any goroutine, until close.
func (ev *events) wake() { _, _ = unix.Write(ev.wakeFD, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (ev *events) close() {
	for _, p := range ev.fds {
		unix.Close(int(p.Fd))
	}
}
