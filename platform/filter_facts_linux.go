package platform

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bounds of what the packet filter takes from the machine.
const (
	maxBridges  = 64
	maxLAN      = 64
	maxSessions = 64
)

// private are the networks that AllowLAN may mean: a stranger who runs the
// network cannot put a public address among them.
var private = [...]netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

func isPrivate(p netip.Prefix) bool {
	for _, q := range private {
		if p.Addr().BitLen() == q.Addr().BitLen() && p.Bits() >= q.Bits() && q.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// containers are the networks of bridges that lead to nothing but containers and
// virtual machines: all their ports are virtual, and no gateway is behind them.
func (f *facts) containers() []onLink {
	gateways := make(map[string]bool)
	for _, family := range f.families() {
		for _, r := range f.routes[family] {
			gateways[f.names[r.LinkIndex]] = gateways[f.names[r.LinkIndex]] || r.Gw != nil || r.Via != nil
			for _, h := range r.MultiPath {
				gateways[f.names[h.LinkIndex]] = true
			}
		}
	}
	links := f.privateLinks(func(device string) bool { return slices.Contains(f.localBridges, device) && !gateways[device] })
	return slices.DeleteFunc(links, func(l onLink) bool { return l.Prefix.Addr().IsLinkLocalUnicast() })
}

// privateLinks are the private networks that a route in main finds on the link
// of one of those interfaces, in a fixed order.
func (f *facts) privateLinks(of func(device string) bool) []onLink {
	var list []onLink
	for _, family := range f.families() {
		for _, r := range f.routes[family] {
			l := onLink{Device: f.names[r.LinkIndex], Prefix: prefixOf(r.Dst, family)}
			if r.Table != mainTable || r.Type != unix.RTN_UNICAST || (r.Gw != nil && !r.Gw.IsUnspecified()) || r.Via != nil ||
				len(r.MultiPath) > 0 || l.Device == "" || l.Device == "lo" || !of(l.Device) || !isPrivate(l.Prefix) || slices.Contains(list, l) {
				continue
			}
			if len(list) < maxLAN {
				list = append(list, l)
			}
		}
	}
	slices.SortFunc(list, func(a, b onLink) int {
		return strings.Compare(a.Device+" "+a.Prefix.String(), b.Device+" "+b.Prefix.String())
	})
	return list
}

// sessionsFromOutside lists the TCP connections to ports that programs listen
// on. What cannot be listed has to connect again.
func sessionsFromOutside(families []int) []session {
	const established, listening = 1, 10
	var found []*netlink.Socket
	for _, family := range families {
		socks, err := dump(func() ([]*netlink.Socket, error) { return netlink.SocketDiagTCP(uint8(afOf(family))) })
		if err == nil {
			found = append(found, socks...)
		}
	}
	ports := make(map[uint16]bool)
	for _, s := range found {
		if s.State == listening {
			ports[s.ID.SourcePort] = true
		}
	}
	var list []session
	for _, s := range found {
		c := session{Local: addrPort(s.ID.Source, s.ID.SourcePort), Remote: addrPort(s.ID.Destination, s.ID.DestinationPort)}
		if s.State == established && ports[s.ID.SourcePort] && !c.Remote.Addr().IsLoopback() && !slices.Contains(list, c) && len(list) < maxSessions {
			list = append(list, c)
		}
	}
	return list
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// errNoCgroup says that the cgroup of a Config is not there.
var errNoCgroup = errors.New("nobody can be let past the tunnel by cgroup")

// findCgroup looks up a cgroup of version 2; "" is none.
func findCgroup(name string) (*cgroup, error) {
	if name == "" {
		return nil, nil
	}
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	clean := filepath.Clean("/" + name)
	var st unix.Stat_t
	if err := unix.Stat(root+clean, &st); err != nil {
		return nil, fmt.Errorf("%w: look at the cgroup %s%s: %w: make it with `mkdir %s%s`", errNoCgroup, root, clean, err, root, clean)
	}
	return &cgroup{Path: clean, ID: st.Ino, Level: uint32(strings.Count(clean, "/"))}, nil
}

// cgroupRoot is where the cgroups of version 2 are mounted.
func cgroupRoot() (string, error) {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 && fields[3] == "/" {
			return fields[4], nil
		}
	}
	return "", fmt.Errorf("%w: cgroups of version 2 are not mounted: mount them with `mount -t cgroup2 none /sys/fs/cgroup`, or name users or networks instead of a cgroup", errNoCgroup)
}

// check looks at what comes from a journal.
func (f *filterChange) check() error {
	s := &f.Spec
	names := append([]string{}, s.Bridges...)
	if s.Device != "" {
		names = append(names, s.Device)
	}
	for _, l := range slices.Concat(s.LAN, s.Containers) {
		names = append(names, l.Device)
		if !l.Prefix.IsValid() {
			return errors.New("a network that is none")
		}
	}
	for _, n := range names {
		if err := checkDevice(n); err != nil {
			return err
		}
	}
	for _, p := range slices.Concat(s.Reserved, s.Exclude, s.Include) {
		if !p.IsValid() {
			return errors.New("a network that is none")
		}
	}
	for _, a := range s.Addresses {
		if !a.IsValid() {
			return errors.New("an address that is none")
		}
	}
	for _, c := range s.Sessions {
		if !c.Local.IsValid() || !c.Remote.IsValid() {
			return errors.New("a connection that is none")
		}
	}
	return nil
}
