package platform

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestResolvedClaims(t *testing.T) {
	const device = 9
	server := func(index int32, text string) managerServer {
		a := netip.MustParseAddr(text)
		family := int32(unix.AF_INET)
		if a.Is6() {
			family = unix.AF_INET6
		}
		return managerServer{index, family, a.AsSlice()}
	}
	many := make([]managerDomain, 2*maxClaims)
	for i := range many {
		many[i] = managerDomain{2, fmt.Sprintf("d%03d", i), false}
	}
	refused := []managerServer{server(2, "192.168.1.1"), server(3, "fe80::1")}
	for _, c := range []struct {
		name    string
		servers []managerServer
		domains []managerDomain
		want    string
	}{
		{"none", refused, nil, ""},
		{"search and routing", refused, []managerDomain{{2, "lan", false}, {3, "corp.example", true}}, "corp.example lan"},
		{"the same twice", refused, []managerDomain{{2, "LAN", false}, {3, "lan.", true}}, "lan"},
		{"the root is ours as it is", refused, []managerDomain{{2, ".", true}, {3, "", true}}, ""},
		{"our own", append(refused, server(device, "198.18.0.1")), []managerDomain{{device, ".", true}, {device, "lan", true}}, ""},
		{"a link without servers is not asked", refused, []managerDomain{{4, "lan", false}}, ""},
		{"the machine's own, whose servers are asked in the tunnel", append(refused, server(0, "9.9.9.9")), []managerDomain{{0, "lan", false}}, ""},
		{"a server that can be asked", append(refused, server(2, "127.0.0.1")), []managerDomain{{2, "lan", false}, {3, "corp", false}}, "corp"},
		{"no name", refused, []managerDomain{{2, strings.Repeat("x", 254), false}}, ""},
		{"no address", []managerServer{{2, unix.AF_INET, []byte{1}}}, []managerDomain{{2, "lan", false}}, "lan"},
	} {
		got := strings.Join(resolvedClaims(c.servers, c.domains, device, netip.Addr.IsLoopback), " ")
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := resolvedClaims(refused, many, device, netip.Addr.IsLoopback); len(got) != maxClaims {
		t.Errorf("%d domains", len(got))
	}
}

func TestMayAsk(t *testing.T) {
	f := &facts{
		inside: []onLink{{Prefix: netip.MustParsePrefix("172.17.0.0/16")}},
		lan:    []onLink{{Prefix: netip.MustParsePrefix("192.168.1.0/24")}},
	}
	lan, off := Config{Filter: FilterOn, AllowLAN: true}, Config{Filter: FilterOff, AllowLAN: true}
	excluded := Config{Filter: FilterOn, Exclude: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, c := range []struct {
		cfg    Config
		server string
		want   bool
	}{
		{lan, "127.0.0.53", true},
		{lan, "::1", true},
		{lan, "172.17.0.2", true},
		{lan, "192.168.1.1", false}, // the filter lets no question out
		{off, "192.168.1.1", true},
		{lan, "10.1.2.3", false},
		{excluded, "10.1.2.3", true},
		{excluded, "9.9.9.9", false},
	} {
		if got := f.mayAsk(c.cfg, netip.MustParseAddr(c.server)); got != c.want {
			t.Errorf("%+v, %s: %v", c.cfg, c.server, got)
		}
	}
}

// TestNamesOfTheUplinksDomains: names under a domain of the network are asked in
// the tunnel as all others, whatever the network is; but not where its own servers
// can be asked.
func TestNamesOfTheUplinksDomains(t *testing.T) {
	enterNamespaces(t)
	stubLink(t)
	startBus(t, "resolved")
	before := snapshot(t)
	tun := openTUN(t, "nws0")
	c, err := open(stateDir(t), testLog(t), testEnv(nil))
	must(t, err)
	check := func(when string, want ...linkDomain) {
		t.Helper()
		text, err := os.ReadFile("/run/resolved.links")
		must(t, err)
		if !strings.Contains(string(text), fmt.Sprint(want)) || len(c.Notes()) > 0 {
			t.Errorf("%s, the links have %s, want %v; notes %q", when, text, want, c.Notes())
		}
	}
	cfg := testConfig()
	for _, lan := range []bool{false, true} {
		cfg.Filter, cfg.AllowLAN = FilterOn, lan
		must(t, c.Set(cfg))
		check(fmt.Sprintf("allow_lan %v", lan), linkDomain{".", true}, linkDomain{"lan", true})
	}
	split := cfg
	split.Exclude = []netip.Prefix{netip.MustParsePrefix("192.0.2.53/32")}
	must(t, c.Set(split))
	check("with its server let out", linkDomain{".", true})
	split.Exclude, split.Include = nil, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	must(t, c.Set(split))
	check("with only one network in the tunnel", linkDomain{".", true})
	must(t, c.Set(cfg))

	var told []string
	k := newKeeper(c, &told)
	must(t, k.look(time.Now()))
	tellFake(t, resolvedName, resolvedPath, "203.0.113.53")
	must(t, k.look(time.Now()))
	check("in another network", linkDomain{".", true}, linkDomain{"roamed.example", true})
	if len(told) > 0 {
		t.Errorf("Keep says %q", told)
	}
	for _, ch := range c.applied {
		if ok, err := ch.inForce(c.env); !ok || err != nil {
			t.Errorf("%s is not in force: %v", ch, err)
		}
	}
	must(t, c.Close())
	tun.Close()
	tellFake(t, resolvedName, resolvedPath, "192.0.2.53")
	if d := diff(before, snapshot(t)); d != "" {
		t.Errorf("down left a difference:\n%s", d)
	}
}

func TestSameDomains(t *testing.T) {
	ours := []linkDomain{{".", true}, {"lan", true}}
	for _, same := range [][]linkDomain{{{"lan", true}, {".", true}}, {{".", true}, {"LAN.", true}}} {
		if !sameDomains(same, ours) {
			t.Errorf("%v", same)
		}
	}
	for _, other := range [][]linkDomain{nil, {{".", true}}, {{".", true}, {"lan", false}}, append(slices.Clone(ours), linkDomain{"x", true})} {
		if sameDomains(other, ours) {
			t.Errorf("%v", other)
		}
	}
}
