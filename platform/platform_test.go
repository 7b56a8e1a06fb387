package platform

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	valid := Config{
		Device:    "nws0",
		Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/32")},
		DNS:       []netip.Addr{netip.MustParseAddr("198.18.0.2")},
	}
	if err := valid.withDefaults().validate(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		spoil func(*Config)
		want  string
	}{
		{"a range for all", func(c *Config) { c.Include = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")} }, "no network"},
		{"too many networks", func(c *Config) { c.Exclude = slices.Repeat([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, 257) }, "at most 256"},
		{"too many users", func(c *Config) { c.ExcludeUIDs = make([]uint32, 65) }, "users"},
		{"lingers too long", func(c *Config) { c.Linger = 2 * time.Hour }, "stay refused"},
		{"hold without a filter", func(c *Config) { c.Hold = true }, "kill switch"},
		{"no inbound without a filter", func(c *Config) { c.RefuseInbound = true }, "kill switch"},
		{"forwarding blocked without a filter", func(c *Config) { c.ForwardBlock = true }, "kill switch"},
		{"cgroup without a filter", func(c *Config) { c.BypassCgroup = "/x" }, "kill switch"},
		{"cgroup outside", func(c *Config) { c.Filter, c.BypassCgroup = FilterOn, "/a/../.." }, "no path of a cgroup"},
		{"no such filter", func(c *Config) { c.Filter = 7 }, "filter 7"},
		{"mask too small for the filter", func(c *Config) { c.Filter, c.Mark, c.Mask = FilterOn, 1, 1 }, "two or more"},
		{"device is a path", func(c *Config) { c.Device = "../eth0" }, "no name for a network device"},
		{"device is two dots", func(c *Config) { c.Device = ".." }, "no name for a network device"},
		{"device is too long", func(c *Config) { c.Device = "abcdefghijklmnop" }, "no name for a network device"},
		{"device with a space", func(c *Config) { c.Device = "a b" }, "no name for a network device"},
		{"MTU too small", func(c *Config) { c.MTU = 1279 }, "MTU"},
		{"MTU too large", func(c *Config) { c.MTU = 65536 }, "MTU"},
		{"no address", func(c *Config) { c.Addresses = nil }, "no address"},
		{"too many addresses", func(c *Config) { c.Addresses = slices.Repeat(c.Addresses, 17) }, "at most"},
		{"zero address", func(c *Config) { c.Addresses = []netip.Prefix{{}} }, "cannot be the tunnel's address"},
		{"loopback", func(c *Config) { c.Addresses = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")} }, "cannot be the tunnel's address"},
		{"link-local", func(c *Config) { c.Addresses = []netip.Prefix{netip.MustParsePrefix("fe80::1/128")} }, "cannot be the tunnel's address"},
		{"IPv4 in IPv6", func(c *Config) { c.Addresses = []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.1/128")} }, "cannot be the tunnel's address"},
		{"too many name servers", func(c *Config) { c.DNS = slices.Repeat(c.DNS, 4) }, "name servers"},
		{"zero name server", func(c *Config) { c.DNS = []netip.Addr{{}} }, "cannot be a name server"},
		{"name server with a zone", func(c *Config) { c.DNS = []netip.Addr{netip.MustParseAddr("fe80::1%a\nb")} }, "cannot be a name server"},
		{"table main", func(c *Config) { c.Table = 254 }, "table 254"},
		{"negative table", func(c *Config) { c.Table = -1 }, "table -1"},
		{"rule after main", func(c *Config) { c.RulePriority = 32766 }, "rule priority 32766"},
		{"mark outside its mask", func(c *Config) { c.Mark, c.Mask = 3, 1 }, "outside its mask"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := valid
			tc.spoil(&c)
			err := c.withDefaults().validate()
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v, want %q in one line", err, tc.want)
			}
		})
	}
}

func TestParseResolvConf(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"", "[]"},
		{"nameserver 192.0.2.1", "[192.0.2.1]"},
		{"# nameserver 192.0.2.1\n; nameserver 192.0.2.2\nnameserver\t192.0.2.3 # home\n", "[192.0.2.3]"},
		{"search a b\nnameserver 192.0.2.1\r\nnameserver ::1\noptions ndots:5\n", "[192.0.2.1 ::1]"},
		{"nameserver 192.0.2.1\nnameserver 192.0.2.1\n", "[192.0.2.1]"},
		{"nameserver fe80::1%eth0\n", "[fe80::1%eth0]"},
		{"nameserver\nnameserver x\nnameserver 1.2.3\nnameservers 192.0.2.1\n", "[]"},
		{strings.Repeat("x", 100000) + "\nnameserver 192.0.2.1\n", "[192.0.2.1]"},
	} {
		if got := fmt.Sprint(parseResolvConf([]byte(tc.text))); got != tc.want {
			t.Errorf("%.80q: %s, want %s", tc.text, got, tc.want)
		}
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add([]byte("search lan\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n"))
	f.Add([]byte("nameserver 1.2.3.4.5\nnameserver ::ffff:1.2.3.4\noptions a"))
	f.Fuzz(func(t *testing.T, text []byte) {
		servers := parseResolvConf(text)
		if len(servers) > 16 {
			t.Fatalf("%d servers", len(servers))
		}
		for _, s := range servers {
			if !bytes.Contains(text, []byte("nameserver")) || !s.IsValid() {
				t.Errorf("%s comes from nowhere", s)
			}
		}
		if again := parseResolvConf(formatResolvConf(servers)); !slices.Equal(again, servers) {
			t.Errorf("%v became %v", servers, again)
		}
	})
}
