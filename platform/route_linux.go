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

// routeChange is a default route in our table: to a device, or, when Device is
// empty, the guard route.
type routeChange struct {
	Family int // 4 or 6
	Table  int
	Device string
	Index  int // the device's, or 0
}

func (r *routeChange) String() string {
	if r.Device == "" {
		return fmt.Sprintf("ip -%d route add unreachable default metric %d table %d", r.Family, guardMetric, r.Table)
	}
	return fmt.Sprintf("ip -%d route add default dev %s metric %d table %d", r.Family, r.Device, deviceMetric, r.Table)
}

func (r *routeChange) check() error {
	if r.Table < 1 || r.Table > maxTable || (r.Table >= 253 && r.Table <= 255) {
		return fmt.Errorf("routing table %d", r.Table)
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
		Dst:      &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		Type:     unix.RTN_UNREACHABLE,
		Priority: guardMetric,
	}
	if r.Family == 6 {
		n.Dst = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	if r.Device != "" {
		n.Type, n.Priority, n.LinkIndex = unix.RTN_UNICAST, deviceMetric, r.Index
		if r.Family == 4 {
			n.Scope = netlink.SCOPE_LINK
		}
	}
	return n
}

func (r *routeChange) inForce(*env) (bool, error) {
	routes, err := listRoutes(r.Family, r.Table)
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
		isDefault(n.Dst) && len(n.MultiPath) == 0 && (r.Device == "" || n.LinkIndex == r.Index)
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

func isDefault(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	ones, _ := dst.Mask.Size()
	return ones == 0 && (dst.IP == nil || dst.IP.IsUnspecified())
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
