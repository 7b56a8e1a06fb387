package platform

import (
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
)

// filterSpec is all that the packet filter depends on. Equal specs make equal
// filters.
type filterSpec struct {
	Device        string       `json:",omitempty"` // "": no tunnel
	Addresses     []netip.Addr `json:",omitempty"` // of the device
	Mark, Mask    uint32
	UID           uint32
	RefuseInbound bool           `json:",omitempty"`
	ForwardBlock  bool           `json:",omitempty"`
	AllowLAN      bool           `json:",omitempty"`
	LAN           []onLink       `json:",omitempty"` // what AllowLAN means now
	Containers    []onLink       `json:",omitempty"` // behind bridges of this machine
	Reserved      []netip.Prefix `json:",omitempty"`
	Exclude       []netip.Prefix `json:",omitempty"`
	Include       []netip.Prefix `json:",omitempty"`
	ExcludeUIDs   []uint32       `json:",omitempty"`
	IncludeUIDs   []uint32       `json:",omitempty"`
	Cgroup        *cgroup        `json:",omitempty"`
	Bridges       []string       `json:",omitempty"`
	// Linger is for how long Reserved stays refused afterwards.
	Linger time.Duration `json:",omitempty"`
	// Sessions are connections from outside that are older than the filter.
	Sessions []session `json:",omitempty"`
}

// onLink is a network that an interface is attached to.
type onLink struct {
	Device string
	Prefix netip.Prefix
}

// cgroup is one of version 2: its number, and how far below the root it is.
type cgroup struct {
	Path  string
	ID    uint64
	Level uint32
}

// session is a TCP connection.
type session struct{ Local, Remote netip.AddrPort }

// What the mark's bits of a connection (its ct mark) say. A packet's own mark
// tells the routing rules where it goes; this tells who was found entitled, and
// stays with the connection when its socket is gone.
func (s *filterSpec) uplink() uint32  { return s.Mark }     // our own, to a relay
func (s *filterSpec) inbound() uint32 { return s.other(1) } // began outside
func (s *filterSpec) direct() uint32  { return s.other(2) } // let past by the user

// other returns the n-th value of the mark's bits that is neither the mark nor
// zero, which is everybody else's. A mask of two bits has two.
func (s *filterSpec) other(n int) uint32 {
	for bits := -s.Mask & s.Mask; bits != 0; bits = (bits - s.Mask) & s.Mask {
		if v := s.Mark ^ bits; v != 0 {
			if n--; n == 0 {
				return v
			}
		}
	}
	return s.Mark // a mask of less, which no Config has
}

// filterChain is a chain with its rules. One without a hook is jumped to.
type filterChain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	drop     bool // what no rule decides
	rules    []filterRule
}

// chains compiles the spec. The order of the rules is their meaning: the first
// verdict counts.
func (s *filterSpec) chains() []filterChain {
	list := []filterChain{
		{name: "refuse", rules: []filterRule{line(isTCP, rejectReset), line(rejectICMP)}},
		// With the mark, what the kernel answers finds its way back.
		{name: "answer", rules: []filterRule{line(setMark(s.Mark, s.Mask)), line(isTCP, rejectReset), line(rejectICMP)}},
		{name: "guard", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting,
			priority: nftables.ChainPriorityRaw, rules: s.guardRules()},
		{name: "marks", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting,
			priority: nftables.ChainPriorityMangle, rules: s.markRules()},
		{name: "route", kind: nftables.ChainTypeRoute, hook: nftables.ChainHookOutput,
			priority: nftables.ChainPriorityMangle, rules: s.routeRules()},
		{name: "output", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookOutput,
			priority: nftables.ChainPriorityFilter, drop: true, rules: s.outputRules()},
		{name: "forward", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward,
			priority: nftables.ChainPriorityFilter, drop: true, rules: s.forwardRules()},
	}
	if s.RefuseInbound {
		list = append(list, filterChain{name: "input", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookInput,
			priority: nftables.ChainPriorityFilter, drop: true, rules: s.inputRules()})
	}
	if s.Cgroup != nil && s.Device != "" {
		list = append(list, filterChain{name: "source", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting,
			priority: nftables.ChainPriorityNATSource, rules: s.sourceRules()})
	}
	return list
}

