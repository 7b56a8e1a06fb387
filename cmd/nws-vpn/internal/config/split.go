package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os/user"
	"path"
	"strconv"
	"strings"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/platform"
)

// Bounds of what split tunnelling is told.
const (
	maxDomains = 256
	maxUsers   = 64
)

// keyProblem is what is wrong with one key of section [up].
type keyProblem struct {
	key string
	err error
}

// CheckSplit finds out what makes no sense of what goes into the tunnel and what
// does not.
func CheckSplit(u *Up) error { return joined(u.checkSplit()) }

func joined(list []keyProblem) error {
	var errs []error
	for _, p := range list {
		errs = append(errs, fmt.Errorf("%s: %w", p.key, p.err))
	}
	return errors.Join(errs...)
}

func (u *Up) checkSplit() (list []keyProblem) {
	is := func(key string, err error) {
		if err != nil {
			list = append(list, keyProblem{key, err})
		}
	}
	is("exclude", checkNetworks(u.Exclude))
	is("include", checkNetworks(u.Include))
	is("exclude_domains", checkDomains(u.ExcludeDomains))
	is("include_domains", checkDomains(u.IncludeDomains))
	is("exclude_users", checkUsers(u.ExcludeUsers))
	is("include_users", checkUsers(u.IncludeUsers))
	is("exclude_cgroup", checkCgroup(u.ExcludeCgroup))
	if u.KillSwitch == KillSwitches[0] {
		is("exclude_cgroup", needsFilter(u.ExcludeCgroup != ""))
	}
	if len(u.Exclude)+len(u.ExcludeDomains) > 0 && len(u.Include)+len(u.IncludeDomains) > 0 {
		is("include", errors.New("networks and domains are either excluded or included: what is not included stays outside the tunnel anyway"))
	}
	if len(u.ExcludeUsers) > 0 && len(u.IncludeUsers) > 0 {
		is("include_users", errors.New("users are either excluded or included: those who are not included stay outside the tunnel anyway"))
	}
	if u.DNS && u.DNSManager != platform.DNSNone {
		return list
	}
	needsDNS := func(key string, domains []string) {
		if len(domains) > 0 {
			is(key, fmt.Errorf(`names go the way they are to go only when programs ask the tunnel's resolver: it needs dns = true and a dns_manager other than %q`, platform.DNSNone))
		}
	}
	needsDNS("exclude_domains", u.ExcludeDomains)
	needsDNS("include_domains", u.IncludeDomains)
	return list
}

func checkNetworks(list []netip.Prefix) error {
	if len(list) > platform.MaxNetworks {
		return fmt.Errorf("want at most %d networks, not %d", platform.MaxNetworks, len(list))
	}
	for i, p := range list {
		if p.Bits() == 0 || p.Addr().Is4In6() {
			return fmt.Errorf("%swant a network such as 192.0.2.0/24, not %s", element(i, len(list)), p)
		}
	}
	return nil
}

// checkDomains takes domains as the DNS has them: internationalized ones too.
func checkDomains(list []string) error {
	if len(list) > maxDomains {
		return fmt.Errorf("want at most %d domains, not %d", maxDomains, len(list))
	}
	for i, d := range list {
		switch _, notAddr := netip.ParseAddr(d); {
		case notAddr == nil:
			return fmt.Errorf("%swant a domain, not the address %s, which is a network of its own", element(i, len(list)), d)
		case strings.HasPrefix(d, "*"), strings.HasPrefix(d, "."):
			return fmt.Errorf("%swant a domain such as example.com, which means all names below it too, not %q", element(i, len(list)), d)
		case !isDomain(d):
			return fmt.Errorf("%swant a domain such as example.com, in lower case and with xn-- for letters beyond a to z, not %q", element(i, len(list)), d)
		case name.Under(d):
			return fmt.Errorf("%s%s leads through the tunnel in any case", element(i, len(list)), d)
		}
	}
	return nil
}

func isDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

func checkUsers(list []string) error {
	if len(list) > maxUsers {
		return fmt.Errorf("want at most %d users, not %d", maxUsers, len(list))
	}
	for i, u := range list {
		if u == "" || strings.ContainsAny(u, " \t\n:/") {
			return fmt.Errorf("%swant a user's name or number, not %q", element(i, len(list)), u)
		}
	}
	return nil
}

func checkCgroup(s string) error {
	if s != "" && (!strings.HasPrefix(s, "/") || path.Clean(s) != s || s == "/" || len(s) > 4000) {
		return fmt.Errorf("want the path of a cgroup below the place where they are mounted, such as /direct.slice, not %q", s)
	}
	return nil
}

// UserIDs looks up users, who are named or numbered.
func UserIDs(list []string) (ids []uint32, err error) {
	for _, text := range list {
		number := text
		if _, nan := strconv.ParseUint(text, 10, 32); nan != nil {
			u, err := user.Lookup(text)
			if err != nil {
				return nil, fmt.Errorf("there is no user %q on this machine (the number works for those that a directory knows): %w", text, err)
			}
			number = u.Uid
		}
		id, err := strconv.ParseUint(number, 10, 32)
		if err != nil || id == 1<<32-1 { // the kernel's word for nobody
			return nil, fmt.Errorf("%q has no number that a user can have", text)
		}
		ids = append(ids, uint32(id))
	}
	return ids, nil
}

// ParseNetworks reads networks as the file has them, from the command line.
func ParseNetworks(list []string) (networks []netip.Prefix, err error) {
	for _, text := range list {
		p, err := ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		networks = append(networks, p)
	}
	return networks, nil
}
