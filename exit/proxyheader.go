package exit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// clientPrefix holds the addresses that clients are given before services: a
// range of unique local ones (RFC 4193) that no network has.
var clientPrefix = netip.MustParsePrefix("fd6e:7773:7670:ffff::/64")

// address stands for a key where a service wants the address of its client. The
// same key always has the same one.
func addressOf(key [32]byte) netip.Addr {
	a := clientPrefix.Addr().As16()
	sum := sha256.Sum256(append([]byte("nws client address\n"), key[:]...))
	copy(a[8:], sum[:8])
	return netip.AddrFrom16(a)
}

// Parts of the header of the PROXY protocol, version 2.
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyLocal     = 0x20 // version 2, no addresses
	proxyProxied   = 0x21
	proxyTCP6      = 0x21
	proxyNPub      = 0xe0 // the first type for private use
)

// proxyHeader tells a service who its client is: an address made of the key, a
// port at random, and the npub in a field of type 0xE0 if it was proven. Of an
// unknown client it says nothing.
func proxyHeader(c client, exit [32]byte) []byte {
	h := []byte(proxySignature)
	if c == (client{}) {
		return append(h, proxyLocal, 0, 0, 0)
	}
	var fields []byte
	if c.proven {
		npub := name.Name{Key: c.key}.NPub()
		fields = append([]byte{proxyNPub, 0, byte(len(npub))}, npub...)
	}
	var port [2]byte
	rand.Read(port[:])
	port[0] |= 0x80 // never 0
	from, to := addressOf(c.key).As16(), addressOf(exit).As16()
	h = append(h, proxyProxied, proxyTCP6)
	h = binary.BigEndian.AppendUint16(h, uint16(2*16+2*2+len(fields)))
	h = append(append(h, from[:]...), to[:]...)
	h = append(append(h, port[:]...), 0, 1)
	return append(h, fields...)
}