// ours returns rules for the device, or none without one.
func (s *filterSpec) ours(rules ...filterRule) []filterRule {
	if s.Device == "" {
		return nil
	}
	return rules
}

// guardRules drop what comes from the network to the tunnel's addresses, or
// from the tunnel's networks: nobody outside may learn the address, or put
// packets into the tunnel's connections.
func (s *filterSpec) guardRules() []filterRule {
	var rules []filterRule
	outside := []term{iifNot("lo")}
	if s.Device != "" {
		outside = append(outside, iifNot(s.Device))
		for _, a := range s.Addresses {
			rules = append(rules, line(append(slices.Clone(outside), to(single(a)), drop)...))
		}
	}
	for _, p := range s.Reserved {
		rules = append(rules, line(append(slices.Clone(outside), from(p), drop)...))
	}
	return rules
}

// markRules tell connections that began outside, and give what comes in for a
// connection outside the tunnel the mark of one: the kernel then looks up the
// way back where the answer goes, and a strict check lets it in.
func (s *filterSpec) markRules() []filterRule {
	rules := []filterRule{line(iif("lo"), accept)}
	rules = append(rules, s.ours(line(iif(s.Device), accept))...)
	set := setMark(s.Mark, s.Mask)
	rules = append(rules,
		line(reply, flowMarkIs(s.uplink(), s.Mask), set, accept),
		line(reply, flowMarkIs(s.direct(), s.Mask), set, accept))
	if !s.RefuseInbound {
		rules = append(rules,
			line(original, isNew, toUs, setFlowMark(s.inbound(), s.Mask)),
			line(flowMarkIs(s.inbound(), s.Mask), set))
	}
	return rules
}

// routeRules note on a connection who may leave outside the tunnel, and lead
// there what belongs to it: changing a packet's mark has it routed again.
func (s *filterSpec) routeRules() []filterRule {
	rules := []filterRule{line(oif("lo"), accept)}
	rules = append(rules, line(original, markIs(s.Mark, s.Mask), ofUser(s.UID), setFlowMark(s.uplink(), s.Mask), accept))
	set := setMark(s.Mark, s.Mask)
	if len(s.ExcludeUIDs) > 0 || s.Cgroup != nil {
		for _, p := range s.Reserved {
			rules = append(rules, line(to(p), accept))
		}
	}
	for _, uid := range s.ExcludeUIDs {
		rules = append(rules, line(original, ofUser(uid), setFlowMark(s.direct(), s.Mask)))
	}
	if s.Cgroup != nil {
		rules = append(rules, line(original, ofCgroup(*s.Cgroup), setFlowMark(s.direct(), s.Mask)))
	}
	rules = append(rules, line(flowMarkIs(s.direct(), s.Mask), set, accept))
	if !s.RefuseInbound {
		rules = append(rules, line(reply, flowMarkIs(s.inbound(), s.Mask), set, accept))
	}
	for _, a := range s.Addresses {
		rules = append(rules, s.ours(line(from(single(a)), accept))...)
	}
	for _, c := range s.Sessions {
		rules = append(rules, line(isTCP, opensNot,
			from(single(c.Local.Addr())), fromPort(c.Local.Port()), to(single(c.Remote.Addr())), toPort(c.Remote.Port()),
			setFlowMark(s.direct(), s.Mask), set, accept))
	}
	return rules
}

