package exit

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// testGate has a policy and made-up local networks.
func testGate(t *testing.T, p Policy, local ...string) *gate {
	t.Helper()
	nets, err := newLocalNets(func() ([]netip.Prefix, error) { return prefixes(t, local...), nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGate(p, nets)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func prefixes(t *testing.T, text ...string) []netip.Prefix {
	t.Helper()
	var out []netip.Prefix
	for _, s := range text {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// The first, the last and a middle address of each special range, and the
// neighbours that are public.
//
// leak check 50: every private and special range, first, last and middle address
func TestSpecialAddresses(t *testing.T) {
	g := testGate(t, Policy{})
	for _, a := range []string{
		"0.0.0.0", "0.0.0.1", "0.255.255.255",
		"10.0.0.0", "10.1.2.3", "10.255.255.255",
		"100.64.0.0", "100.100.100.200", "100.127.255.255",
		"127.0.0.0", "127.0.0.1", "127.0.0.53", "127.255.255.255",
		"168.63.129.16",
		"169.254.0.0", "169.254.169.254", "169.254.170.2", "169.254.255.255",
		"172.16.0.0", "172.20.1.1", "172.31.255.255",
		"192.0.0.0", "192.0.0.192", "192.0.0.255",
		"192.0.2.0", "192.0.2.255", "198.51.100.0", "198.51.100.255", "203.0.113.0", "203.0.113.255",
		"192.88.99.0", "192.88.99.255",
		"192.168.0.0", "192.168.1.1", "192.168.255.255",
		"198.18.0.0", "198.19.255.255",
		"224.0.0.0", "224.0.0.251", "239.255.255.255",
		"240.0.0.0", "255.255.255.254", "255.255.255.255",
		"::", "::1", "::2",
		"100::", "100::1", "5f00::1", "4000::1", "8000::1", "1fff::1", "e000::1",
		"64:ff9b:1::", "64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
		"2001::", "2001::1", "2001:1::1", "2001:20::1", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
		"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
		"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
		"fc00::", "fd00:ec2::254", "fd20:ce::254", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"fe80::1", "febf:ffff::1", "fec0::1", "feff::1",
		"ff00::", "ff02::fb", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	} {
		refused(t, g, a, ReasonSpecial)
	}
	for _, a := range []string{
		"1.0.0.0", "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
		"126.255.255.255", "128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0",
		"172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0", "192.88.98.255",
		"192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255",
		"198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255",
		"2000::1", "2001:200::1", "2001:db7:ffff::1", "2001:db9::1", "2606:4700:4700::1111",
		"2a00:1450:4001:82a::200e", "3ffe:ffff::1", "3fff:1000::1",
	} {
		if err := g.checkAddr(netip.MustParseAddr(a)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}

func refused(t *testing.T, g *gate, addr string, want Reason) {
	t.Helper()
	err := g.checkAddr(netip.MustParseAddr(addr))
	if r := (*Refusal)(nil); !errors.As(err, &r) || r.Reason != want {
		t.Errorf("%s: %v, want a refusal for %v", addr, err, want)
	} else if !errors.Is(err, syscall.EACCES) || wire.CodeOf(err) != wire.CodeDenied {
		t.Errorf("%s: refused with %v, want EACCES", addr, wire.CodeOf(err))
	}
}

// disguises writes an IPv4 address in all the ways that something on the way
// may take for it.
func disguises(v4 netip.Addr) map[string]netip.Addr {
	b := v4.As4()
	embed := func(prefix string, at int) netip.Addr {
		a := netip.MustParseAddr(prefix).As16()
		copy(a[at:], b[:])
		return netip.AddrFrom16(a)
	}
	return map[string]netip.Addr{
		"mapped":           embed("::ffff:0:0", 12),
		"compatible":       embed("::", 12),
		"translated":       embed("::ffff:0:0:0", 12),
		"NAT64":            embed("64:ff9b::", 12),
		"local NAT64":      embed("64:ff9b:1::", 12),
		"6to4":             embed("2002::1", 2),
		"ISATAP":           embed("2a00:1:2:3:0:5efe::", 12),
		"ISATAP, global":   embed("2a00:1:2:3:200:5efe::", 12),
		"Teredo server":    embed("2001:0:808:808::", 4),
		"NAT64 and mapped": embed("64:ff9b::", 12).Unmap(),
	}
}

// leak check 50: addresses in disguise: v4-mapped, NAT64, 6to4
func TestDisguisedAddresses(t *testing.T) {
	g := testGate(t, Policy{}, "45.67.89.10/24")
	for _, a := range []string{"10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "224.0.0.1", "100.64.0.1", "198.18.0.1"} {
		for how, d := range disguises(netip.MustParseAddr(a)) {
			if err := g.checkAddr(d); reasonOf(err) != ReasonSpecial {
				t.Errorf("%s as %s (%v): %v", a, how, d, err)
			}
		}
	}
	for how, d := range disguises(netip.MustParseAddr("45.67.89.200")) {
		if r := reasonOf(g.checkAddr(d)); r != ReasonLocal && r != ReasonSpecial {
			t.Errorf("a neighbour as %s (%v) is let through", how, d)
		}
	}
	// A translator is a way to the public internet, too.
	public := disguises(netip.MustParseAddr("8.8.8.8"))
	for _, how := range []string{"mapped", "NAT64", "6to4"} {
		if err := g.checkAddr(public[how]); err != nil {
			t.Errorf("8.8.8.8 as %s: %v", how, err)
		}
	}
}

func TestZonesAndInvalidAddresses(t *testing.T) {
	g := testGate(t, Policy{AllowPrivate: prefixes(t, "::/0", "0.0.0.0/0")})
	refused(t, g, "fe80::1%eth0", ReasonMalformed)
	refused(t, g, "2606:4700::1%lo", ReasonMalformed)
	if err := g.checkAddr(netip.Addr{}); err == nil {
		t.Error("the zero address is let through")
	}
}

// leak check 50: the exit's own addresses and networks
func TestOwnAddressesAndNetworks(t *testing.T) {
	g := testGate(t, Policy{AllowPrivate: prefixes(t, "45.67.89.200/32")}, "45.67.89.10/24", "2a00:1:2:3::10/64", "51.2.3.4/32")
	for _, a := range []string{"45.67.89.10", "45.67.89.1", "45.67.89.255", "::ffff:45.67.89.10", "2a00:1:2:3::10", "2a00:1:2:3:ffff::", "51.2.3.4"} {
		refused(t, g, a, ReasonLocal)
	}
	for _, a := range []string{"45.67.90.1", "45.67.89.200", "51.2.3.5", "2a00:1:2:4::10"} {
		if err := g.checkAddr(netip.MustParseAddr(a)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}

// What this very machine has, it refuses.
func TestThisMachinesAddresses(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	if len(addrs) == 0 {
		t.Fatal("a machine without a single address cannot test this")
	}
	for _, addr := range addrs {
		a, _ := netip.AddrFromSlice(addr.(*net.IPNet).IP)
		if !s.gate.Load().local.contains(a.Unmap()) {
			t.Errorf("%v is not known as an own address", a)
		}
		if s.gate.Load().checkAddr(a) == nil {
			t.Errorf("%v is let through", a)
		}
	}
}

func TestLocalNetworksAreReadAgain(t *testing.T) {
	var err error
	list := prefixes(t, "45.0.0.1/32")
	l, newErr := newLocalNets(func() ([]netip.Prefix, error) { return list, err }, slog.New(slog.DiscardHandler))
	if newErr != nil {
		t.Fatal(newErr)
	}
	expire := func() { l.fresh = l.fresh.Add(-2 * localLifetime) }
	a := netip.MustParseAddr("46.0.0.1")
	if l.contains(a) {
		t.Fatal("known too early")
	}
	list = prefixes(t, "46.0.0.1/32")
	if expire(); !l.contains(a) {
		t.Error("a new address is not noticed")
	}
	list, err = nil, errors.New("no netlink")
	if expire(); !l.contains(a) {
		t.Error("a failed reading made the list empty")
	}
	if _, err := newLocalNets(l.read, l.log); err == nil {
		t.Error("an exit starts without knowing its networks")
	}
}

func TestAllowPrivate(t *testing.T) {
	g := testGate(t, Policy{AllowPrivate: prefixes(t,
		"10.1.0.0/16", "127.0.0.1/32", "fd00:1::/32", "::ffff:192.168.7.0/120", "0.0.0.0/8", "224.0.0.0/4", "64:ff9b::/96", "ff00::/8", "::/128",
	)}, "10.1.2.3/24")
	for _, a := range []string{"10.1.0.0", "10.1.2.3", "10.1.255.255", "127.0.0.1", "fd00:1::1", "192.168.7.9", "::ffff:10.1.0.1", "64:ff9b::10.1.0.1", "2002:a01:1::1", "8.8.8.8"} {
		if err := g.checkAddr(netip.MustParseAddr(a)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	for _, a := range []string{
		"10.0.255.255", "10.2.0.0", "127.0.0.2", "fd00:2::1", "192.168.8.1",
		"64:ff9b::10.2.0.1", "64:ff9b::127.0.0.2", // the translator is open, not all behind it
		"0.0.0.0", "224.0.0.1", "::", "ff02::1", // no use in any case
	} {
		refused(t, g, a, ReasonSpecial)
	}
	for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("::ffff:0:0/95")} {
		if _, err := New(Config{Policy: Policy{AllowPrivate: []netip.Prefix{bad}}}); err == nil {
			t.Errorf("allow_private %v is taken", bad)
		}
	}
}

// leak check 50: names with public and private addresses
func TestMixedAnswers(t *testing.T) {
	g := testGate(t, Policy{}, "45.67.89.10/24")
	for _, tt := range []struct {
		addrs []string
		want  Reason
		ok    bool
	}{
		{addrs: []string{"8.8.8.8", "2606:4700::1"}, ok: true},
		{addrs: []string{"8.8.8.8", "10.0.0.1"}, want: ReasonMixed},
		{addrs: []string{"10.0.0.1", "8.8.8.8"}, want: ReasonMixed},
		{addrs: []string{"8.8.8.8", "::ffff:127.0.0.1"}, want: ReasonMixed},
		{addrs: []string{"8.8.8.8", "fd00::1"}, want: ReasonMixed},
		{addrs: []string{"8.8.8.8", "45.67.89.1"}, want: ReasonMixed},
		{addrs: []string{"10.0.0.1", "fd00::1"}, want: ReasonSpecial},
		{addrs: []string{"45.67.89.1"}, want: ReasonLocal},
	} {
		var addrs []netip.Addr
		for _, a := range tt.addrs {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		if err := g.checkAll(wish{network: "tcp", port: 443}, addrs); (err == nil) != tt.ok || err != nil && reasonOf(err) != tt.want {
			t.Errorf("%v: %v, want %v", tt.addrs, err, tt.want)
		}
	}
}
