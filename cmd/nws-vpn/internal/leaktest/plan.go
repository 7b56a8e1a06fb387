package leaktest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"

	"github.com/nws-vpn/nws-vpn/platform"
)

// Bounds of a run.
const (
	maxProbes    = 200 // each has an address of its own in 192.0.2.0/24
	maxQuestions = 256
	maxServers   = 3
)

// Networks set aside for documentation (RFC 5737, 3849, 6676).
var (
	docs4  = netip.MustParsePrefix("192.0.2.0/24")
	docs6  = netip.MustParsePrefix("2001:db8::/32")
	group4 = netip.MustParseAddr("233.252.0.1")
	group6 = netip.MustParseAddr("ff02::db8:0:1")
)

// IsProbe reports whether a is among the addresses that probes go to, and nothing
// else does.
func IsProbe(a netip.Addr) bool { return docs4.Contains(a) || docs6.Contains(a) }

// portDiscard is where probes go that mean nothing (RFC 863), portDNS those
// that ask for a name.
const (
	portDiscard = 9
	portDNS     = 53
)

// planner makes the probes of one run.
type planner struct {
	run    [8]byte // random, the same for all probes of a run
	probes []Probe
}

// docAddr returns an address that no other probe of this run goes to.
func (p *planner) docAddr(family int) netip.Addr {
	n := len(p.probes) + 1
	if family == 4 {
		a := docs4.Addr().As4()
		a[3] = byte(n)
		return netip.AddrFrom4(a)
	}
	a := docs6.Addr().As16()
	copy(a[4:], p.run[:])
	binary.BigEndian.PutUint16(a[14:], uint16(n))
	return netip.AddrFrom16(a)
}

// token is what the next probe carries: lower-case letters and digits, so that
// it can be a name too.
func (p *planner) token() []byte {
	raw := binary.BigEndian.AppendUint16(p.run[:len(p.run):len(p.run)], uint16(len(p.probes)))
	return []byte(hex.EncodeToString(raw))
}

func (p *planner) add(probe Probe) {
	if len(p.probes) < maxProbes {
		probe.token = p.token()
		p.probes = append(p.probes, probe)
	}
}

// outside adds probes of some transports to an address outside.
func (p *planner) outside(kind, device string, mark uint32, transports ...string) {
	for _, family := range []int{4, 6} {
		for _, transport := range transports {
			p.add(Probe{Kind: kind, Transport: transport, Device: device, Mark: mark,
				To: netip.AddrPortFrom(p.docAddr(family), portDiscard)})
		}
	}
}

// planProbes lists the probes for a machine. control are the packets that may
// leave, one for each family and uplink: they prove that the judge sees.
func planProbes(in *platform.Inspection, links []platform.LinkState, run [8]byte, mark uint32) (probes []Probe, control []int) {
	p := &planner{run: run}
	for _, l := range links {
		for _, family := range []int{4, 6} {
			control = append(control, len(p.probes))
			p.add(Probe{Transport: "udp", Device: l.Name, Mark: mark, To: netip.AddrPortFrom(p.docAddr(family), portDiscard)})
		}
	}
	p.outside(KindPlain, "", 0, "udp", "tcp")
	p.outside(KindMark, "", mark, "udp", "tcp")
	p.servers(in)
	p.gateways(in)
	for _, l := range links {
		p.outside(KindBound, l.Name, 0, "udp", "tcp")
		p.outside(KindSource, l.Name, 0, "udp", "tcp")
		p.outside(KindRaw, l.Name, 0, "icmp")
		p.outside(KindMark, l.Name, mark, "udp")
		for _, group := range []netip.Addr{group4, group6} {
			p.add(Probe{Kind: KindMulticast, Transport: "udp", Device: l.Name, To: netip.AddrPortFrom(group, portDiscard)})
		}
	}
	return p.probes, control
}

// servers adds questions to the name servers of this network, and one to
// whatever resolves names here.
func (p *planner) servers(in *platform.Inspection) {
	for i, s := range in.Resolver.Uplink {
		if i < maxServers && s.IsValid() && !s.IsLoopback() {
			p.add(Probe{Kind: KindDNS, Transport: "udp", To: netip.AddrPortFrom(s, portDNS)})
		}
	}
	p.add(Probe{Kind: KindResolver, Transport: "udp"})
}

