package netlab

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Snapshot describes, in sorted lines, what a VPN may change on the host:
// links, addresses, policy rules, the routes of all tables, the packet filter,
// the sysctls about routing, and resolv.conf with its mode, owner and bytes. Two
// are equal when nothing has changed.
func (h *Host) Snapshot() (text string, err error) {
	err = h.Do(func() error {
		lines, err := snapshot()
		text = strings.Join(lines, "\n") + "\n"
		return err
	})
	if err != nil {
		return "", fmt.Errorf("netlab: snapshot of %s: %w", h.name, err)
	}
	return text, nil
}

func snapshot() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var lines []string
	names := map[int]string{}
	for _, link := range links {
		a := link.Attrs()
		names[a.Index] = a.Name
		lines = append(lines, fmt.Sprintf("link %s %s mtu %d up %v", a.Name, link.Type(), a.MTU, a.Flags&net.FlagUp != 0))
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		of, err := snapshotFamily(family, names)
		if err != nil {
			return nil, err
		}
		lines = append(lines, of...)
	}
	filter, err := filters()
	if err != nil {
		return nil, err
	}
	lines = append(lines, filter...)
	lines = append(lines, snapshotFiles()...)
	slices.Sort(lines)
	return lines, nil
}

func snapshotFamily(family int, names map[int]string) ([]string, error) {
	var lines []string
	addrs, err := netlink.AddrList(nil, family)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		lines = append(lines, fmt.Sprintf("address %s dev %s", a.IPNet, names[a.LinkIndex]))
	}
	rules, err := netlink.RuleList(family)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		lines = append(lines, fmt.Sprintf("rule family %d type %d %s", family, r.Type, r))
	}
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		lines = append(lines, fmt.Sprintf("route table %d type %d to %v via %v dev %s from %v metric %d protocol %d scope %d",
			r.Table, r.Type, r.Dst, r.Gw, names[r.LinkIndex], r.Src, r.Priority, r.Protocol, r.Scope))
	}
	return lines, nil
}

func snapshotFiles() []string {
	var lines []string
	for _, name := range []string{
		"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/all/disable_ipv6",
		"net/ipv4/conf/all/src_valid_mark", "net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/all/rp_filter",
	} {
		data, err := os.ReadFile("/proc/sys/" + name)
		lines = append(lines, fmt.Sprintf("sysctl %s %q %v", name, data, err))
	}
	info, err := os.Lstat("/etc/resolv.conf")
	if err != nil {
		return append(lines, fmt.Sprintf("file /etc/resolv.conf %v", err))
	}
	target, _ := os.Readlink("/etc/resolv.conf")
	data, err := os.ReadFile("/etc/resolv.conf")
	owner, _ := info.Sys().(*syscall.Stat_t)
	return append(lines, fmt.Sprintf("file /etc/resolv.conf %s of %d:%d link %q text %q %v", info.Mode(), owner.Uid, owner.Gid, target, data, err))
}
