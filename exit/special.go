package exit

import "net/netip"

// special is a range that strangers do not reach.
type special struct {
	netip.Prefix
	what  string
	never bool // no opt-in
}

func ranges(never bool, pairs ...string) []special {
	var s []special
	for i := 0; i < len(pairs); i += 2 {
		s = append(s, special{netip.MustParsePrefix(pairs[i]), pairs[i+1], never})
	}
	return s
}

// neverRanges are of no use to a dialler; the kernel takes the unspecified
// addresses for the machine itself. specialRanges follow IANA's registries of
// special-purpose addresses (RFC 6890), plus the one metadata service that
// sits on a public address. Whatever IPv6 address lies outside 2000::/3 needs
// no entry: none of that is global unicast. Both are never written to.
var (
	neverRanges = ranges(true,
		"0.0.0.0/8", "an address of this host",
		"255.255.255.255/32", "the broadcast address",
		"224.0.0.0/4", "a multicast address",
		"::/128", "the unspecified address",
		"ff00::/8", "a multicast address",
	)
	specialRanges = ranges(false,
		"10.0.0.0/8", "a private address",
		"100.64.0.0/10", "a carrier's internal address",
		"127.0.0.0/8", "a loopback address",
		"168.63.129.16/32", "a metadata service",
		"169.254.0.0/16", "a link-local address",
		"172.16.0.0/12", "a private address",
		"192.0.0.0/24", "a protocol assignment",
		"192.0.2.0/24", "a documentation address",
		"192.88.99.0/24", "a 6to4 relay",
		"192.168.0.0/16", "a private address",
		"198.18.0.0/15", "a benchmarking address",
		"198.51.100.0/24", "a documentation address",
		"203.0.113.0/24", "a documentation address",
		"240.0.0.0/4", "a reserved address",
		"::1/128", "a loopback address",
		"64:ff9b:1::/48", "a local translation address",
		"fc00::/7", "a private address",
		"fe80::/10", "a link-local address",
		"2001::/23", "a protocol assignment",
		"2001:db8::/32", "a documentation address",
		"3fff::/20", "a documentation address",
	)
	globalUnicast = netip.MustParsePrefix("2000::/3")
	nat64         = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour     = netip.MustParsePrefix("2002::/16")
)

// hiddenIn returns the IPv4 address that a translator or tunnel on the way
// would take out of a: NAT64 (RFC 6052), 6to4 (RFC 3056), ISATAP (RFC 5214).
// The other embeddings lie in ranges that are refused as a whole.
func hiddenIn(a netip.Addr) (hidden netip.Addr, ok bool) {
	if !a.Is6() {
		return hidden, false
	}
	b := a.As16()
	switch {
	case nat64.Contains(a), b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe:
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return hidden, false
}

func find(in []special, a netip.Addr) *special {
	for i := range in {
		if in[i].Contains(a) {
			return &in[i]
		}
	}
	return nil
}