// outputRules decide what the machine's own programs may send.
func (s *filterSpec) outputRules() []filterRule {
	rules := []filterRule{line(oif("lo"), accept)}
	rules = append(rules, s.ours(line(oif(s.Device), accept))...)
	for _, p := range s.Reserved {
		rules = append(rules, line(to(p), jump("refuse")))
	}
	rules = append(rules, line(markIs(s.Mark, s.Mask), flowMarkIs(s.uplink(), s.Mask), accept))
	if !s.RefuseInbound {
		rules = append(rules, line(reply, flowMarkIs(s.inbound(), s.Mask), accept))
	}
	rules = append(rules, line(flowMarkIs(s.direct(), s.Mask), accept))
	rules = append(rules, s.kernelRules()...)
	rules = append(rules, linkRules()...)
	rules = append(rules, towards(s.Containers)...)
	rules = append(rules, s.lanNameRules("refuse")...)
	rules = append(rules, towards(s.LAN)...)
	if s.AllowLAN {
		rules = append(rules, multicastRules()...)
	}
	for _, p := range s.Exclude {
		rules = append(rules, line(to(p), accept))
	}
	rules = append(rules, s.includeRules("refuse")...)
	return append(rules, line(jump("refuse")))
}

// kernelRules let the kernel refuse what others sent to this machine. What it
// answers by itself, to a packet with the mark, has the mark and no user.
func (s *filterSpec) kernelRules() []filterRule {
	marked := markIs(s.Mark, s.Mask)
	return []filterRule{
		line(marked, ofAnyUser, jump("refuse")),
		line(marked, isFamily(4), isICMP, icmpError4, accept),
		line(marked, isFamily(6), isICMPv6, icmpError6, accept),
		line(marked, isTCP, resets, accept),
	}
}

// linkRules are what keeps an uplink alive: addresses by DHCP, and finding the
// neighbours of IPv6. (ARP is not IP, and is not filtered.) To a neighbour that
// is not on a link-local address, only the kernel itself may speak that way.
func linkRules() []filterRule {
	linkLocal, allOnLink := netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff02::/16")
	rules := []filterRule{
		line(to(netip.MustParsePrefix("255.255.255.255/32")), isUDP, fromPort(68), toPort(67), accept),
		line(from(linkLocal), isUDP, fromPort(546), toPort(547), to(netip.MustParsePrefix("ff02::1:2/128")), accept),
		line(from(linkLocal), isUDP, fromPort(546), toPort(547), to(linkLocal), accept),
		line(isFamily(6), isICMPv6, fromHere, icmpv6Type(133, "nd-router-solicit"), to(netip.MustParsePrefix("ff02::2/128")), accept),
	}
	for _, t := range []term{icmpv6Type(135, "nd-neighbor-solicit"), icmpv6Type(136, "nd-neighbor-advert")} {
		for _, p := range []netip.Prefix{linkLocal, allOnLink} {
			rules = append(rules, line(isFamily(6), isICMPv6, fromHere, t, to(p), accept))
		}
		rules = append(rules,
			line(isFamily(6), isICMPv6, fromHere, t, ofAnyUser, jump("refuse")),
			line(isFamily(6), isICMPv6, fromHere, t, accept))
	}
	return rules
}

// towards lets out to networks by their own interface only.
func towards(list []onLink) []filterRule {
	var rules []filterRule
	for _, l := range list {
		rules = append(rules, line(oif(l.Device), to(l.Prefix), accept))
	}
	return rules
}

// lanNameRules keep questions for names from resolvers on the link, which are
// the network's own: its neighbours may be reached, but not told where one goes.
func (s *filterSpec) lanNameRules(refuse string) []filterRule {
	var rules []filterRule
	for _, l := range s.LAN {
		for _, protocol := range []term{isUDP, isTCP} {
			for _, port := range []uint16{53, 853} {
				rules = append(rules, line(oif(l.Device), address("daddr", l.Prefix), protocol, toPort(port), jump(refuse)))
			}
		}
	}
	return rules
}

