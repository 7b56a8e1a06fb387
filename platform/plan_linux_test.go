package platform

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// plainFacts is a machine as most are.
func plainFacts() *facts {
	return &facts{
		link:    netlink.LinkAttrs{Index: 7, MTU: 1500},
		ipv6:    ipv6On,
		sysctls: map[string]int{srcValidMark: 0, arpIgnore: 0, rpFilter: 2},
		rules: map[int][]netlink.Rule{
			4: {rule(0, unix.RT_TABLE_LOCAL), rule(32766, unix.RT_TABLE_MAIN), rule(32767, unix.RT_TABLE_DEFAULT)},
			6: {rule(0, unix.RT_TABLE_LOCAL), rule(32766, unix.RT_TABLE_MAIN)},
		},
		routes: map[int][]netlink.Route{},
		addrs:  map[int][]netlink.Addr{},
		names:  map[int]string{2: "eth0", 7: "nws0"},
		resolv: savedFile{Kind: kindFile, Content: []byte("nameserver 192.0.2.53\n")},
	}
}

// rule is a rule as the kernel lists it.
func rule(priority, table int) netlink.Rule {
	r := netlink.NewRule()
	r.Priority, r.Table, r.Protocol = priority, table, unix.RTPROT_KERNEL
	return *r
}

func route(dst string, table, index int) netlink.Route {
	_, n, err := net.ParseCIDR(dst)
	if err != nil {
		panic(err)
	}
	return netlink.Route{Dst: n, Table: table, LinkIndex: index, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_STATIC}
}

const (
	script4 = `ip link set nws0 up
ip addr add 198.18.0.1/32 dev nws0 noprefixroute
ip -4 route add unreachable default metric 4294967295 table 20055
ip -4 route add default dev nws0 metric 1024 table 20055
`
	script6closed = `ip -6 route add unreachable default metric 4294967295 table 20055
`
	scriptRules4 = `ip -4 rule add pref 5600 fwmark 0x4e000000/0xff000000 lookup main
ip -4 rule add pref 5610 fwmark 0x4e000000/0xff000000 unreachable
`
	scriptRules = scriptRules4 + `ip -6 rule add pref 5600 fwmark 0x4e000000/0xff000000 lookup main
ip -6 rule add pref 5610 fwmark 0x4e000000/0xff000000 unreachable
ip -4 rule add pref 5620 lookup 20055
ip -6 rule add pref 5620 lookup 20055
`
	sysctls = `sysctl net.ipv4.conf.all.src_valid_mark=1
sysctl net.ipv4.conf.all.arp_ignore=2
`
	resolver = "replace the resolver's file\n"
)

