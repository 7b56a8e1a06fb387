package ifaddr

import (
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience bounds the wait for the kernel's work queue.
const patience = 5 * time.Second

// Replace adds addr to the interface with this index, or changes what it has,
// in the calling thread's network namespace. It returns when the kernel takes
// in what arrives for the address. That is not awaited while the interface is
// down, nor for an IPv6 address that the kernel will look for duplicates of:
// one without unix.IFA_F_NODAD.
func Replace(index int, addr *netlink.Addr) error {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	if addr.IP.To4() != nil || addr.Flags&unix.IFA_F_NODAD == 0 || link.Attrs().Flags&net.FlagUp == 0 {
		return netlink.AddrReplace(link, addr)
	}
	return replaceAndWait(link, addr)
}

func replaceAndWait(link netlink.Link, addr *netlink.Addr) error {
	done := make(chan struct{})
	routes := make(chan netlink.RouteUpdate)
	if err := netlink.RouteSubscribe(routes, done); err != nil {
		return fmt.Errorf("ifaddr: watching the routes: %w", err)
	}
	defer func() {
		close(done)
		for range routes { // it ends when the subscription does
		}
	}()
	if err := netlink.AddrReplace(link, addr); err != nil {
		return err
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for !isOurs(addr) {
		select {
		case _, ok := <-routes:
			if !ok {
				return fmt.Errorf("ifaddr: the kernel stopped telling about routes while %s was awaited", addr.IP)
			}
		case <-timeout.C:
			return fmt.Errorf("ifaddr: the kernel has not taken %s into use within %v", addr.IP, patience)
		}
	}
	return nil
}

// isOurs reports whether the kernel delivers what comes for addr.
func isOurs(addr *netlink.Addr) bool {
	routes, err := netlink.RouteGet(addr.IP)
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}
