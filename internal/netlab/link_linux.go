package netlab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/ifaddr"
)

// An End is one end of a link: an interface of a host with its addresses.
type End struct {
	Host      *Host
	Device    string
	Addresses []string // with prefix length, IPv4 and IPv6
}

// Port is short for an End.
func Port(h *Host, device string, addresses ...string) End {
	return End{Host: h, Device: device, Addresses: addresses}
}

// Link joins two hosts by a veth pair and sets both ends up. Addresses are
// usable when it returns: there is no duplicate address detection.
func (l *Lab) Link(a, b End) error {
	err := a.Host.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: a.Device},
			PeerName:      b.Device,
			PeerNamespace: netlink.NsFd(b.Host.ns.net.Fd()),
		})
	})
	// Both ends up before any address: IPv6 leaves an address that came to a
	// dead link unusable for a second or two.
	for _, step := range []func() error{a.setUp, b.setUp, a.addAddresses, b.addAddresses} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return fmt.Errorf("netlab: link %s %s to %s %s: %w", a.Host.name, a.Device, b.Host.name, b.Device, err)
	}
	return nil
}

func (e End) setUp() error { return e.Host.SetLink(e.Device, true) }

func (e End) addAddresses() error {
	return e.Host.Do(func() error {
		link, err := netlink.LinkByName(e.Device)
		if err != nil {
			return err
		}
		for _, text := range e.Addresses {
			addr, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			if addr.IP.To4() == nil {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := ifaddr.Replace(link.Attrs().Index, addr); err != nil {
				return fmt.Errorf("address %s: %w", text, err)
			}
		}
		return nil
	})
}

// Route adds a route to dst ("0.0.0.0/0" and "::/0" are the defaults) by way
// of the neighbour via, on the interface whose network via is in.
func (h *Host) Route(dst, via string) error {
	err := h.Do(func() error {
		prefix, err := netip.ParsePrefix(dst)
		if err != nil {
			return err
		}
		gateway := net.ParseIP(via)
		index, err := interfaceTowards(gateway)
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{
			Dst:       &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())},
			Gw:        gateway,
			LinkIndex: index,
		})
	})
	if err != nil {
		return fmt.Errorf("netlab: route on %s to %s via %s: %w", h.name, dst, via, err)
	}
	return nil
}

// interfaceTowards finds the interface of a neighbour. The kernel would, too,
// but by all rules and routes, and a VPN's may come first there.
func interfaceTowards(neighbour net.IP) (index int, err error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return 0, err
	}
	for _, a := range addrs {
		if a.Contains(neighbour) {
			return a.LinkIndex, nil
		}
	}
	return 0, fmt.Errorf("no interface is in the network of %s", neighbour)
}

// Forward makes the host a router, for IPv4 and IPv6.
func (h *Host) Forward() error {
	for _, path := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := h.Sysctl(path, "1"); err != nil {
			return fmt.Errorf("netlab: make %s a router: %w", h.name, err)
		}
	}
	return nil
}

// SetLink sets an interface up or down, as pulling its cable would.
func (h *Host) SetLink(device string, up bool) error {
	err := h.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(link)
		}
		return netlink.LinkSetDown(link)
	})
	if err != nil {
		return fmt.Errorf("netlab: set %s of %s: %w", device, h.name, err)
	}
	return nil
}
