package platform

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Metrics in our table. The guard route's is the highest there is (where the
// netlink library can say it: its metrics are ints), so that any other default
// route wins while it exists.
const (
	deviceMetric = 1024
	guardMetric  = int(min(uint64(math.MaxUint32), uint64(math.MaxInt)))
)

// routeChange is a route in our table: to a device; or, when Device is empty, a
// guard route, which refuses; or one that leaves the decision to the rules after
// ours (Throw). Without Dst it is the default.
type routeChange struct {
	Family int // 4 or 6
	Table  int
	Dst    netip.Prefix `json:",omitzero"`
	Device string
	Index  int  // the device's, or 0
	Throw  bool `json:",omitempty"`
}

func (r *routeChange) String() string {
	dst := "default"
	if r.Dst.IsValid() {
		dst = r.Dst.String()
	}
	switch {
	case r.Throw:
		return fmt.Sprintf("ip -%d route add throw %s metric %d table %d", r.Family, dst, deviceMetric, r.Table)
	case r.Device == "":
		return fmt.Sprintf("ip -%d route add unreachable %s metric %d table %d", r.Family, dst, guardMetric, r.Table)
	}
	return fmt.Sprintf("ip -%d route add %s dev %s metric %d table %d", r.Family, dst, r.Device, deviceMetric, r.Table)
}

func (r *routeChange) check() error {
	if r.Table < 1 || r.Table > maxTable || (r.Table >= 253 && r.Table <= 255) {
		return fmt.Errorf("routing table %d", r.Table)
	}
	if r.Dst.IsValid() && familyOf(r.Dst.Addr()) != r.Family {
		return fmt.Errorf("a route to %s for IPv%d", r.Dst, r.Family)
	}
	if r.Device != "" {
		if err := checkDevice(r.Device); err != nil {
			return err
		}
	}
	return checkFamily(r.Family)
}

func (r *routeChange) route() *netlink.Route {
	n := &netlink.Route{
		Family:   afOf(r.Family),
		Table:    r.Table,
		Protocol: protocol,
		Dst:      ipNet(prefixOf(nil, r.Family)),
		Type:     unix.RTN_UNREACHABLE,
		Priority: guardMetric,
	}
	if r.Dst.IsValid() {
		n.Dst = ipNet(r.Dst)
	}
	if r.Throw {
		n.Type, n.Priority = unix.RTN_THROW, deviceMetric
	} else if r.Device != "" {
		n.Type, n.Priority, n.LinkIndex = unix.RTN_UNICAST, deviceMetric, r.Index
		if r.Family == 4 {
			n.Scope = netlink.SCOPE_LINK
		}
	}
	return n
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (r *routeChange) inForce(e *env) (bool, error) {
	routes, err := e.listRoutes(r.Family, r.Table)
	if err != nil {
		return false, err
	}
	for i := range routes {
		if r.matches(&routes[i]) {
			return true, nil
		}
	}
	return false, nil
}

// matches reports whether n, as the kernel lists it, is this route. IPv6 lists
// the guard route with the loopback device.
func (r *routeChange) matches(n *netlink.Route) bool {
	want := r.route()
	return n.Protocol == protocol && n.Type == want.Type && n.Priority == want.Priority &&
		prefixOf(n.Dst, r.Family) == prefixOf(want.Dst, r.Family) && len(n.MultiPath) == 0 && (r.Device == "" || n.LinkIndex == r.Index)
}

func (r *routeChange) apply(*env) error { return netlink.RouteReplace(r.route()) }

func (r *routeChange) undo(*env) error {
	if r.Device != "" && !isDevice(r.Index, r.Device) {
		return nil // the route went with it
	}
	err := netlink.RouteDel(r.route())
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// listRoutes returns the routes of one family in one table, or in all of them
// for table 0.
func listRoutes(family, table int) ([]netlink.Route, error) {
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(afOf(family), &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list the IPv%d routes: %w", family, err)
	}
	return routes, nil
}

// prefixOf converts a route's destination; family tells what none of them means.
func prefixOf(dst *net.IPNet, family int) netip.Prefix {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if family == 6 {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if dst == nil {
		return all
	}
	addr, ok := netip.AddrFromSlice(dst.IP)
	if !ok {
		return all
	}
	ones, _ := dst.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones)
}
