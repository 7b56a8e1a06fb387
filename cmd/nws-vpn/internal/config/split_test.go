package config

import (
	"fmt"
	"net/netip"
	"os/user"
	"slices"
	"strings"
	"testing"
)

func TestCheckSplit(t *testing.T) {
	networks := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	many := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("x%d.example", i))
		}
		return list
	}
	for _, c := range []struct {
		what string
		edit func(*Up)
		want string // of the error; empty for none
	}{
		{"nothing", func(*Up) {}, ""},
		{"all that is excluded", func(u *Up) {
			u.Exclude, u.ExcludeDomains, u.ExcludeUsers = networks("192.0.2.0/24", "2001:db8::/32"), []string{"example.com", "lan", "_x.xn--bcher-kva.example"}, []string{"backup", "1004"}
			u.ExcludeCgroup = "/direct.slice/x"
		}, ""},
		{"all that is included", func(u *Up) {
			u.Include, u.IncludeDomains, u.IncludeUsers = networks("192.0.2.0/24"), []string{"example.com"}, []string{"0"}
		}, ""},
		{"users excluded from networks included", func(u *Up) { u.Include, u.ExcludeUsers = networks("192.0.2.0/24"), []string{"0"} }, ""},
		{"networks excluded for users included", func(u *Up) { u.Exclude, u.IncludeUsers = networks("192.0.2.0/24"), []string{"0"} }, ""},
		{"networks and networks", func(u *Up) { u.Exclude, u.Include = networks("192.0.2.0/24"), networks("198.51.100.0/24") }, "include: networks and domains are either"},
		{"networks and domains", func(u *Up) { u.Exclude, u.IncludeDomains = networks("192.0.2.0/24"), []string{"example.com"} }, "include: networks and domains are either"},
		{"domains and networks", func(u *Up) { u.ExcludeDomains, u.Include = []string{"example.com"}, networks("192.0.2.0/24") }, "include: networks and domains are either"},
		{"users and users", func(u *Up) { u.ExcludeUsers, u.IncludeUsers = []string{"0"}, []string{"1"} }, "include_users: users are either"},
		{"everything", func(u *Up) { u.Exclude = networks("0.0.0.0/0") }, "exclude: want a network"},
		{"an IPv4 network as IPv6", func(u *Up) { u.Include = networks("192.0.2.0/24", "::ffff:192.0.2.0/120") }, "include: element 2: want a network"},
		{"a wildcard", func(u *Up) { u.ExcludeDomains = []string{"*.example.com"} }, "exclude_domains: want a domain such as example.com, which means"},
		{"a dot", func(u *Up) { u.ExcludeDomains = []string{".example.com"} }, "which means all names below"},
		{"upper case", func(u *Up) { u.ExcludeDomains = []string{"Example.com"} }, "in lower case"},
		{"letters beyond ASCII", func(u *Up) { u.IncludeDomains = []string{"bücher.example"} }, "xn--"},
		{"the root's dot", func(u *Up) { u.IncludeDomains = []string{"example.com."} }, "want a domain"},
		{"nothing as a domain", func(u *Up) { u.IncludeDomains = []string{""} }, "want a domain"},
		{"a long label", func(u *Up) { u.IncludeDomains = []string{strings.Repeat("x", 64) + ".example"} }, "want a domain"},
		{"an address", func(u *Up) { u.ExcludeDomains = []string{"192.0.2.1"} }, "not the address"},
		{"a .nostr name", func(u *Up) { u.ExcludeDomains = []string{"blog.nostr"} }, "through the tunnel in any case"},
		{"too many domains", func(u *Up) { u.ExcludeDomains = many(257) }, "at most 256"},
		{"domains without dns", func(u *Up) { u.ExcludeDomains, u.DNS = []string{"example.com"}, false }, "exclude_domains: names go"},
		{"domains and nobody who is told", func(u *Up) { u.IncludeDomains, u.DNSManager = []string{"example.com"}, "none" }, "include_domains: names go"},
		{"no user", func(u *Up) { u.IncludeUsers = []string{""} }, "include_users: want"},
		{"too many users", func(u *Up) { u.IncludeUsers = many(65) }, "at most 64"},
		{"no path", func(u *Up) { u.ExcludeCgroup = "direct.slice" }, "exclude_cgroup: want the path"},
		{"a path out", func(u *Up) { u.ExcludeCgroup = "/x/../y" }, "exclude_cgroup: want the path"},
		{"all cgroups", func(u *Up) { u.ExcludeCgroup = "/" }, "exclude_cgroup: want the path"},
		{"a cgroup without a filter", func(u *Up) { u.ExcludeCgroup, u.KillSwitch = "/x", "off" }, "exclude_cgroup: the packet filter"},
		{"the rest without a filter", func(u *Up) { u.ExcludeDomains, u.KillSwitch = []string{"example.com"}, "off" }, ""},
	} {
		up := Default().Up
		c.edit(&up)
		err := CheckSplit(&up)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
	if _, err := Parse("f", []byte("[up]\nexclude_domains = [\"*.example\"]\n")); err == nil || !strings.Contains(err.Error(), "exclude_domains") || !strings.Contains(err.Error(), "f:2") {
		t.Errorf("in a file: %v, want its line and key", err)
	}
}

func TestUserIDs(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	got, err := UserIDs([]string{"4711", me.Uid})
	if err != nil || len(got) != 2 || got[0] != 4711 || fmt.Sprint(got[1]) != me.Uid {
		t.Errorf("%v, %v", got, err)
	}
	if byName, err := UserIDs([]string{me.Username}); err != nil || !slices.Equal(byName, got[1:]) {
		t.Errorf("%s is %v, %v", me.Username, byName, err)
	}
	for _, bad := range []string{"nobody-at-all", "-1", "4294967295", "4294967296"} {
		if ids, err := UserIDs([]string{bad}); err == nil {
			t.Errorf("%s is %v", bad, ids)
		}
	}
	if ids, err := UserIDs(nil); ids != nil || err != nil {
		t.Errorf("nobody is %v, %v", ids, err)
	}
}
