package leaktest

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/platform"
)

var (
	all4, all6 = netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
	lan        = netip.MustParsePrefix("192.168.1.0/24")
	server     = netip.MustParseAddr("198.18.0.2")
)

// guarded is a machine whose tunnel is as it should be, with a judge that has
// seen nothing but what it had to.
func guarded() *Observation {
	in := &platform.Inspection{
		Links: []platform.LinkState{
			{Name: "lo", Loopback: true, Up: true}, {Name: "eth0", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.7/24")}},
			{Name: "nws0", TUN: true, Up: true},
		},
		Filters: []platform.FilterTable{{Family: "inet", Name: "nws-vpn", Chains: []platform.FilterChain{
			{Name: "output", Kind: "filter", Hook: "output", Drop: true, Rules: 9}, {Name: "forward", Kind: "filter", Hook: "forward", Drop: true, Rules: 3},
		}}},
		Filtered: true,
		Settings: map[string]string{"ipv4.ip_forward": "0"},
		Resolver: platform.ResolverState{Path: "/etc/resolv.conf", Servers: []netip.Addr{server}},
	}
	for family, all := range map[int]netip.Prefix{4: all4, 6: all6} {
		in.Rules = append(in.Rules,
			platform.RuleState{Family: family, Priority: 0, All: true, Table: 255, Text: "0: from all lookup 255"},
			platform.RuleState{Family: family, Priority: 5600, Ours: true, All: true, Mark: 1, Mask: 0xff, Table: 254},
			platform.RuleState{Family: family, Priority: 5612, Ours: true, Table: 254, Text: "5612: from all iif nws0 lookup 254"},
			platform.RuleState{Family: family, Priority: 5620, Ours: true, All: true, Table: 77},
			platform.RuleState{Family: family, Priority: 32766, All: true, Table: 254})
		in.Routes = append(in.Routes,
			platform.RouteState{Family: family, Table: 77, To: all, Kind: "unicast", Device: "nws0", Ours: true},
			platform.RouteState{Family: family, Table: 77, To: all, Kind: "unreachable", Ours: true},
			platform.RouteState{Family: family, Table: 254, To: all, Kind: "unicast", Device: "eth0"})
	}
	o := &Observation{
		Settings: Settings{State: "connected", Mark: 9, Table: 20055, DNS: []netip.Addr{server}},
		Net:      in, Watch: Watch{Proved: map[string]bool{"eth0": true}},
		Probes: []Probe{
			{Kind: KindPlain, Transport: "udp", To: netip.MustParseAddrPort("192.0.2.1:9")},
			{Kind: KindBound, Transport: "tcp", Device: "eth0", To: netip.MustParseAddrPort("192.0.2.2:9"), Refused: "operation not permitted"},
			{Kind: KindLAN, Transport: "udp", To: netip.MustParseAddrPort("192.168.1.1:9")},
		},
	}
	for _, to := range []string{"192.0.2.1", "2001:db8::1"} {
		o.Ways = append(o.Ways, Asked{Question: platform.Question{To: netip.MustParseAddr(to)}, Way: platform.Way{Device: "nws0"}})
	}
	return o
}

func remove[T any](list []T, is func(T) bool) []T {
	var out []T
	for _, x := range list {
		if !is(x) {
			out = append(out, x)
		}
	}
	return out
}

func noFilter(o *Observation) { o.Net.Filters = nil }

func noRule(family int) func(*Observation) {
	return func(o *Observation) {
		o.Net.Rules = remove(o.Net.Rules, func(r platform.RuleState) bool { return r.Ours && r.Family == family && r.Mask == 0 })
	}
}

func noGuard(o *Observation) {
	o.Net.Routes = remove(o.Net.Routes, func(r platform.RouteState) bool { return r.Kind == "unreachable" })
}

func foreignRule(o *Observation) {
	o.Net.Rules = append(o.Net.Rules, platform.RuleState{Family: 4, Priority: 100, Table: 254, Text: "100: from all lookup 254"})
}

func throwLAN(o *Observation) {
	o.Net.Routes = append(o.Net.Routes, platform.RouteState{Family: 4, Table: 77, To: lan, Kind: "throw", Ours: true})
}

func wayTo(route netip.Prefix) func(*Observation) {
	return func(o *Observation) {
		o.Ways = append(o.Ways, Asked{Question: platform.Question{To: route.Addr().Next()}, Route: route, Way: platform.Way{Device: "eth0"}})
	}
}

func forwarding(device string) func(*Observation) {
	return func(o *Observation) {
		o.Net.Settings["ipv4.ip_forward"] = "1"
		o.Ways = append(o.Ways, Asked{Question: platform.Question{To: netip.MustParseAddr("192.0.2.1"), In: "docker0"}, Forwarded: true, Way: platform.Way{Device: device}})
	}
}

func seen(kind string) func(*Observation) {
	return func(o *Observation) {
		for i := range o.Probes {
			if o.Probes[i].Kind == kind {
				o.Probes[i].Seen = []string{"eth0"}
			}
		}
	}
}

func servers(texts ...string) func(*Observation) {
	return func(o *Observation) {
		o.Net.Resolver.Servers = nil
		for _, s := range texts {
			o.Net.Resolver.Servers = append(o.Net.Resolver.Servers, netip.MustParseAddr(s))
		}
	}
}

func blind(o *Observation) { o.Watch = Watch{Problem: "not permitted"} }

// Every fault is named by its line and no other, with what to do.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name   string
		change []func(*Observation)
		check  string // the line with the verdict
		want   Verdict
		says   string
	}{
		{"as it should be", nil, "", OK, ""},
		{"IPv4 rule gone", []func(*Observation){noRule(4)}, "rules IPv4", Weak, "missing"},
		{"IPv6 rule gone", []func(*Observation){noRule(6)}, "rules IPv6", Weak, "missing"},
		{"IPv6 rule gone, no filter", []func(*Observation){noRule(6), noFilter}, "rules IPv6", Leak, "missing"},
		{"foreign rule", []func(*Observation){foreignRule}, "rules IPv4", Weak, "100: from all"},
		{"foreign rule, no filter", []func(*Observation){foreignRule, noFilter}, "rules IPv4", Leak, "100: from all"},
		{"no guard route", []func(*Observation){noGuard}, "routes IPv4", Weak, "guard"},
		{"no guard route, no filter", []func(*Observation){noGuard, noFilter}, "routes IPv6", Leak, "guard"},
		{"no filter", []func(*Observation){noFilter}, "packet filter", Weak, "inet nws-vpn"},
		{"an open filter", []func(*Observation){func(o *Observation) { o.Net.Filters[0].Chains[0].Drop = false }}, "packet filter", Weak, "does not drop"},
		{"an empty filter", []func(*Observation){func(o *Observation) { o.Net.Filters[0].Chains[0].Rules = 0 }}, "packet filter", Weak, "does not drop"},
		{"filter not to be read", []func(*Observation){func(o *Observation) { o.Net.Filtered = false; o.Net.Filters = nil }}, "packet filter", Unknown, "root"},
		{"a route past", []func(*Observation){wayTo(lan), noFilter}, "ways IPv4", Leak, "192.168.1.0/24 by eth0"},
		{"a route past, filtered", []func(*Observation){wayTo(lan)}, "ways IPv4", Weak, "192.168.1.0/24 by eth0"},
		{"a network left out by the user", []func(*Observation){wayTo(lan), throwLAN}, "", OK, ""},
		{"no answer of the kernel", []func(*Observation){func(o *Observation) { o.Ways[0].Problem = "no answer" }}, "ways IPv4", Unknown, "no answer"},
		{"containers past", []func(*Observation){forwarding("eth0"), noFilter}, "forwarded traffic", Leak, "docker0"},
		{"containers past, filtered", []func(*Observation){forwarding("eth0")}, "forwarded traffic", Weak, "docker0"},
		{"containers in the tunnel", []func(*Observation){forwarding("nws0")}, "", OK, ""},
		{"resolver overwritten", []func(*Observation){servers("192.168.1.1")}, "resolver's file", Weak, "192.168.1.1"},
		{"resolver empty", []func(*Observation){servers()}, "resolver's file", Weak, "no server"},
		{"a stub", []func(*Observation){servers("127.0.0.53")}, "", OK, ""},
		{"resolver left alone", []func(*Observation){servers("192.168.1.1"), func(o *Observation) { o.Settings.DNS = nil }}, "", OK, ""},
		{"a probe outside", []func(*Observation){seen(KindBound)}, KindBound, Leak, "TCP to 192.0.2.2:9 by eth0"},
		{"a plain probe outside", []func(*Observation){seen(KindPlain)}, KindPlain, Leak, "UDP to 192.0.2.1:9 on eth0"},
		{"a probe to this network", []func(*Observation){seen(KindLAN)}, KindLAN, Leak, "192.168.1.1"},
		{"a probe to this network, allowed", []func(*Observation){seen(KindLAN), throwLAN}, "", OK, ""},
		{"nobody watches", []func(*Observation){blind}, "judge", Unknown, "not permitted"},
		{"nobody watches what was not refused", []func(*Observation){blind}, KindPlain, Unknown, "192.0.2.1"},
		{"the judge is blind", []func(*Observation){func(o *Observation) { o.Watch.Proved["eth0"] = false }}, "judge", Unknown, "was not seen"},
		{"untried", []func(*Observation){func(o *Observation) { o.Probes[1].Untried = "only root" }}, KindBound, Unknown, "only root"},
		{"no answer of the tunnel", []func(*Observation){func(o *Observation) { o.Settings.State = "" }}, "tunnel", Unknown, "answer"},
		{"blocked", []func(*Observation){func(o *Observation) { o.Settings.State, o.Settings.Problem = "blocked", "no exit" }}, "", OK, ""},
		{"something not read", []func(*Observation){func(o *Observation) { o.Net.Problems = []string{"x"} }}, "reading the machine", Unknown, "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := guarded()
			for _, f := range c.change {
				f(o)
			}
			r := Judge(o)
			if c.check == "" && r.Verdict != OK {
				t.Errorf("%+v", r.Lines)
			}
			found := c.check == ""
			for _, l := range r.Lines {
				if l.Check == c.check {
					found = true
					if l.Verdict != c.want || !strings.Contains(l.Found, c.says) || l.Do == "" && c.want != Unknown {
						t.Errorf("%+v", l)
					}
				}
			}
			if !found || worse[r.Verdict] < worse[c.want] {
				t.Errorf("verdict %s, no line %q in %+v", r.Verdict, c.check, r.Lines)
			}
		})
	}
}

