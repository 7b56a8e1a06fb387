package exit

import (
	"net/netip"
	"strconv"
	"strings"
)

// reverse returns what a name for looking up addresses is about (RFC 1035, section
// 3.5; RFC 3596, section 2.5): an address, or a network if it has fewer labels. What
// stands below the numbers does not count.
func reverse(fqdn string) (p netip.Prefix, ok bool) {
	host := strings.ToLower(strings.TrimSuffix(fqdn, "."))
	var b [16]byte
	var size, base, width int // bytes of an address; base of a label's number, and its bits
	if labels, found := strings.CutSuffix(host, ".in-addr.arpa"); found {
		host, size, base, width = labels, 4, 10, 8
	} else if labels, found := strings.CutSuffix(host, ".ip6.arpa"); found {
		host, size, base, width = labels, 16, 16, 4
	} else {
		return p, false
	}
	bits := 0
	for more := true; more && bits < 8*size; bits += width {
		var label string
		cut := strings.LastIndexByte(host, '.')
		label, host, more = host[cut+1:], host[:max(cut, 0)], cut >= 0
		n, err := strconv.ParseUint(label, base, width)
		if err != nil {
			break
		}
		b[bits/8] |= byte(n) << (8 - width - bits%8)
	}
	addr, _ := netip.AddrFromSlice(b[:size])
	return netip.PrefixFrom(addr, bits), bits > 0
}

// lastOf is the last address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
