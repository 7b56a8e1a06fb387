package platform

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/ifaddr"
)

// Inside describes a network namespace that was made for a tunnel and has
// nothing else in it.
type Inside struct {
	// Device is the TUN, MTU its largest packet in bytes, and Addresses are the
	// device's.
	Device    string
	MTU       int
	Addresses []netip.Prefix
	// Group is the group whose members may ping, as the calling process knows
	// it; all of them with AllGroups.
	Group     int
	AllGroups bool
}

// ConfigureInside sets up the calling thread's network namespace, which must be
// the caller's own: the loopback, and the device with addresses and default
// routes of their families. It journals nothing, for it goes with the namespace.
// It needs CAP_NET_ADMIN over the namespace. Without IPv6 in the kernel there is
// none inside either.
func ConfigureInside(cfg Inside) error {
	if err := checkDevice(cfg.Device); err != nil {
		return fmt.Errorf("platform: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("platform: find the loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("platform: set the loopback up: %w", err)
	}
	dev, err := netlink.LinkByName(cfg.Device)
	if err != nil {
		return fmt.Errorf("platform: find %s: %w", cfg.Device, err)
	}
	// The machine's defaults may have come along. No link-local address, and no
	// soliciting of routers. Where there is no IPv6 there is nothing to set.
	_ = writeSysctl("ipv6/conf/"+cfg.Device+"/disable_ipv6", 0)
	_ = writeSysctl("ipv6/conf/"+cfg.Device+"/addr_gen_mode", 1)
	if err := errors.Join(netlink.LinkSetMTU(dev, cfg.MTU), netlink.LinkSetUp(dev)); err != nil {
		return fmt.Errorf("platform: set %s up with MTU %d: %w", cfg.Device, cfg.MTU, err)
	}
	for _, p := range cfg.Addresses {
		if p.Addr().Is6() && !hasIPv6(cfg.Device) {
			continue
		}
		if err := addInside(dev.Attrs().Index, p.Addr()); err != nil {
			return fmt.Errorf("platform: give %s the address %s: %w", cfg.Device, p.Addr(), err)
		}
	}
	if err := allowPing(cfg); err != nil {
		return fmt.Errorf("platform: allow ping: %w", err)
	}
	return nil
}

func hasIPv6(device string) bool {
	v, err := readSysctl("ipv6/conf/" + device + "/disable_ipv6")
	return err == nil && v == 0
}

// addInside gives the device an address and the default route of its family.
func addInside(index int, a netip.Addr) error {
	bits := a.BitLen()
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, bits)}, Flags: unix.IFA_F_NOPREFIXROUTE}
	route := &netlink.Route{LinkIndex: index, Dst: &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}}
	if a.Is6() {
		addr.Flags |= unix.IFA_F_NODAD
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := ifaddr.Replace(index, addr); err != nil {
		return err
	}
	return netlink.RouteReplace(route)
}

func allowPing(cfg Inside) error {
	from, to := cfg.Group, cfg.Group
	if cfg.AllGroups {
		from, to = 0, 1<<31-1
	}
	return os.WriteFile(sysctlRoot+"ipv4/ping_group_range", fmt.Appendf(nil, "%d %d\n", from, to), 0)
}
