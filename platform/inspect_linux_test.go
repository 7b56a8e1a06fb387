package platform

import (
	"net/netip"
	"slices"
	"testing"
)

func TestInspect(t *testing.T) {
	enterNamespaces(t)
	dir := stateDir(t)
	any4, any6 := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:9::9")
	before := Inspect(dir)
	if len(before.Problems) > 0 || !before.Filtered || len(before.Filters) > 0 {
		t.Errorf("without a tunnel: %+v", before)
	}
	if slices.ContainsFunc(before.Rules, func(r RuleState) bool { return r.Ours }) {
		t.Errorf("rules of ours without a tunnel: %+v", before.Rules)
	}
	for _, to := range []netip.Addr{any4, any6} {
		if way, err := Ask(Question{To: to}); err != nil || way.Device != "eth0" {
			t.Errorf("%s without a tunnel: %+v, %v", to, way, err)
		}
	}

	tun := openTUN(t, "nws0")
	defer tun.Close()
	c, err := New(dir, Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	cfg := testConfig()
	cfg.Filter = FilterOn
	must(t, c.Set(cfg))
	in := Inspect(dir)
	if len(in.Problems) > 0 || !in.Resolver.Ours || !slices.Equal(in.Resolver.Uplink, before.Resolver.Servers) {
		t.Errorf("%v; resolver %+v", in.Problems, in.Resolver)
	}
	for _, family := range []int{4, 6} {
		leads := func(r RuleState) bool {
			return r.Ours && r.Family == family && r.All && r.Mask == 0 && r.Table == DefaultTable
		}
		guards := func(r RouteState) bool {
			return r.Ours && r.Family == family && r.Table == DefaultTable && r.Kind == "unreachable" && r.To.Bits() == 0
		}
		if !slices.ContainsFunc(in.Rules, leads) || !slices.ContainsFunc(in.Routes, guards) {
			t.Errorf("IPv%d: no rule or guard route in %+v, %+v", family, in.Rules, in.Routes)
		}
	}
	output := func(c FilterChain) bool { return c.Hook == "output" && c.Kind == "filter" && c.Drop && c.Rules > 0 }
	if i := slices.IndexFunc(in.Filters, func(t FilterTable) bool { return t.Family == "inet" && t.Name == "nws-vpn" }); i < 0 || !slices.ContainsFunc(in.Filters[i].Chains, output) {
		t.Errorf("the filter is not seen: %+v", in.Filters)
	}
	device := func(l LinkState) bool { return l.Name == "nws0" && l.TUN && l.Up }
	if !slices.ContainsFunc(in.Links, device) {
		t.Errorf("the device is not seen: %+v", in.Links)
	}
	for _, to := range []netip.Addr{any4, any6} {
		if way, err := Ask(Question{To: to}); err != nil || way.Device != "nws0" {
			t.Errorf("%s: %+v, %v", to, way, err)
		}
		if way, err := Ask(Question{To: to, Mark: DefaultMark}); err != nil || way.Device != "eth0" {
			t.Errorf("%s with the mark: %+v, %v", to, way, err)
		}
	}
	for text, here := range map[string]bool{
		"192.0.2.2": true, "2001:db8::2": true, "192.0.2.255": true, "127.1.2.3": true, "::1": true, "224.0.0.251": true, "203.0.113.9": false,
	} {
		if way, err := Ask(Question{To: netip.MustParseAddr(text), Mark: DefaultMark}); err != nil || way.Here != here {
			t.Errorf("%s: %+v, %v; want here %v", text, way, err, here)
		}
	}
	for _, own := range cfg.Addresses {
		if way, err := Ask(Question{To: own.Addr(), Mark: DefaultMark}); err != nil || !way.Here {
			t.Errorf("%s, which is the tunnel's: %+v, %v", own, way, err)
		}
	}
	tun.Close() // as a process that dies leaves it
	for _, to := range []netip.Addr{any4, any6} {
		if way, err := Ask(Question{To: to}); err != nil || way.Device != "" || way.Refused == "" {
			t.Errorf("%s without the device: %+v, %v", to, way, err)
		}
	}
}

func TestAbilities(t *testing.T) {
	enterNamespaces(t)
	for _, a := range Abilities() {
		needed := a.Name == AbilityAdmin || a.Name == AbilityTUN || a.Name == AbilityNFT
		if needed && (a.Missing != "" || a.Unknown) {
			t.Errorf("%+v", a)
		}
	}
	if m := tunMissing("/run/none"); m == "" {
		t.Error("a device that is missing is not missed")
	}
}