func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		name    string
		cfg     func(*Config)
		facts   func(*facts)
		applied []change
		want    string
		notes   []string // a part of each
	}{
		{name: "both families", want: sysctls + `ip link set nws0 up
ip addr add 198.18.0.1/32 dev nws0 noprefixroute
ip addr add fd6e:7773:7670::1/128 dev nws0 noprefixroute
ip -4 route add unreachable default metric 4294967295 table 20055
ip -4 route add default dev nws0 metric 1024 table 20055
ip -6 route add unreachable default metric 4294967295 table 20055
ip -6 route add default dev nws0 metric 1024 table 20055
` + scriptRules + resolver},
		{
			name: "an address with a prefix is one address, and once",
			cfg: func(c *Config) {
				c.Addresses = []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15"), netip.MustParsePrefix("198.18.0.1/32")}
			},
			want: sysctls + script4 + script6closed + scriptRules + resolver,
		},
		{
			name: "no name server: the resolver's file is left alone",
			cfg:  func(c *Config) { c.DNS, c.Addresses = nil, c.Addresses[:1] },
			want: sysctls + script4 + script6closed + scriptRules,
		},
		{
			name:  "IPv6 off: closed",
			facts: func(f *facts) { f.ipv6 = ipv6Off },
			want:  sysctls + script4 + script6closed + scriptRules + resolver,
			notes: []string{"IPv6 is switched off"},
		},
		{
			name:  "no IPv6 in the kernel: skipped",
			facts: func(f *facts) { f.ipv6 = ipv6Missing },
			want:  sysctls + script4 + scriptRules4 + "ip -4 rule add pref 5620 lookup 20055\n" + resolver,
			notes: []string{"has no IPv6"},
		},
		{
			name:  "settings that are right or stricter are left alone",
			cfg:   func(c *Config) { c.Addresses = c.Addresses[:1] },
			facts: func(f *facts) { f.sysctls[srcValidMark], f.sysctls[arpIgnore] = 1, 8 },
			want:  script4 + script6closed + scriptRules + resolver,
		},
		{
			name:  "strict reverse path",
			cfg:   func(c *Config) { c.Addresses = c.Addresses[:1] },
			facts: func(f *facts) { f.strict = true },
			want:  sysctls + "sysctl net.ipv4.conf.all.rp_filter=2\n" + script4 + script6closed + scriptRules + resolver,
		},
		{
			name:    "a setting of ours stays ours",
			cfg:     func(c *Config) { c.Addresses = c.Addresses[:1] },
			facts:   func(f *facts) { f.sysctls[srcValidMark], f.sysctls[arpIgnore] = 1, 2 },
			applied: []change{&sysctlChange{Name: rpFilter, Value: 2, Old: 1}},
			want:    "sysctl net.ipv4.conf.all.rp_filter=2\n" + script4 + script6closed + scriptRules + resolver,
		},
		{
			name: "other numbers",
			cfg: func(c *Config) {
				*c = Config{Device: "nws0", Addresses: c.Addresses[:1], Mark: 0x10, Table: 77, RulePriority: 100}
			},
			facts: func(f *facts) { f.ipv6 = ipv6Missing },
			want: sysctls + strings.ReplaceAll(script4, "20055", "77") + `ip -4 rule add pref 100 fwmark 0x10/0xffffffff lookup main
ip -4 rule add pref 110 fwmark 0x10/0xffffffff unreachable
ip -4 rule add pref 120 lookup 77
`,
		},
		{
			name:  "the resolver's file cannot be read",
			cfg:   func(c *Config) { c.Addresses = c.Addresses[:1] },
			facts: func(f *facts) { f.resolvErr = errors.New("it is a pipe") },
			want:  sysctls + script4 + script6closed + scriptRules,
			notes: []string{"it is a pipe"},
		},
		{
			name:  "the resolver's file is ours, but the journal is gone",
			cfg:   func(c *Config) { c.Addresses = c.Addresses[:1] },
			facts: func(f *facts) { f.resolv.Content = []byte(resolvHeader + "nameserver 198.18.0.2\n") },
			want:  sysctls + script4 + script6closed + scriptRules + resolver,
			notes: []string{"left by an earlier tunnel"},
		},
		{
			name: "rules of others before ours",
			cfg:  func(c *Config) { c.Addresses = c.Addresses[:1] },
			facts: func(f *facts) {
				mask := uint32(0xff0000)
				ts := rule(5210, unix.RT_TABLE_MAIN)
				ts.Mark, ts.Mask = 0x80000, &mask
				src := rule(5615, 200)
				src.Src = &net.IPNet{IP: net.IP{10, 0, 0, 0}, Mask: net.CIDRMask(8, 32)}
				f.rules[4] = append(f.rules[4], ts, src, rule(5621, 201))
				f.rules[6] = append(f.rules[6], rule(1000, 202))
			},
			want: sysctls + script4 + script6closed + scriptRules + resolver,
			notes: []string{
				"IPv4 rule 5210: from all fwmark 0x80000/0xff0000 lookup 254 of another program",
				"IPv4 rule 5615: from 10.0.0.0/8 lookup 200 of another program",
				"IPv6 rule 1000: from all lookup 202 of another program",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, f := testConfig(), plainFacts()
			if tc.cfg != nil {
				tc.cfg(&cfg)
			}
			if tc.facts != nil {
				tc.facts(f)
			}
			list, notes, err := plan(cfg.withDefaults(), f, tc.applied)
			must(t, err)
			var got strings.Builder
			for _, c := range list {
				got.WriteString(c.String() + "\n")
			}
			if got.String() != tc.want {
				t.Errorf("plan:\n%s\nwant:\n%s", got.String(), tc.want)
			}
			if len(notes) != len(tc.notes) {
				t.Fatalf("notes %q, want %q", notes, tc.notes)
			}
			for i, n := range tc.notes {
				if !strings.Contains(notes[i], n) {
					t.Errorf("note %q, want %q in it", notes[i], n)
				}
			}
		})
	}
}

