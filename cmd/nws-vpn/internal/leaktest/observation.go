package leaktest

import (
	"net/netip"
	"slices"
	"time"

	"github.com/nws-vpn/nws-vpn/platform"
)

// Settings are what the tunnel was told, as far as the kernel does not show it.
type Settings struct {
	Version string
	State   string // of the running tunnel, "" when it does not answer
	Problem string // why it does not answer, or what blocks it
	// Mark and Table are those of the configuration; those of the rules in force
	// come first.
	Mark   uint32
	Table  int
	Device string       // the tunnel's
	UID    uint32       // of the running tunnel
	DNS    []netip.Addr // the tunnel's name servers, or none when it leaves the resolver alone
}

// Observation is all that a report is made of.
type Observation struct {
	Settings Settings
	Time     time.Time
	Net      *platform.Inspection
	// Self is the user who runs this, As the one whose packets are asked about and
	// tried.
	Self, As uint32
	Ways     []Asked
	Watch    Watch
	Probes   []Probe
}

// Asked is a question to the kernel and its answer.
type Asked struct {
	platform.Question
	platform.Way
	// Forwarded is set for packets of others, Route for an address out of the
	// route of that network; else it is any address outside.
	Forwarded bool
	Route     netip.Prefix
	Problem   string // why there is no answer
}

// Watch is what the judge of the wires could do.
type Watch struct {
	Problem string          // why there is none, or "" when it ran on every uplink
	Proved  map[string]bool // the uplinks on which it has seen the permitted packet
}

// The kinds of probes.
const (
	KindPlain     = "any program"
	KindBound     = "bound to a device"
	KindSource    = "own address"
	KindRaw       = "raw packets"
	KindMark      = "forged mark"
	KindLAN       = "this network"
	KindDNS       = "name servers"
	KindResolver  = "resolver"
	KindMulticast = "multicast"
)

// kinds are in the order of the report.
var kinds = [...]string{KindPlain, KindBound, KindSource, KindRaw, KindMark, KindLAN, KindMulticast, KindDNS, KindResolver}

// Probe is one attempt to get past the tunnel.
type Probe struct {
	Kind      string
	Transport string // tcp, udp or icmp
	To        netip.AddrPort
	Device    string // that the socket is bound to, or whose address it has
	Mark      uint32
	token     []byte // what it carries

	Answered bool     // a question was answered
	Refused  string   // the error that the program got, "" for none
	Untried  string   // why it could not be tried
	Seen     []string // the devices that it left by
}

// table is our routing table, and what is in force of it.
type table struct {
	number int
	device string // where the default route leads
	users  bool   // only some users' traffic is led there
	routes []platform.RouteState
}

// ourTable finds the table that our rules lead to.
func (o *Observation) ourTable(family int) table {
	t := table{number: o.Settings.Table}
	for _, r := range o.Net.Rules {
		if r.Family == family && leads(r) {
			t.number = r.Table
		}
	}
	for _, r := range o.Net.Rules {
		t.users = t.users || r.Ours && r.Family == family && r.Users && r.Table == t.number
	}
	for _, r := range o.Net.Routes {
		if r.Ours && r.Family == family && r.Table == t.number {
			t.routes = append(t.routes, r)
			if r.Device != "" && r.Kind == "unicast" {
				t.device = r.Device
			}
		}
	}
	return t
}

// leads reports whether a rule is the one that leads everything into our table.
func leads(r platform.RuleState) bool {
	return r.Ours && r.All && r.Mask == 0 && r.Table != 0 && r.Table != mainTable
}

// mainTable is the kernel's number of the table main.
const mainTable = 254

// mark is the mark that our rules are about.
func (o *Observation) mark() (mark uint32) {
	for _, r := range o.Net.Rules {
		if r.Ours && r.Mask != 0 {
			return r.Mark
		}
	}
	return o.Settings.Mark
}

// permitted reports whether the user lets a network leave directly: routes of
// ours say so, or the tunnel is for some networks or users only.
func (t table) permitted(p netip.Prefix) bool {
	if t.users {
		return true
	}
	partial := len(t.routes) > 0
	for _, r := range t.routes {
		if r.Kind == "throw" && r.To.Bits() <= p.Bits() && r.To.Contains(p.Addr()) {
			return true
		}
		partial = partial && r.To.Bits() > 0
	}
	return partial
}

// stranger is a user that is neither the tunnel's nor one that its rules are
// about.
func (o *Observation) stranger() uint32 {
	const nobody = 65534
	uid := uint32(nobody)
	known := func(r platform.RuleState) bool {
		return r.Ours && r.Users && r.FirstUID <= uid && uid <= r.LastUID
	}
	for uid > 1 && (uid == o.Settings.UID || slices.ContainsFunc(o.Net.Rules, known)) {
		uid--
	}
	return uid
}

// tested is the user whose packets tell whether the tunnel is tight: the one who
// runs this, or a stranger when the tunnel's rules let that one out.
func (o *Observation) tested() uint32 {
	for _, r := range o.Net.Rules {
		if r.Ours && r.Users && r.Table == mainTable && r.FirstUID <= o.Self && o.Self <= r.LastUID {
			return o.stranger()
		}
	}
	return o.Self
}

// listed reports whether only what the user has listed is meant for the tunnel.
func (o *Observation) listed() bool {
	all4, all6 := netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	return o.ourTable(4).permitted(all4) || o.ourTable(6).permitted(all6)
}

// filter finds our table of the packet filter, or nil.
func (o *Observation) filter() *platform.FilterTable {
	for i, t := range o.Net.Filters {
		if t.Family == "inet" && t.Name == filterName {
			return &o.Net.Filters[i]
		}
	}
	return nil
}

// filterName is that of platform's table.
const filterName = "nws-vpn"

// drops reports whether a chain of ours drops what is not allowed at a hook.
func (o *Observation) drops(hook string) bool {
	t := o.filter()
	if t == nil {
		return false
	}
	for _, c := range t.Chains {
		if c.Hook == hook && c.Kind == "filter" && c.Drop && c.Rules > 0 {
			return true
		}
	}
	return false
}

// uplinks are the interfaces that something could leave by: all but the tunnel's
// own, those of other VPNs included.
func uplinks(in *platform.Inspection, device string) []platform.LinkState {
	const most = 8
	var list []platform.LinkState
	for _, l := range in.Links {
		own := l.TUN && (l.Name == device || slices.ContainsFunc(in.Routes, func(r platform.RouteState) bool {
			return r.Ours && r.Device == l.Name
		}))
		if l.Up && !l.Loopback && !own && len(list) < most {
			list = append(list, l)
		}
	}
	return list
}
