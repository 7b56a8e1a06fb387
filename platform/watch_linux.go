package platform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// watchPause is the least time between two looks at the machine, so that a storm
// of changes costs little. The first change is seen at once.
const watchPause = 100 * time.Millisecond

// Watch calls onChange whenever the ways out of this machine have changed: the
// routes in main, the addresses and the state of the interfaces they lead to.
// That is when a connection outside the tunnel may be dead without knowing, or a
// better one may be had. Changes that leave all of this as it was (a container's
// interface, a renewed lease, our own routes) are not reported.
//
// onChange is called from Watch's goroutine, one call at a time, and should
// return soon; changes during a call lead to one more. Watch returns ctx's error
// when ctx ends, and another if the kernel's messages cannot be read.
func Watch(ctx context.Context, onChange func()) error {
	w, err := newWatcher()
	if err != nil {
		return fmt.Errorf("platform: watch the network: %w", err)
	}
	return w.run(ctx, onChange)
}

// watcher hears of every change, and knows what it saw last.
type watcher struct {
	changes *os.File
	last    string
}

func newWatcher() (*watcher, error) {
	changes, err := subscribe()
	if err != nil {
		return nil, err
	}
	last, err := uplinks()
	if err != nil {
		changes.Close()
		return nil, err
	}
	return &watcher{changes: changes, last: last}, nil
}

// run is Watch; it closes the watcher.
func (w *watcher) run(ctx context.Context, onChange func()) error {
	defer w.changes.Close()
	defer context.AfterFunc(ctx, func() { w.changes.SetReadDeadline(time.Unix(1, 0)) })()
	for {
		err := w.step(onChange)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("platform: watch the network: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

// step waits for a change and looks whether it matters.
func (w *watcher) step(onChange func()) error {
	if err := awaitMessages(w.changes); err != nil {
		return err
	}
	now, err := uplinks()
	if err != nil || now == w.last {
		return err
	}
	w.last = now
	onChange()
	return nil
}

// subscribe opens a socket that the kernel tells of changes.
func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	addr := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, group := range []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE} {
		addr.Groups |= 1 << (group - 1)
	}
	if err := unix.Bind(fd, addr); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// awaitMessages waits for a message, and takes those that are there. What they
// say does not matter, nor whether some were lost: they are a reason to look.
func awaitMessages(changes *os.File) error {
	conn, err := changes.SyscallConn()
	if err != nil {
		return err
	}
	var rerr error
	buf := make([]byte, 4096)
	err = conn.Read(func(fd uintptr) bool {
		for taken := 0; taken < 1024; {
			_, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			switch {
			case err == nil, errors.Is(err, unix.ENOBUFS):
				taken++
			case errors.Is(err, unix.EAGAIN):
				return taken > 0
			case !errors.Is(err, unix.EINTR):
				rerr = err
				return true
			}
		}
		return true
	})
	return errors.Join(err, rerr)
}

// uplinks describes the ways out of the machine, as text to be compared: the
// routes in main, then the interfaces they lead to with their addresses.
func uplinks() (string, error) {
	var lines []string
	used := make(map[int]bool)
	for _, family := range []int{4, 6} {
		routes, err := listRoutes(family, mainTable)
		if err != nil {
			return "", err
		}
		for i := range routes {
			if line := describeUplink(&routes[i], family, used); line != "" {
				lines = append(lines, line)
			}
		}
	}
	for _, family := range []int{4, 6} {
		addrs, err := listAddrs(family)
		if err != nil {
			return "", err
		}
		for _, a := range addrs {
			if used[a.LinkIndex] && a.Scope == unix.RT_SCOPE_UNIVERSE {
				lines = append(lines, fmt.Sprintf("addr %d %s", a.LinkIndex, a.IPNet))
			}
		}
	}
	links, err := dump(netlink.LinkList)
	if err != nil {
		return "", fmt.Errorf("list the network devices: %w", err)
	}
	const up = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP
	for _, l := range links {
		if a := l.Attrs(); used[a.Index] {
			lines = append(lines, fmt.Sprintf("link %d %s %#x", a.Index, a.HardwareAddr, a.RawFlags&up))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

// describeUplink returns a line for a route that leads somewhere, and notes the
// interfaces it uses. A link-local network leads nowhere.
func describeUplink(r *netlink.Route, family int, used map[int]bool) string {
	dst := prefixOf(r.Dst, family)
	if r.Type != unix.RTN_UNICAST || dst.Addr().IsLinkLocalUnicast() || dst.Addr().IsMulticast() {
		return ""
	}
	var hops strings.Builder
	for _, h := range r.MultiPath {
		used[h.LinkIndex] = true
		fmt.Fprintf(&hops, " %d %s", h.LinkIndex, h.Gw)
	}
	if r.LinkIndex != 0 {
		used[r.LinkIndex] = true
	}
	return fmt.Sprintf("route %s %d %s %s %d%s", dst, r.LinkIndex, r.Gw, r.Src, r.Priority, hops.String())
}
