package platform

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/ifaddr"
)

// linkChange brings the device up, with an MTU. The device is the caller's and
// goes when its descriptor is closed; the index tells it from a later one of
// the same name.
type linkChange struct {
	Device string
	Index  int
	MTU    int // 0: as it is
	OldMTU int
	OldUp  bool
}

func (l *linkChange) String() string { return "ip link set " + l.Device + " up" }

func (l *linkChange) inForce(*env) (bool, error) {
	link, err := netlink.LinkByIndex(l.Index)
	if err != nil {
		return false, err
	}
	a := link.Attrs()
	return a.Flags&net.FlagUp != 0 && (l.MTU == 0 || a.MTU == l.MTU), nil
}

func (l *linkChange) apply(*env) error {
	// No link-local address, and no soliciting of routers through the tunnel.
	// Best effort, and not undone: it is the device's own and goes with it.
	_ = writeSysctl(addrGenMode(l.Device), 1)
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}
	if l.MTU != 0 {
		if err := netlink.LinkSetMTU(link, l.MTU); err != nil {
			return fmt.Errorf("set the MTU %d: %w", l.MTU, err)
		}
	}
	return netlink.LinkSetUp(link)
}

func addrGenMode(device string) string { return "ipv6/conf/" + device + "/addr_gen_mode" }

func (l *linkChange) undo(*env) error {
	if !isDevice(l.Index, l.Device) {
		return nil
	}
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}
	var err error
	if l.MTU != 0 {
		err = netlink.LinkSetMTU(link, l.OldMTU)
	}
	if !l.OldUp {
		err = errors.Join(err, netlink.LinkSetDown(link))
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// addressChange gives the device one address and nothing with it: no prefix
// route in main, and for IPv6 no wait for duplicate detection, which would make
// the address unusable for a second on a device that has no neighbours.
type addressChange struct {
	Device  string
	Index   int
	Address netip.Addr
}

func (a *addressChange) String() string {
	return fmt.Sprintf("ip addr add %s/%d dev %s noprefixroute", a.Address, a.Address.BitLen(), a.Device)
}

func (a *addressChange) check() error {
	if !a.Address.IsValid() {
		return errors.New("no address")
	}
	return checkDevice(a.Device)
}

func (a *addressChange) addr() *netlink.Addr {
	bits := a.Address.BitLen()
	n := &netlink.Addr{
		IPNet: &net.IPNet{IP: a.Address.AsSlice(), Mask: net.CIDRMask(bits, bits)},
		Flags: unix.IFA_F_NOPREFIXROUTE,
	}
	if a.Address.Is6() {
		n.Flags |= unix.IFA_F_NODAD
	}
	return n
}

func (a *addressChange) inForce(*env) (bool, error) {
	family := 4
	if a.Address.Is6() {
		family = 6
	}
	addrs, err := listAddrs(family)
	if err != nil {
		return false, err
	}
	for _, n := range addrs {
		if n.LinkIndex == a.Index && n.Equal(*a.addr()) {
			return true, nil
		}
	}
	return false, nil
}

func (a *addressChange) apply(*env) error {
	return ifaddr.Replace(a.Index, a.addr())
}

func (a *addressChange) undo(*env) error {
	if !isDevice(a.Index, a.Device) {
		return nil
	}
	err := netlink.AddrDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: a.Index}}, a.addr())
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// listAddrs returns the addresses of all interfaces.
func listAddrs(family int) ([]netlink.Addr, error) {
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, afOf(family)) })
	if err != nil {
		return nil, fmt.Errorf("list the IPv%d addresses: %w", family, err)
	}
	return addrs, nil
}

// isDevice reports whether the interface of that index has that name still.
func isDevice(index int, name string) bool {
	link, err := netlink.LinkByIndex(index)
	return err == nil && link.Attrs().Name == name
}
