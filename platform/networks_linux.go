package platform

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Networks returns the networks that this machine is in or has routes to, so
// that a tunnel to the device can have addresses beside them. The device's own
// and what a tunnel left are none of them, and neither are routes to great parts
// of the address space.
func Networks(device string) ([]netip.Prefix, error) {
	own := -1
	if link, err := netlink.LinkByName(device); err == nil {
		own = link.Attrs().Index
	}
	families := []int{4, 6}
	if _, err := os.Stat(sysctlRoot + "ipv6/conf/all"); errors.Is(err, fs.ErrNotExist) {
		families = families[:1]
	}
	var list []netip.Prefix
	for _, family := range families {
		addrs, err := listAddrs(family)
		if err != nil {
			return nil, fmt.Errorf("platform: %w", err)
		}
		for _, a := range addrs {
			if a.LinkIndex != own {
				list = append(list, prefixOf(a.IPNet, family).Masked())
			}
		}
		routes, err := listRoutes(family, 0)
		if err != nil {
			return nil, fmt.Errorf("platform: %w", err)
		}
		for i := range routes {
			r := &routes[i]
			ours := r.Protocol == protocol || (r.LinkIndex == own && len(r.MultiPath) == 0)
			if net := prefixOf(r.Dst, family); !ours && r.Type == unix.RTN_UNICAST && net.Bits() >= leastBits(family) {
				list = append(list, net)
			}
		}
	}
	return list, nil
}