// gateways adds probes to this network's routers.
func (p *planner) gateways(in *platform.Inspection) {
	seen := make(map[netip.Addr]bool)
	for _, r := range in.Routes {
		if g := r.Gateway; g.IsValid() && !r.Ours && !seen[g] && len(seen) < 8 {
			seen[g] = true
			if g.IsLinkLocalUnicast() {
				g = g.WithZone(r.Device)
			}
			p.add(Probe{Kind: KindLAN, Transport: "udp", To: netip.AddrPortFrom(g, portDiscard)})
		}
	}
}

// planQuestions lists what the kernel is asked: the way of any packet, from each
// of our addresses, to each network that some route leads to, and that of
// packets that are forwarded.
func planQuestions(in *platform.Inspection, links []platform.LinkState) []Asked {
	var list []Asked
	add := func(a Asked) {
		if len(list) < maxQuestions {
			list = append(list, a)
		}
	}
	any := map[int]netip.Addr{4: docs4.Addr().Next(), 6: docs6.Addr().Next()}
	add(Asked{Question: platform.Question{To: any[4]}})
	add(Asked{Question: platform.Question{To: any[6]}})
	for _, l := range links {
		for _, a := range l.Addresses {
			family := familyOf(a.Addr())
			if a.Addr().IsLinkLocalUnicast() {
				continue
			}
			add(Asked{Question: platform.Question{To: any[family], From: a.Addr()}})
			if !a.IsSingleIP() {
				add(Asked{Question: platform.Question{To: any[family], From: neighbour(a), In: l.Name}, Forwarded: true})
			}
		}
	}
	for _, r := range in.Routes {
		to := r.To.Addr()
		if r.Ours || r.Kind != "unicast" || r.To.Bits() == 0 || to.IsLinkLocalUnicast() || to.IsMulticast() {
			continue
		}
		add(Asked{Question: platform.Question{To: within(r.To)}, Route: r.To})
	}
	return list
}

// neighbour is another address of the network.
func neighbour(own netip.Prefix) netip.Addr {
	a := own.Addr().Next()
	if !own.Contains(a) {
		a = own.Addr().Prev()
	}
	return a
}

// within is an address of a network that a packet may go to.
func within(p netip.Prefix) netip.Addr {
	for _, docs := range []netip.Addr{docs4.Addr().Next(), docs6.Addr().Next()} {
		if p.Contains(docs) {
			return docs
		}
	}
	a := p.Masked().Addr()
	if a.IsUnspecified() { // and nothing may go to the rest of 0.0.0.0/8
		a = netip.AddrFrom4([4]byte{1})
		if p.Addr().Is6() {
			a = p.Addr()
		}
	}
	if next := a.Next(); p.Contains(next) {
		return next
	}
	return a
}

// matcher tells the probes of a run by what leaves the machine.
type matcher struct {
	run   []byte // beginning of every token
	to    map[netip.Addr]int
	count int
}

func newMatcher(probes []Probe) *matcher {
	m := &matcher{to: make(map[netip.Addr]int), count: len(probes)}
	for i, p := range probes {
		m.run = p.token[:len(p.token)-4]
		if a := p.To.Addr(); docs4.Contains(a) || docs6.Contains(a) {
			m.to[a] = i
		}
	}
	return m
}

// The ethertypes that matter.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
)

// find returns the probe that a packet, without its link header, belongs to, or
// -1. That a neighbour is looked for at a probe's address counts too: it tells the
// network the destination.
func (m *matcher) find(ether uint16, packet []byte) int {
	if m.count == 0 {
		return -1
	}
	if i := m.carried(packet); i >= 0 {
		return i
	}
	var target []byte
	switch {
	case ether == etherIPv4 && len(packet) >= 20:
		target = packet[16:20]
	case ether == etherARP && len(packet) >= 28:
		target = packet[24:28]
	case ether == etherIPv6 && len(packet) >= 40:
		const icmpv6, neighborSolicitation = 58, 135
		target = packet[24:40]
		if packet[6] == icmpv6 && len(packet) >= 64 && packet[40] == neighborSolicitation {
			target = packet[48:64]
		}
	}
	addr, ok := netip.AddrFromSlice(target)
	if !ok {
		return -1
	}
	if i, ok := m.to[addr]; ok {
		return i
	}
	return -1
}

// carried finds a token in a packet, in letters of either case.
func (m *matcher) carried(packet []byte) int {
	lower := bytes.ToLower(packet)
	at := bytes.Index(lower, m.run)
	if at < 0 || len(lower) < at+len(m.run)+4 {
		return -1
	}
	var n [2]byte
	if _, err := hex.Decode(n[:], lower[at+len(m.run):][:4]); err != nil {
		return -1
	}
	if i := int(binary.BigEndian.Uint16(n[:])); i < m.count {
		return i
	}
	return -1
}
