package netlab

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Protocol numbers of IP packets that ForgeIP knows where to put the checksum.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// HardwareAddr is an interface's address on its link.
func (h *Host) HardwareAddr(device string) (mac net.HardwareAddr, err error) {
	err = h.onLink(device, func(link netlink.Link) error {
		mac = link.Attrs().HardwareAddr
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: address of %s of %s: %w", device, h.name, err)
	}
	return mac, nil
}

// LinkLocal is an interface's IPv6 address on its link.
func (h *Host) LinkLocal(device string) (addr netip.Addr, err error) {
	err = h.onLink(device, func(link netlink.Link) error {
		list, err := netlink.AddrList(link, unix.AF_INET6)
		for _, a := range list {
			if a.IP.IsLinkLocalUnicast() {
				addr, _ = netip.AddrFromSlice(a.IP)
			}
		}
		if err == nil && !addr.IsValid() {
			err = unix.EADDRNOTAVAIL
		}
		return err
	})
	if err != nil {
		return addr, fmt.Errorf("netlab: link-local address of %s of %s: %w", device, h.name, err)
	}
	return addr, nil
}

// SendFrame sends a frame as it is on one of the host's interfaces, past the
// host's own routing and filters. to is who on the link gets it; nil: everybody.
func (h *Host) SendFrame(device string, to net.HardwareAddr, ether uint16, data []byte) error {
	err := h.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		if to == nil {
			to = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		frame := append(append([]byte{}, to...), link.Attrs().HardwareAddr...)
		frame = append(binary.BigEndian.AppendUint16(frame, ether), data...)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index})
	})
	if err != nil {
		return fmt.Errorf("netlab: send a frame on %s of %s: %w", device, h.name, err)
	}
	return nil
}

// ForgeIP makes an IP packet with right checksums, those of TCP, UDP, ICMP and
// ICMPv6 in its payload included. Both addresses are of the same family.
func ForgeIP(source, destination netip.Addr, protocol, ttl uint8, payload []byte) []byte {
	body := append([]byte{}, payload...)
	at := map[uint8]int{protoICMP: 2, protoTCP: 16, protoUDP: 6, protoICMPv6: 2}
	if i, ok := at[protocol]; ok && len(body) >= i+2 {
		var pseudo []byte
		if protocol != protoICMP {
			pseudo = append(append(pseudo, source.AsSlice()...), destination.AsSlice()...)
			pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
			pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(protocol))
		}
		binary.BigEndian.PutUint16(body[i:], 0)
		binary.BigEndian.PutUint16(body[i:], checksum(append(pseudo, body...)))
	}
	if source.Is4() {
		header := make([]byte, 20)
		header[0], header[8], header[9] = 0x45, ttl, protocol
		binary.BigEndian.PutUint16(header[2:], uint16(20+len(body)))
		copy(header[12:], source.AsSlice())
		copy(header[16:], destination.AsSlice())
		binary.BigEndian.PutUint16(header[10:], checksum(header))
		return append(header, body...)
	}
	header := make([]byte, 40)
	header[0], header[6], header[7] = 0x60, protocol, ttl
	binary.BigEndian.PutUint16(header[4:], uint16(len(body)))
	copy(header[8:], source.AsSlice())
	copy(header[24:], destination.AsSlice())
	return append(header, body...)
}

// checksum is that of RFC 1071.
func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i < len(data); i += 2 {
		if i+1 < len(data) {
			sum += uint32(data[i])<<8 | uint32(data[i+1])
		} else {
			sum += uint32(data[i]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Flags of ForgeTCP.
const (
	SYN = 2
	RST = 4
	ACK = 16
)

// ForgeTCP makes a TCP packet without data.
func ForgeTCP(source, destination netip.AddrPort, flags uint8) []byte {
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, source.Port())
	binary.BigEndian.PutUint16(tcp[2:], destination.Port())
	binary.BigEndian.PutUint32(tcp[4:], 0x1000)
	binary.BigEndian.PutUint32(tcp[8:], 0x2000)
	tcp[12], tcp[13] = 5<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	return ForgeIP(source.Addr(), destination.Addr(), protoTCP, 64, tcp)
}

// ForgeUDP makes a UDP packet.
func ForgeUDP(source, destination netip.AddrPort, data []byte) []byte {
	udp := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(udp, source.Port())
	binary.BigEndian.PutUint16(udp[2:], destination.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(data)))
	return ForgeIP(source.Addr(), destination.Addr(), protoUDP, 64, append(udp, data...))
}

// ForgeRedirect makes the ICMP message by which a router tells that there is a
// better one for a destination. about is the packet that it answers.
func ForgeRedirect(router, to, better netip.Addr, about []byte) []byte {
	icmp := []byte{5, 1, 0, 0}
	icmp = append(icmp, better.AsSlice()...)
	return ForgeIP(router, to, protoICMP, 64, append(icmp, about[:min(len(about), 28)]...))
}

// ForgeAdvertisement makes a router advertisement to all on the link: of the
// sender as default router for lifetime seconds, and of routes through it
// (Route Information Options, RFC 4191).
func ForgeAdvertisement(router netip.Addr, lifetime uint16, routes ...netip.Prefix) []byte {
	icmp := []byte{134, 0, 0, 0, 64, 0x08} // 0x08: high preference
	icmp = binary.BigEndian.AppendUint16(icmp, lifetime)
	icmp = append(icmp, make([]byte, 8)...)
	for _, r := range routes {
		icmp = append(icmp, 24, 3, uint8(r.Bits()), 0x08)
		icmp = binary.BigEndian.AppendUint32(icmp, uint32(lifetime))
		icmp = append(icmp, r.Addr().AsSlice()...)
	}
	return ForgeIP(router, netip.MustParseAddr("ff02::1"), protoICMPv6, 255, icmp)
}

// ForgeARP makes the question who on the link has an address.
func ForgeARP(mac net.HardwareAddr, asker, wanted netip.Addr) []byte {
	arp := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	arp = append(append(arp, mac...), asker.AsSlice()...)
	arp = append(arp, make([]byte, 6)...)
	return append(arp, wanted.AsSlice()...)
}

// ForgeSolicitation is ForgeARP for IPv6.
func ForgeSolicitation(mac net.HardwareAddr, asker, wanted netip.Addr) []byte {
	last := wanted.As16()
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	copy(group[13:], last[13:])
	icmp := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, last[:]...)
	icmp = append(append(icmp, 1, 1), mac...)
	return ForgeIP(asker, netip.AddrFrom16(group), protoICMPv6, 255, icmp)
}
