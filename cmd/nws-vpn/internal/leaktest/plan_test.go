package leaktest

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/platform"
)

func machineWith(links int) *platform.Inspection {
	in := guarded().Net
	in.Links = nil
	for i := range links {
		in.Links = append(in.Links, platform.LinkState{Name: fmt.Sprintf("eth%d", i), Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.7/24"), netip.MustParsePrefix("fe80::1/64")}})
	}
	in.Resolver.Uplink = []netip.Addr{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("127.0.0.53"), {}}
	in.Routes = append(in.Routes,
		platform.RouteState{Family: 4, Table: 254, To: all4, Kind: "unicast", Device: "eth0", Gateway: netip.MustParseAddr("192.168.1.1")},
		platform.RouteState{Family: 6, Table: 254, To: all6, Kind: "unicast", Device: "eth0", Gateway: netip.MustParseAddr("fe80::2")},
		platform.RouteState{Family: 4, Table: 254, To: netip.MustParsePrefix("0.0.0.0/1"), Kind: "unicast", Device: "eth0"},
		platform.RouteState{Family: 4, Table: 254, To: netip.MustParsePrefix("128.0.0.0/1"), Kind: "unicast", Device: "eth0"},
		platform.RouteState{Family: 4, Table: 254, To: lan, Kind: "unicast", Device: "eth0"},
		platform.RouteState{Family: 6, Table: 254, To: netip.MustParsePrefix("fe80::/64"), Kind: "unicast", Device: "eth0"})
	return in
}

func planned(in *platform.Inspection, run [8]byte, mark uint32) ([]Probe, []int) {
	return planProbes(in, uplinks(in, "nws0"), run, mark)
}

func questions(in *platform.Inspection) []Asked { return planQuestions(in, uplinks(in, "nws0")) }

// Another VPN's device is a way out, ours is not, whether our routes are there
// or not.
func TestUplinks(t *testing.T) {
	in := &platform.Inspection{Links: []platform.LinkState{
		{Name: "lo", Up: true, Loopback: true}, {Name: "eth0", Up: true}, {Name: "eth1"}, {Name: "tun0", Up: true, TUN: true},
		{Name: "nws0", Up: true, TUN: true}, {Name: "other", Up: true, TUN: true},
	}, Routes: []platform.RouteState{{Ours: true, Device: "other"}}}
	var names []string
	for _, l := range uplinks(in, "nws0") {
		names = append(names, l.Name)
	}
	if got := strings.Join(names, " "); got != "eth0 tun0" {
		t.Errorf("uplinks %s", got)
	}
}

// No probe goes to an address that somebody has, but those of this network.
func TestProbesRevealNothing(t *testing.T) {
	probes, control := planned(machineWith(2), [8]byte{1, 2, 3}, 7)
	if len(control) != 4 {
		t.Errorf("%d packets for the judge", len(control))
	}
	kindsSeen := make(map[string]bool)
	addrs, tokens := make(map[netip.Addr]bool), make(map[string]bool)
	for i, p := range probes {
		kindsSeen[p.Kind] = true
		a := p.To.Addr()
		switch {
		case strings.Contains(p.describe(), "invalid"):
			t.Errorf("%+v is described as %q", p, p.describe())
		case p.Kind == KindResolver:
		case docs4.Contains(a) || docs6.Contains(a):
			if addrs[a] {
				t.Errorf("%+v goes where another one does", p)
			}
			addrs[a] = true
		case p.Kind == KindMulticast && a.IsMulticast():
		case (p.Kind == KindLAN || p.Kind == KindDNS) && (a.IsPrivate() || a.IsLinkLocalUnicast()):
		default:
			t.Errorf("%+v goes to somebody", p)
		}
		if a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
			t.Errorf("%+v has no zone", p)
		}
		if tokens[string(p.token)] || len(p.token) != 20 {
			t.Errorf("token %q", p.token)
		}
		tokens[string(p.token)] = true
		if forged := p.Kind == KindMark || slices.Contains(control, i); (p.Mark != 0) != forged {
			t.Errorf("%+v", p)
		}
	}
	for _, k := range kinds {
		if !kindsSeen[k] {
			t.Errorf("there is no probe %q", k)
		}
	}
	if many, _ := planned(machineWith(50), [8]byte{}, 7); len(many) > maxProbes {
		t.Errorf("%d probes", len(many))
	}
}

func TestQuestions(t *testing.T) {
	var routes []string
	forwarded := 0
	for _, a := range questions(machineWith(1)) {
		if a.Route.IsValid() {
			if !a.Route.Contains(a.To) {
				t.Errorf("%v is not in %v", a.To, a.Route)
			}
			routes = append(routes, a.Route.String())
		}
		if a.Forwarded {
			forwarded++
			if a.From.String() != "192.168.1.8" || a.In != "eth0" {
				t.Errorf("%+v", a)
			}
		}
	}
	if got := strings.Join(routes, " "); got != "0.0.0.0/1 128.0.0.0/1 192.168.1.0/24" || forwarded != 1 {
		t.Errorf("asked for %s, %d forwarded", got, forwarded)
	}
	in := machineWith(1)
	for i := range 1000 {
		in.Routes = append(in.Routes, platform.RouteState{Family: 4, Table: 254, To: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24), Kind: "unicast"})
	}
	if got := len(questions(in)); got != maxQuestions {
		t.Errorf("%d questions", got)
	}
}

