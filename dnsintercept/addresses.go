package dnsintercept

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

const (
	// reserved is how many addresses at the beginning of the IPv4 range belong
	// to the device itself.
	reserved = 256
	minBits  = 8
	// maxBits4 leaves room for some names behind the reserved addresses,
	// maxBits6 for the subnet bit, which is the 64th.
	maxBits4 = 22
	maxBits6 = 63
)

// Range is where fake addresses come from. The zero Range means 198.18.0.0/15
// (RFC 2544: reserved, and never seen on the internet) and
// fd6e:7773:7670::/48. Its beginning belongs to the device: the first address
// is the device's own, the second its DNS server's, and 256 IPv4 addresses are
// set aside. IPv6 fakes lie in the subnet with number 1.
type Range struct {
	V4, V6 netip.Prefix
}

func (r Range) withDefaults() (Range, error) {
	if !r.V4.IsValid() {
		r.V4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18}), 15)
	}
	if !r.V6.IsValid() {
		r.V6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x6e, 0x77, 0x73, 0x76, 0x70}), 48)
	}
	r.V4, r.V6 = r.V4.Masked(), r.V6.Masked()
	if !r.V4.Addr().Is4() || r.V4.Bits() > maxBits4 || r.V4.Bits() < minBits {
		return r, fmt.Errorf("dnsintercept: fake IPv4 range %s: want an IPv4 prefix from /%d to /%d", r.V4, minBits, maxBits4)
	}
	if !r.V6.Addr().Is6() || r.V6.Bits() > maxBits6 || r.V6.Bits() < minBits {
		return r, fmt.Errorf("dnsintercept: fake IPv6 range %s: want an IPv6 prefix from /%d to /%d", r.V6, minBits, maxBits6)
	}
	return r, nil
}

// Candidates for Range: networks that are not on the internet, the usual ones
// first. Of the others, parts that few use.
var (
	candidates4 = [...]string{"198.18.0.0/15", "198.18.0.0/16", "198.19.0.0/16", "100.127.0.0/16", "172.29.0.0/16", "10.251.0.0/16"}
	candidates6 = [...]string{"fd6e:7773:7670::/48", "fd6e:7773:7671::/48", "fd6e:7773:7672::/48", "fd6e:7773:7673::/48"}
)

// FreeRange chooses a Range that touches none of the networks in use. usual
// reports that it is the one of the zero Range, which it is too when none of the
// others is free: then somebody else has to give way.
func FreeRange(used []netip.Prefix) (r Range, usual bool) {
	r = Range{V4: freeOf(candidates4[:], used), V6: freeOf(candidates6[:], used)}
	zero, _ := Range{}.withDefaults()
	return r, r == zero
}

func freeOf(candidates []string, used []netip.Prefix) netip.Prefix {
	for _, text := range candidates {
		p := netip.MustParsePrefix(text)
		if !slices.ContainsFunc(used, p.Overlaps) {
			return p
		}
	}
	return netip.MustParsePrefix(candidates[0])
}

// Device returns the addresses of the device itself, one of each family.
func (r Range) Device() []netip.Prefix {
	r, _ = r.withDefaults()
	v4, v6 := r.V4.Addr().Next(), r.V6.Addr().Next()
	return []netip.Prefix{netip.PrefixFrom(v4, 32), netip.PrefixFrom(v6, 128)}
}

// Servers returns the addresses of the DNS server behind the device.
func (r Range) Servers() []netip.Addr {
	r, _ = r.withDefaults()
	return []netip.Addr{r.V4.Addr().Next().Next(), r.V6.Addr().Next().Next()}
}

// Networks returns both prefixes.
func (r Range) Networks() []netip.Prefix {
	r, _ = r.withDefaults()
	return []netip.Prefix{r.V4, r.V6}
}

// contains reports whether addr is in the range, the device's part included.
func (r Range) contains(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return r.V4.Contains(addr) || r.V6.Contains(addr)
}

// isServer reports whether addr is the DNS server's behind the device.
func (r Range) isServer(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return addr == r.V4.Addr().Next().Next() || addr == r.V6.Addr().Next().Next()
}

// slots returns the first slot and the one behind the last. A slot is a fake
// address's distance from the beginning of the range; IPv4 limits them. The
// last IPv4 address is left out: it is the subnet's broadcast address.
func (r Range) slots() (first, end uint32) {
	return reserved, 1<<(32-r.V4.Bits()) - 1
}

func (r Range) addr4(slot uint32) netip.Addr {
	b := r.V4.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+slot)
	return netip.AddrFrom4(b)
}

func (r Range) addr6(slot uint32) netip.Addr {
	b := r.V6.Addr().As16()
	b[7] |= 1
	binary.BigEndian.PutUint32(b[12:], slot)
	return netip.AddrFrom16(b)
}

// slot is the inverse of addr4 and addr6.
func (r Range) slot(addr netip.Addr) (uint32, bool) {
	addr = addr.Unmap().WithZone("")
	if !r.contains(addr) {
		return 0, false
	}
	var slot uint32
	if addr.Is4() {
		b, base := addr.As4(), r.V4.Addr().As4()
		slot = binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(base[:])
	} else {
		b := addr.As16()
		slot = binary.BigEndian.Uint32(b[12:])
		if addr != r.addr6(slot) {
			return 0, false
		}
	}
	first, end := r.slots()
	return slot, slot >= first && slot < end
}