// Without the tunnel's device all is closed, and that is well.
func TestClosed(t *testing.T) {
	o := guarded()
	o.Net.Routes = remove(o.Net.Routes, func(r platform.RouteState) bool { return r.Device == "nws0" })
	for i := range o.Ways {
		o.Ways[i].Way = platform.Way{Refused: "no route to host"}
	}
	servers("192.168.1.1")(o) // is the network's, and cannot be asked
	if r := Judge(o); r.Verdict != OK {
		t.Errorf("%+v", r.Lines)
	}
}

// Where only some networks are meant for the tunnel, the rest may leave.
func TestPartialTunnel(t *testing.T) {
	o := guarded()
	for i := range o.Net.Routes {
		if r := &o.Net.Routes[i]; r.Ours {
			r.To = netip.MustParsePrefix("10.0.0.0/8")
			if r.Family == 6 {
				r.To = netip.MustParsePrefix("fc00::/7")
			}
		}
	}
	for i := range o.Ways {
		o.Ways[i].Way.Device = "eth0"
	}
	seen(KindPlain)(o)
	if r := Judge(o); r.Verdict != OK || !r.Listed {
		t.Errorf("%v, %+v", r.Listed, r.Lines)
	}
}

// Where only some users' traffic is meant for the tunnel, that of others may
// leave.
func TestTunnelForSomeUsers(t *testing.T) {
	o := guarded()
	for i := range o.Net.Rules {
		if r := &o.Net.Rules[i]; leads(*r) {
			r.All, r.Users, o.Settings.Table = false, true, r.Table
		}
	}
	for i := range o.Ways {
		o.Ways[i].Way.Device = "eth0"
	}
	seen(KindPlain)(o)
	if r := Judge(o); r.Verdict != OK || !r.Listed {
		t.Errorf("%v, %+v", r.Listed, r.Lines)
	}
}