func TestWithin(t *testing.T) {
	for prefix, want := range map[string]string{
		"0.0.0.0/1": "1.0.0.1", "128.0.0.0/1": "192.0.2.1", "10.1.2.3/32": "10.1.2.3", "10.1.2.0/24": "10.1.2.1",
		"2000::/3": "2001:db8::1", "fd00::/8": "fd00::1", "::/1": "2001:db8::1",
	} {
		if got := within(netip.MustParsePrefix(prefix)).String(); got != want {
			t.Errorf("within %s: %s, want %s", prefix, got, want)
		}
	}
}

// A probe is known by what it carries and by where it goes, an address that is
// looked for on the link included.
func TestFind(t *testing.T) {
	probes, _ := planned(machineWith(1), [8]byte{0xab, 0xcd}, 7)
	m := newMatcher(probes)
	at := func(family int, transport string) (int, netip.Addr) {
		for i, p := range probes {
			if p.Kind == KindBound && p.Transport == transport && familyOf(p.To.Addr()) == family {
				return i, p.To.Addr()
			}
		}
		t.Fatal("there is none")
		return 0, netip.Addr{}
	}
	i4, to4 := at(4, "tcp")
	i6, to6 := at(6, "tcp")
	v4 := append(make([]byte, 16), to4.AsSlice()...)
	v6 := append(make([]byte, 24), to6.AsSlice()...)
	arp := append(make([]byte, 24), to4.AsSlice()...)
	ns := make([]byte, 72)
	ns[6], ns[40] = 58, 135
	copy(ns[48:], to6.AsSlice())
	other := append(make([]byte, 16), 192, 0, 2, 250)
	for _, c := range []struct {
		name   string
		ether  uint16
		packet []byte
		want   int
	}{
		{"IPv4", etherIPv4, v4, i4}, {"IPv6", etherIPv6, v6, i6}, {"ARP", etherARP, arp, i4}, {"neighbour solicitation", etherIPv6, ns, i6},
		{"to another address", etherIPv4, other, -1}, {"cut off", etherIPv4, v4[:19], -1}, {"empty", etherIPv6, nil, -1}, {"another protocol", 0x88cc, v4, -1},
		{"a payload", 0x88cc, append([]byte("xx"), probes[3].token...), 3},
		{"a payload in capitals", etherIPv4, bytes.ToUpper(probes[5].token), 5},
		{"a payload cut off", etherIPv4, probes[5].token[:18], -1},
		{"a payload of no probe", etherIPv4, append(bytes.Clone(probes[5].token[:16]), "ffff"...), -1},
		{"a payload that is none", etherIPv4, append(bytes.Clone(probes[5].token[:16]), "zzzz"...), -1},
	} {
		if got := m.find(c.ether, c.packet); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if got := newMatcher(nil).find(etherIPv4, v4); got != -1 {
		t.Errorf("without probes: %d", got)
	}
}

func FuzzFind(f *testing.F) {
	probes, _ := planned(machineWith(1), [8]byte{0xab}, 7)
	m := newMatcher(probes)
	f.Add(uint16(etherIPv4), []byte("x"))
	f.Add(uint16(etherIPv6), append(make([]byte, 40), probes[0].token...))
	f.Fuzz(func(t *testing.T, ether uint16, packet []byte) {
		if i := m.find(ether, packet); i < -1 || i >= len(probes) {
			t.Errorf("%d", i)
		}
	})
}