// multicastRules are what finds printers and the like.
func multicastRules() []filterRule {
	var rules []filterRule
	for _, m := range []struct {
		group string
		port  uint16
	}{
		{"224.0.0.251", 5353}, {"ff02::fb", 5353}, // mDNS
		{"224.0.0.252", 5355}, {"ff02::1:3", 5355}, // LLMNR
		{"239.255.255.250", 1900}, {"ff02::c", 1900}, {"ff05::c", 1900}, // SSDP
		{"239.255.255.250", 3702}, {"ff02::c", 3702}, // WS-Discovery
	} {
		rules = append(rules, line(to(single(netip.MustParseAddr(m.group))), isUDP, toPort(m.port), accept))
	}
	// Joining these groups: IGMP, and its like of IPv6.
	return append(rules,
		line(to(netip.MustParsePrefix("224.0.0.0/24")), protocolIs(2, "igmp"), accept),
		line(isICMPv6, icmpv6Type(143, "mld2-listener-report"), to(netip.MustParsePrefix("ff02::16/128")), accept))
}

// includeRules let out what is not meant for the tunnel, where only some is.
func (s *filterSpec) includeRules(refuse string) []filterRule {
	if len(s.Include) == 0 && len(s.IncludeUIDs) == 0 {
		return nil
	}
	var rules []filterRule
	uids := s.IncludeUIDs
	if len(uids) == 0 {
		for _, p := range s.Include {
			rules = append(rules, line(to(p), jump(refuse)))
		}
	}
	for _, uid := range uids {
		for _, p := range s.Include {
			rules = append(rules, line(ofUser(uid), to(p), jump(refuse)))
		}
		if len(s.Include) == 0 {
			rules = append(rules, line(ofUser(uid), jump(refuse)))
		}
	}
	return append(rules, line(accept))
}

// forwardRules decide what the machine sends on for others: containers, virtual
// machines, the network it is a router of.
func (s *filterSpec) forwardRules() []filterRule {
	var rules []filterRule
	if !s.RefuseInbound {
		rules = append(rules, line(flowMarkIs(s.inbound(), s.Mask), accept)) // to published ports
	}
	rules = append(rules, s.ours(line(iif(s.Device), reply, accept), line(iif(s.Device), drop))...)
	for _, b := range s.Bridges {
		rules = append(rules, line(iif(b), oif(b), accept))
	}
	if s.ForwardBlock {
		return append(rules, line(jump("answer")))
	}
	rules = append(rules, s.ours(line(oif(s.Device), accept))...)
	for _, p := range s.Reserved {
		rules = append(rules, line(to(p), jump("answer")))
	}
	rules = append(rules, s.lanNameRules("answer")...)
	rules = append(rules, towards(s.LAN)...)
	for _, l := range s.LAN {
		rules = append(rules, line(iif(l.Device), from(l.Prefix), reply, accept))
	}
	for _, p := range s.Exclude {
		rules = append(rules, line(to(p), accept), line(from(p), reply, accept))
	}
	if len(s.IncludeUIDs) == 0 {
		rules = append(rules, s.includeRules("answer")...)
	}
	return append(rules, line(jump("answer")))
}

// inputRules let in answers, and what keeps an uplink alive.
func (s *filterSpec) inputRules() []filterRule {
	rules := []filterRule{line(iif("lo"), accept)}
	rules = append(rules, s.ours(line(iif(s.Device), accept))...)
	rules = append(rules,
		line(reply, accept), line(isRelated, accept),
		line(isFamily(4), isUDP, fromPort(67), toPort(68), accept),
		line(isFamily(6), isUDP, fromPort(547), toPort(546), accept))
	for _, t := range []term{icmpv6Type(134, "nd-router-advert"), icmpv6Type(135, "nd-neighbor-solicit"), icmpv6Type(136, "nd-neighbor-advert")} {
		rules = append(rules, line(isFamily(6), isICMPv6, fromHere, t, accept))
	}
	return rules
}

// sourceRules give a connection that was led past the tunnel after it had chosen
// the tunnel's address as its own another one.
func (s *filterSpec) sourceRules() []filterRule {
	var rules []filterRule
	for _, a := range s.Addresses {
		rules = append(rules, line(oifNot(s.Device), markIs(s.Mark, s.Mask), from(single(a)), masquerade))
	}
	return rules
}