// The user whose forged mark is tried is none whom the rules let out.
func TestStranger(t *testing.T) {
	o := guarded()
	if got := o.stranger(); got != 65534 || Judge(o).Listed {
		t.Errorf("user %d", got)
	}
	o.Settings.UID = 65533
	o.Net.Rules = append(o.Net.Rules,
		platform.RuleState{Family: 4, Ours: true, Users: true, FirstUID: 65534, LastUID: 65534},
		platform.RuleState{Family: 6, Ours: true, Users: true, FirstUID: 65530, LastUID: 65532})
	if got := o.stranger(); got != 65529 {
		t.Errorf("user %d", got)
	}
}

// Whoever is let out does not tell whether the tunnel is tight: another one's
// packets do, and the report says so.
func TestUserWhoIsLetOut(t *testing.T) {
	letOut := func(first, last uint32) platform.RuleState {
		return platform.RuleState{Family: 4, Priority: 5615, Ours: true, Users: true, FirstUID: first, LastUID: last, Table: mainTable}
	}
	foreign, refused, into := letOut(0, 0), letOut(0, 0), letOut(0, 0)
	foreign.Ours, refused.Table, into.Table = false, 0, 77
	for _, c := range []struct {
		name       string
		rules      []platform.RuleState
		self, want uint32
	}{
		{"nobody is", nil, 0, 0},
		{"root", []platform.RuleState{letOut(0, 0)}, 0, 65534},
		{"another one", []platform.RuleState{letOut(1000, 1000)}, 0, 0},
		{"a plain user", []platform.RuleState{letOut(1000, 1000)}, 1000, 65534},
		{"root and nobody", []platform.RuleState{letOut(0, 0), letOut(65534, 65534)}, 0, 65533},
		{"by another program", []platform.RuleState{foreign}, 0, 0},
		{"refused", []platform.RuleState{refused}, 0, 0},
		{"into the tunnel", []platform.RuleState{into}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := guarded()
			o.Net.Rules = append(o.Net.Rules, c.rules...)
			o.Self = c.self
			o.As = o.tested()
			if o.As != c.want {
				t.Errorf("user %d is tested, want %d", o.As, c.want)
			}
			says := false
			for _, l := range Judge(o).Lines {
				says = says || l.Check == "user" && strings.Contains(l.Found, "outside the tunnel")
			}
			if says != (c.self != c.want) {
				t.Errorf("the report tells of it: %v", says)
			}
		})
	}
}

func TestCodes(t *testing.T) {
	for v, want := range map[Verdict]int{OK: 0, Leak: 1, Weak: 1, Unknown: 2} {
		r := Report{Verdict: v}
		var b strings.Builder
		if err := r.Write(&b); r.Code() != want || err != nil || len(b.String()) < 20 {
			t.Errorf("%s: code %d, %v, %q", v, r.Code(), err, b.String())
		}
	}
}
