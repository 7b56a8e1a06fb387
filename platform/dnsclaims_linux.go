package platform

import (
	"net/netip"
	"slices"
	"strings"
)

// maxClaims bounds the domains that we take over from other links. Names under
// more of them have no answer while the tunnel is up.
const maxClaims = 128

// resolvedClaims returns the domains of other links under which systemd-resolved
// would ask these links' servers alone, though none of them can be asked: for the
// more labels of a name a link's domain has, the better it matches, and ours is
// the root. Any DHCP server may name such a domain.
func resolvedClaims(servers []managerServer, domains []managerDomain, device int, mayAsk func(netip.Addr) bool) []string {
	asks := make(map[int32]bool) // whether a link with servers has one that can be asked
	for _, s := range servers {
		a, ok := addrFromBytes(s.Address, 0)
		asks[s.Index] = asks[s.Index] || ok && mayAsk(a)
	}
	var claims []string
	for _, d := range domains {
		name := strings.ToLower(strings.TrimSuffix(d.Domain, "."))
		can, has := asks[d.Index]
		if name == "" || len(name) > 253 || d.Index == 0 || int(d.Index) == device || can || !has {
			continue
		}
		claims = append(claims, name)
	}
	slices.Sort(claims)
	claims = slices.Compact(claims)
	return claims[:min(len(claims), maxClaims)]
}

// mayAsk reports whether a resolver on this machine can ask a server outside the
// tunnel: one on this machine, or one that cfg lets out to.
func (f *facts) mayAsk(cfg Config, server netip.Addr) bool {
	if server.IsLoopback() {
		return true
	}
	for _, list := range f.addrs {
		for _, a := range list {
			if own, ok := netip.AddrFromSlice(a.IP); ok && own.Unmap() == server {
				return true
			}
		}
	}
	within := func(l onLink) bool { return l.Prefix.Contains(server) }
	return slices.ContainsFunc(f.inside, within) ||
		cfg.Filter == FilterOff && slices.ContainsFunc(f.lan, within) || // else lanNameRules
		slices.ContainsFunc(cfg.Exclude, func(p netip.Prefix) bool { return p.Contains(server) })
}

// sameDomains compares what systemd-resolved has for a link, in its own spelling
// and order.
func sameDomains(a, b []linkDomain) bool {
	norm := func(list []linkDomain) []string {
		var out []string
		for _, d := range list {
			text := strings.ToLower(strings.TrimSuffix(d.Domain, "."))
			if d.RoutingOnly {
				text = "~" + text
			}
			out = append(out, text)
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(norm(a), norm(b))
}
