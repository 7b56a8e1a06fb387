package platform

import (
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const mainTable = unix.RT_TABLE_MAIN

// checkConflicts refuses a Config whose numbers or addresses the machine uses
// for something else.
func checkConflicts(cfg Config, f *facts, applied []change) error {
	taken := make(map[int]bool)
	for _, c := range planRules(cfg, f) {
		taken[c.(*ruleChange).Priority] = true
	}
	for _, family := range f.families() {
		for i := range f.rules[family] {
			n := &f.rules[family][i]
			if taken[n.Priority] && !isOurRule(n, family, applied) {
				return fmt.Errorf("rule %s is %s: choose another rule priority than %d, or remove it with `ip -%d rule del pref %d`",
					describeRule(n), whose(n.Protocol), cfg.RulePriority, family, n.Priority)
			}
		}
		for i := range f.routes[family] {
			n := &f.routes[family][i]
			if n.Table == cfg.Table && !isOurRoute(n, family, applied) {
				return fmt.Errorf("routing table %d holds a route to %s that is %s: choose another table, or empty it with `ip -%d route flush table %d`",
					cfg.Table, prefixOf(n.Dst, family), whose(uint8(n.Protocol)), family, cfg.Table)
			}
		}
	}
	return checkOverlap(cfg, f)
}

// whose says, for a message, who left something with that protocol number.
func whose(proto uint8) string {
	if proto == protocol {
		return "of a tunnel with another state directory (stop it, or clean up after it, with `nws-vpn down --state-dir DIR`)"
	}
	return "not ours"
}

func isOurRule(n *netlink.Rule, family int, applied []change) bool {
	for _, c := range applied {
		if r, ok := c.(*ruleChange); ok && r.Family == family && r.matches(n) {
			return true
		}
	}
	return false
}

func isOurRoute(n *netlink.Route, family int, applied []change) bool {
	for _, c := range applied {
		if r, ok := c.(*routeChange); ok && r.Family == family && r.Table == n.Table && r.matches(n) {
			return true
		}
	}
	return false
}

// checkOverlap refuses an address that an interface has or that is in a network
// the machine has a route to. Routes to great parts of the address space (a
// default in two halves, all that is not private) are no such networks.
func checkOverlap(cfg Config, f *facts) error {
	if cfg.Device == "" {
		return nil
	}
	for _, p := range cfg.Addresses {
		addr, family := p.Addr(), familyOf(p.Addr())
		for _, a := range f.addrs[family] {
			if own := prefixOf(a.IPNet, family); own.Addr() == addr && a.LinkIndex != f.link.Index {
				return &OverlapError{Address: addr, Network: own, Interface: f.names[a.LinkIndex]}
			}
		}
		for _, r := range f.routes[family] {
			if r.Type != unix.RTN_UNICAST || r.Table == cfg.Table || (r.LinkIndex == f.link.Index && len(r.MultiPath) == 0) {
				continue
			}
			if net := prefixOf(r.Dst, family); net.Bits() >= leastBits(family) && net.Contains(addr) {
				return &OverlapError{Address: addr, Network: net, Interface: routeDevice(&r, f)}
			}
		}
	}
	return nil
}

// leastBits is how long the prefix of a network is at least that addresses must
// not be taken from.
func leastBits(family int) int {
	if family == 6 {
		return 7
	}
	return 8
}

func routeDevice(r *netlink.Route, f *facts) string {
	index := r.LinkIndex
	if len(r.MultiPath) > 0 {
		index = r.MultiPath[0].LinkIndex
	}
	if name := f.names[index]; name != "" {
		return name
	}
	return fmt.Sprintf("table %d", r.Table)
}

// foreignRules tells of every rule the kernel asks before our last one: what it
// takes does not come to the tunnel.
func foreignRules(cfg Config, f *facts, applied []change) []string {
	var notes []string
	for _, family := range f.families() {
		for i := range f.rules[family] {
			n := &f.rules[family][i]
			local := n.Table == unix.RT_TABLE_LOCAL && n.Mask == nil && !narrows(n)
			if n.Priority >= cfg.RulePriority+lastRule || local || isOurRule(n, family, applied) {
				continue
			}
			notes = append(notes, fmt.Sprintf("IPv%d rule %s of another program comes before the tunnel's: what it takes goes past the tunnel; stop that program, or set the rule priority below %d",
				family, describeRule(n), n.Priority))
		}
	}
	return notes
}

// describeRule writes a rule the way the ip program does, as far as the library
// can read it.
func describeRule(n *netlink.Rule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:", n.Priority)
	if n.Invert {
		b.WriteString(" not")
	}
	b.WriteString(" from ")
	if n.Src != nil {
		b.WriteString(n.Src.String())
	} else {
		b.WriteString("all")
	}
	if n.Dst != nil {
		fmt.Fprintf(&b, " to %s", n.Dst)
	}
	if n.Mark != 0 || n.Mask != nil {
		fmt.Fprintf(&b, " fwmark %#x", n.Mark)
		if n.Mask != nil {
			fmt.Fprintf(&b, "/%#x", *n.Mask)
		}
	}
	if n.IifName != "" {
		fmt.Fprintf(&b, " iif %s", n.IifName)
	}
	if n.UIDRange != nil {
		fmt.Fprintf(&b, " uidrange %d-%d", n.UIDRange.Start, n.UIDRange.End)
	}
	if n.OifName != "" {
		fmt.Fprintf(&b, " oif %s", n.OifName)
	}
	if n.Table != 0 {
		fmt.Fprintf(&b, " lookup %d", n.Table)
	}
	return b.String()
}
