package platform

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inspectedSettings are read by Inspect, besides those of each interface.
var inspectedSettings = [...]string{
	srcValidMark, arpIgnore, rpFilter, "ipv4/ip_forward",
	"ipv6/conf/all/forwarding", "ipv6/conf/all/disable_ipv6",
}

// Inspect reads what the machine's network is like; it changes nothing.
// stateDir is that of the tunnel, whose journal tells which servers the machine
// would ask without it. It needs no permission, but without CAP_NET_ADMIN the
// packet filter stays unknown.
func Inspect(stateDir string) *Inspection {
	in := &Inspection{Settings: make(map[string]string)}
	names := in.readLinks()
	for _, family := range []int{4, 6} {
		in.readRules(family)
		in.readRoutes(family, names)
	}
	for _, name := range inspectedSettings {
		if b, err := os.ReadFile(sysctlRoot + name); err == nil {
			in.Settings[strings.ReplaceAll(name, "/", ".")] = strings.TrimSpace(string(b))
		}
	}
	in.readResolver(stateDir)
	in.readFilters()
	var st unix.Stat_t
	if unix.Stat(filepath.Join(stateDir, journalName), &st) == nil { // else there is none
		in.Owner = st.Uid
	}
	return in
}

func (in *Inspection) problem(err error) {
	in.Problems = append(in.Problems, err.Error())
}

// readLinks returns the names of the interfaces by their index.
func (in *Inspection) readLinks() map[int]string {
	names := make(map[int]string)
	links, err := dump(netlink.LinkList)
	if err != nil {
		in.problem(fmt.Errorf("list the network devices: %w", err))
	}
	addrs := make(map[int][]netip.Prefix)
	for _, family := range []int{4, 6} {
		list, err := listAddrs(family)
		if err != nil {
			in.problem(err)
		}
		for _, a := range list {
			addrs[a.LinkIndex] = append(addrs[a.LinkIndex], prefixOf(a.IPNet, family))
		}
	}
	for _, l := range links {
		a := l.Attrs()
		names[a.Index] = a.Name
		kind := l.Type()
		if kind == "device" {
			kind = ""
		}
		in.Links = append(in.Links, LinkState{
			Index: a.Index, Name: a.Name, Kind: kind, TUN: kind == "tuntap" || kind == "tun",
			Loopback: a.Flags&net.FlagLoopback != 0, Up: isUp(a), MTU: a.MTU, Addresses: addrs[a.Index],
		})
	}
	return names
}

func (in *Inspection) readRules(family int) {
	rules, err := listRules(family)
	if err != nil {
		in.problem(err)
		return
	}
	for i := range rules {
		n := &rules[i]
		r := RuleState{
			Family: family, Priority: n.Priority, Ours: n.Protocol == protocol,
			All: !narrows(n), Users: n.UIDRange != nil, Mark: n.Mark, Table: n.Table, Text: describeRule(n),
		}
		if n.Mask != nil {
			r.Mask = *n.Mask
		}
		if n.UIDRange != nil {
			r.FirstUID, r.LastUID = n.UIDRange.Start, n.UIDRange.End
		}
		in.Rules = append(in.Rules, r)
	}
}

func (in *Inspection) readRoutes(family int, names map[int]string) {
	routes, err := listRoutes(family, 0)
	if err != nil {
		in.problem(err)
		return
	}
	for _, r := range routes {
		if r.Table == unix.RT_TABLE_LOCAL {
			continue
		}
		s := RouteState{
			Family: family, Table: r.Table, To: prefixOf(r.Dst, family), Kind: routeKind(r.Type),
			Device: names[r.LinkIndex], Metric: r.Priority, Ours: r.Protocol == protocol, Protocol: int(r.Protocol),
		}
		if len(r.MultiPath) > 0 && s.Device == "" {
			s.Device = names[r.MultiPath[0].LinkIndex]
		}
		if gw, ok := netip.AddrFromSlice(r.Gw); ok {
			s.Gateway = gw.Unmap()
		}
		in.Routes = append(in.Routes, s)
	}
}

func routeKind(kind int) string {
	switch kind {
	case unix.RTN_UNICAST:
		return "unicast"
	case unix.RTN_UNREACHABLE:
		return "unreachable"
	case unix.RTN_BLACKHOLE:
		return "blackhole"
	case unix.RTN_PROHIBIT:
		return "prohibit"
	case unix.RTN_THROW:
		return "throw"
	case unix.RTN_MULTICAST:
		return "multicast"
	}
	return fmt.Sprintf("type %d", kind)
}

func (in *Inspection) readResolver(stateDir string) {
	e := machineEnv()
	applied := journaled(stateDir)
	in.Resolver.Path = e.resolvConf
	in.Resolver.Link, _ = os.Readlink(e.resolvConf) // fails when it is no link
	text, err := readBounded(e.resolvConf)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		in.problem(fmt.Errorf("read the resolver's file: %w", err))
	}
	in.Resolver.Ours = strings.HasPrefix(string(text), resolvHeader)
	in.Resolver.Servers = parseResolvConf(text)
	in.Resolver.Uplink = uplinkServers(e, applied)
	in.Resolver.Manager, in.Resolver.Tunnel = managerOf(applied)
}

// journaled returns what the tunnel of a state directory has changed, none if
// that is not to be known.
func journaled(stateDir string) []change {
	j, err := readJournal(stateDir)
	if j == nil || err != nil {
		return nil
	}
	return j.Changes
}

// Ask returns the way that a packet would take. It needs no permission.
func Ask(q Question) (Way, error) {
	opts := &netlink.RouteGetOptions{Oif: q.Device, Iif: q.In, Mark: q.Mark, UID: q.User}
	if q.From.IsValid() {
		opts.SrcAddr = q.From.AsSlice()
	}
	routes, err := netlink.RouteGetWithOptions(q.To.AsSlice(), opts)
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		return Way{Refused: errno.Error()}, nil
	case err != nil:
		return Way{}, fmt.Errorf("platform: ask for the way to %s: %w", q.To, err)
	case len(routes) == 0:
		return Way{}, fmt.Errorf("platform: ask for the way to %s: no answer", q.To)
	}
	link, err := net.InterfaceByIndex(routes[0].LinkIndex)
	if err != nil {
		return Way{}, fmt.Errorf("platform: ask for the way to %s: %w", q.To, err)
	}
	switch kind := routes[0].Type; kind {
	case unix.RTN_UNICAST:
		return Way{Device: link.Name}, nil
	case unix.RTN_LOCAL, unix.RTN_MULTICAST:
		return Way{Device: link.Name, Here: true}, nil
	default:
		return Way{Refused: routeKind(kind), Here: kind == unix.RTN_BROADCAST || kind == unix.RTN_ANYCAST}, nil
	}
}
