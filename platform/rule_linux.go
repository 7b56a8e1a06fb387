package platform

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// protocol marks our rules and routes as ours in the kernel's tables ("proto
// 78" to the ip program). The number is free in iproute2's rt_protos.
const protocol = 78

// ruleChange is a routing rule: traffic with the mark, or all when Mask is 0,
// to the table, or to "unreachable" when Table is 0. It may take only what comes
// in by a device, goes to a network, or is of a user or a TCP connection.
type ruleChange struct {
	Family   int // 4 or 6
	Priority int
	Mark     uint32
	Mask     uint32
	Table    int
	In       string       `json:",omitempty"`
	To       netip.Prefix `json:",omitzero"`
	User     *uint32      `json:",omitempty"`
	Session  *session     `json:",omitempty"`
}

func (r *ruleChange) String() string {
	s := fmt.Sprintf("ip -%d rule add pref %d", r.Family, r.Priority)
	if r.Mask != 0 {
		s += fmt.Sprintf(" fwmark %#x/%#x", r.Mark, r.Mask)
	}
	if r.In != "" {
		s += " iif " + r.In
	}
	if r.To.IsValid() {
		s += " to " + r.To.String()
	}
	if c := r.Session; c != nil {
		s += fmt.Sprintf(" from %s to %s ipproto tcp sport %d dport %d", c.Local.Addr(), c.Remote.Addr(), c.Local.Port(), c.Remote.Port())
	}
	if r.User != nil {
		s += fmt.Sprintf(" uidrange %d-%d", *r.User, *r.User)
	}
	switch r.Table {
	case 0:
		return s + " unreachable"
	case unix.RT_TABLE_MAIN:
		return s + " lookup main"
	}
	return s + fmt.Sprintf(" lookup %d", r.Table)
}

func (r *ruleChange) check() error {
	if r.Priority < 1 || r.Priority > maxRulePriority+20 {
		return fmt.Errorf("rule priority %d", r.Priority)
	}
	if r.To.IsValid() && familyOf(r.To.Addr()) != r.Family {
		return fmt.Errorf("a rule to %s for IPv%d", r.To, r.Family)
	}
	if c := r.Session; c != nil && (!c.Local.IsValid() || !c.Remote.IsValid() || familyOf(c.Local.Addr()) != r.Family || familyOf(c.Remote.Addr()) != r.Family) {
		return errors.New("a rule for a connection that is none")
	}
	if r.In != "" {
		if err := checkDevice(r.In); err != nil {
			return err
		}
	}
	return checkFamily(r.Family)
}

func (r *ruleChange) rule() *netlink.Rule {
	n := netlink.NewRule()
	n.Family = afOf(r.Family)
	n.Priority = r.Priority
	n.Protocol = protocol
	n.Table = r.Table
	if r.Table == 0 {
		n.Type = unix.RTN_UNREACHABLE
	}
	if r.Mask != 0 {
		mask := r.Mask
		n.Mark, n.Mask = r.Mark, &mask
	}
	n.IifName = r.In
	if r.To.IsValid() {
		n.Dst = ipNet(r.To)
	}
	if c := r.Session; c != nil {
		n.Src, n.Dst = ipNet(single(c.Local.Addr())), ipNet(single(c.Remote.Addr()))
		n.IPProto = unix.IPPROTO_TCP
		n.Sport = netlink.NewRulePortRange(c.Local.Port(), c.Local.Port())
		n.Dport = netlink.NewRulePortRange(c.Remote.Port(), c.Remote.Port())
	}
	if r.User != nil {
		n.UIDRange = netlink.NewRuleUIDRange(*r.User, *r.User)
	}
	return n
}

func (r *ruleChange) inForce(e *env) (bool, error) {
	rules, err := e.listRules(r.Family)
	if err != nil {
		return false, err
	}
	for i := range rules {
		if r.matches(&rules[i]) {
			return true, nil
		}
	}
	return false, nil
}

// matches reports whether n, as the kernel lists it, is this rule. The action
// of a rule is not listed; a rule of ours without a table is an unreachable one.
func (r *ruleChange) matches(n *netlink.Rule) bool {
	var mask uint32
	if n.Mask != nil {
		mask = *n.Mask
	}
	want, rest := r.rule(), *n
	if r.To.IsValid() || r.Session != nil {
		if !sameNet(n.Dst, want.Dst, r.Family) || !sameNet(n.Src, want.Src, r.Family) {
			return false
		}
		rest.Dst, rest.Src = nil, nil
	}
	if r.User != nil {
		if n.UIDRange == nil || *n.UIDRange != *want.UIDRange {
			return false
		}
		rest.UIDRange = nil
	}
	if r.Session != nil {
		if n.IPProto != want.IPProto || n.Sport == nil || *n.Sport != *want.Sport || n.Dport == nil || *n.Dport != *want.Dport {
			return false
		}
		rest.IPProto, rest.Sport, rest.Dport = 0, nil, nil
	}
	rest.IifName = ""
	return n.Priority == r.Priority && n.Protocol == protocol && n.Table == r.Table && n.IifName == r.In &&
		n.Mark == r.Mark && mask == r.Mask && n.Goto < 0 && !narrows(&rest)
}

func sameNet(a, b *net.IPNet, family int) bool {
	return (a != nil) == (b != nil) && prefixOf(a, family) == prefixOf(b, family)
}

// narrows reports whether a rule takes only part of the traffic, by other means
// than a mark.
func narrows(n *netlink.Rule) bool {
	return n.Src != nil || n.Dst != nil || n.IifName != "" || n.OifName != "" || n.Invert ||
		n.Dport != nil || n.Sport != nil || n.UIDRange != nil || n.IPProto != 0 || n.Tos != 0 ||
		n.TunID != 0 || n.SuppressPrefixlen >= 0 || n.SuppressIfgroup >= 0
}

func (r *ruleChange) apply(*env) error {
	err := netlink.RuleAdd(r.rule())
	switch {
	case err == nil, errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: this kernel has no routing rules for IPv%d (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES)", err, r.Family)
	}
	return err
}

func (r *ruleChange) undo(*env) error {
	err := netlink.RuleDel(r.rule())
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	return err
}

// listRules returns the rules of one family, in the order the kernel asks them.
func listRules(family int) ([]netlink.Rule, error) {
	rules, err := dump(func() ([]netlink.Rule, error) { return netlink.RuleList(afOf(family)) })
	if err != nil {
		return nil, fmt.Errorf("list the IPv%d rules: %w", family, err)
	}
	// Without IPv6 the kernel answers with the rules of every family it has.
	own := rules[:0]
	for _, r := range rules {
		if r.Family == afOf(family) {
			own = append(own, r)
		}
	}
	return own, nil
}

func afOf(family int) int {
	if family == 6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
