package main

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/dnsintercept"
	"github.com/nws-vpn/nws-vpn/platform"
)

func networks(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// usualFakes are the fake addresses where nobody is in the way.
func usualFakes() dnsintercept.Range {
	r, _ := dnsintercept.FreeRange(nil)
	return r
}

// TestSplitHalves: what packets are told by, and what names.
func TestSplitHalves(t *testing.T) {
	type names struct{ listed, include, outside, dials bool }
	net, fakes := networks("192.0.2.0/24"), usualFakes()
	domain := []string{"example.com"}
	for _, c := range []struct {
		what    string
		up      config.Up
		include []netip.Prefix
		names   *names
	}{
		{"nothing", config.Up{}, nil, nil},
		{"networks excluded", config.Up{Exclude: net}, nil, nil},
		{"users excluded", config.Up{ExcludeUsers: []string{"7"}}, nil, nil},
		{"users included", config.Up{IncludeUsers: []string{"7"}}, nil, nil},
		{"names excluded", config.Up{ExcludeDomains: domain}, nil, &names{true, false, true, true}},
		{"names excluded, users included", config.Up{ExcludeDomains: domain, IncludeUsers: []string{"7"}}, nil, &names{true, false, true, true}},
		// All but networks is asked outside, unless users are in the tunnel.
		{"networks included", config.Up{Include: net}, net, &names{false, true, true, false}},
		{"networks and users included", config.Up{Include: net, IncludeUsers: []string{"7"}}, net, &names{false, true, false, false}},
		// Nothing but their fake addresses goes into the tunnel.
		{"names included", config.Up{IncludeDomains: domain}, fakes.Networks(), &names{true, true, true, false}},
		{"names and networks included", config.Up{IncludeDomains: domain, Include: net}, net, &names{true, true, true, false}},
		{"names and users included", config.Up{IncludeDomains: domain, IncludeUsers: []string{"7"}}, nil, &names{true, true, false, false}},
	} {
		var p platform.Config
		if err := splitPackets(&p, &c.up, fakes); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if !slices.Equal(p.Include, c.include) || !slices.Equal(p.Exclude, c.up.Exclude) || p.DNSNeeded != (len(c.up.IncludeDomains) > 0) ||
			len(p.IncludeUIDs) != len(c.up.IncludeUsers) || len(p.ExcludeUIDs) != len(c.up.ExcludeUsers) {
			t.Errorf("%s: the machine is told %+v", c.what, p)
		}
		s := splitNames(&c.up, fakes, func() []netip.Addr { return nil })
		if (s == nil) != (c.names == nil) {
			t.Errorf("%s: names are told %+v", c.what, s)
		} else if s != nil {
			if got := (names{len(s.Suffixes) > 0, s.Include, s.Outside != nil, s.Dialer != nil}); got != *c.names {
				t.Errorf("%s: names are told %+v, want %+v", c.what, got, *c.names)
			}
		}
	}
	for _, c := range []config.Up{{Exclude: networks("198.18.4.0/24")}, {Include: networks("fd6e:7773:7670:1::/64")}, {Exclude: fakes.Networks()}} {
		if err := splitPackets(new(platform.Config), &c, fakes); err == nil || !strings.Contains(err.Error(), "the tunnel's own") {
			t.Errorf("%v %v: %v", c.Exclude, c.Include, err)
		}
	}
}

// TestMayLeave: where a name may lead outside the tunnel.
func TestMayLeave(t *testing.T) {
	d := &directDialer{exclude: networks("10.1.0.0/16", "198.0.0.0/8", "fd00:1::/32"), own: usualFakes().Networks()}
	for address, want := range map[string]bool{
		"45.80.0.80:443": true, "[2a0e:77::80]:443": true,
		"10.1.2.3:80": true, "[fd00:1::7]:80": true, "[::ffff:10.1.2.3]:80": true, // by exclude
		"10.2.0.1:80": false, "192.168.1.1:80": false, "[fd00:2::1]:80": false, "[fe80::1%eth0]:80": false,
		"127.0.0.1:80": false, "[::1]:80": false, "0.0.0.0:80": false, "[::]:80": false, "169.254.169.254:80": false,
		"100.64.0.1:80": false, "224.0.0.251:5353": false, "255.255.255.255:67": false, "[ff02::fb]:5353": false,
		"198.18.4.4:80": false, "[fd6e:7773:7670:1::9]:80": false, // the tunnel's, though 198/8 is excluded
		"[::ffff:192.168.1.1]:80": false, "[64:ff9b::c0a8:101]:80": false, "[2002:c0a8:101::1]:80": false,
		"nonsense": false,
	} {
		if err := d.mayLeave(address); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := d.mayLeave("10.2.0.1:80"); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("a program hears %v", err)
	}
	if _, err := d.DialContext(t.Context(), "ping", "www.example"); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("a ping: %v", err)
	}
}

func TestRemembered(t *testing.T) {
	asked := 0
	get := remembered(func() []netip.Addr {
		asked++
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	})
	for range 100 {
		if list := get(); len(list) != 1 {
			t.Fatal(list)
		}
	}
	if asked < 1 || asked > 99 {
		t.Errorf("asked %d times for a hundred questions", asked)
	}
}

// Names that are asked of the tunnel's own servers go to the network's, each to
// one of its own. Nothing else leads to this machine itself.
func TestOutsidePlaces(t *testing.T) {
	servers := []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}
	for _, c := range []struct {
		address string
		known   int
		want    string // empty for an error
	}{
		{"198.18.0.2:53", 2, "192.0.2.53:53"},
		{"[fd6e:7773:7670::2]:53", 2, "[2001:db8::53]:53"},
		{"[fd6e:7773:7670::2]:53", 1, "192.0.2.53:53"},
		{"198.18.0.2:53", 0, ""},
		{"198.18.0.2:80", 2, ""},
		{"198.18.7.7:80", 2, ""},
		{"45.80.0.80:80", 2, "45.80.0.80:80"},
		{"[::ffff:45.80.0.80]:80", 2, "45.80.0.80:80"},
		{"127.0.0.1:80", 2, ""},
		{"[::1]:80", 2, ""},
		{"0.0.0.0:80", 2, ""},
		{"[::]:80", 2, ""},
		{"224.0.0.251:5353", 2, ""},
		{"[ff02::fb]:5353", 2, ""},
		{"10.77.1.2:80", 2, ""},
		{"[::ffff:10.77.1.2]:80", 2, ""},
		{"10.77.1.255:80", 2, ""},
		{"10.77.1.3:80", 2, ""},
	} {
		o := &outside{
			servers: func() []netip.Addr { return servers[:c.known] },
			way: func(to netip.Addr) (platform.Way, error) {
				switch to.String() {
				case "10.77.1.2", "10.77.1.255":
					return platform.Way{Device: "lo", Here: true}, nil
				case "10.77.1.3":
					return platform.Way{}, errors.New("nobody knows")
				}
				return platform.Way{Device: "eth0"}, nil
			},
		}
		to, err := o.place(c.address)
		if (err == nil) != (c.want != "") || err == nil && to.String() != c.want {
			t.Errorf("%s with %d servers: %v, %v; want %q", c.address, c.known, to, err, c.want)
		}
	}
}