// TestPlanKeepsTheUndo plans on a machine where everything is in force already.
func TestPlanKeepsTheUndo(t *testing.T) {
	cfg := testConfig().withDefaults()
	f := plainFacts()
	f.strict = true
	first, _, err := plan(cfg, f, nil)
	must(t, err)
	f.link.MTU, f.link.Flags = cfg.MTU, net.FlagUp
	f.sysctls = map[string]int{srcValidMark: 1, arpIgnore: 2, rpFilter: 2}
	f.strict = false
	f.resolv = savedFile{Kind: kindFile, Content: formatResolvConf(cfg.DNS), Mode: 0o644}
	for _, c := range first {
		switch c := c.(type) {
		case *ruleChange:
			r := c.rule()
			f.rules[c.Family] = append(f.rules[c.Family], *r)
		case *routeChange:
			f.routes[c.Family] = append(f.routes[c.Family], *c.route())
		case *addressChange:
			a := c.addr()
			a.LinkIndex = c.Index
			f.addrs[familyOf(c.Address)] = append(f.addrs[familyOf(c.Address)], *a)
		}
	}
	second, notes, err := plan(cfg, f, first)
	must(t, err)
	if len(notes) != 0 || len(first) != len(second) {
		t.Fatalf("notes %q, %d changes and then %d", notes, len(first), len(second))
	}
	for i := range first {
		if !same(first[i], second[i]) {
			t.Errorf("%s: %+v became %+v", first[i], first[i], second[i])
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		facts func(*facts)
		want  []string
	}{
		{"rule number in use", func(f *facts) { f.rules[6] = append(f.rules[6], rule(5610, 300)) },
			[]string{"rule 5610: from all lookup 300 is not ours", "choose another rule priority than 5600", "ip -6 rule del pref 5610"}},
		{"rule of another of our tunnels", func(f *facts) {
			r := rule(5620, DefaultTable)
			r.Protocol = protocol
			f.rules[4] = append(f.rules[4], r)
		}, []string{"5620", "another state directory", "--state-dir"}},
		{"table in use", func(f *facts) { f.routes[4] = append(f.routes[4], route("10.1.0.0/16", DefaultTable, 2)) },
			[]string{"table 20055 holds a route to 10.1.0.0/16 that is not ours", "ip -4 route flush table 20055"}},
		{"address in a network that is routed", func(f *facts) { f.routes[4] = append(f.routes[4], route("198.18.0.0/16", 254, 2)) },
			[]string{"198.18.0.1 lies in 198.18.0.0/16", "by eth0", "choose another address"}},
		{"address in a network of a foreign table", func(f *facts) { f.routes[6] = append(f.routes[6], route("fd00::/8", 51820, 9)) },
			[]string{"fd6e:7773:7670::1 lies in fd00::/8", "table 51820"}},
		{"address of another interface", func(f *facts) {
			f.addrs[4] = append(f.addrs[4], netlink.Addr{LinkIndex: 2, IPNet: &net.IPNet{IP: net.IP{198, 18, 0, 1}, Mask: net.CIDRMask(24, 32)}})
		}, []string{"198.18.0.1 lies in 198.18.0.1/24", "eth0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := plainFacts()
			tc.facts(f)
			_, _, err := plan(testConfig().withDefaults(), f, nil)
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error is %v, want %q in it", err, want)
				}
			}
		})
	}
	// Great parts of the address space are no networks, nor what is ours.
	f := plainFacts()
	f.routes[4] = []netlink.Route{route("0.0.0.0/0", 254, 2), route("128.0.0.0/1", 254, 2), route("192.0.0.0/4", 254, 2), route("198.18.0.0/15", 254, 7)}
	if _, _, err := plan(testConfig().withDefaults(), f, nil); err != nil {
		t.Errorf("a default route in parts: %v", err)
	}
}
