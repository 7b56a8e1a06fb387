package netlab

import (
	"encoding/binary"
	"net/netip"
)

const etherHeader = 14

// parsePacket reads as much of a frame as is there. Data shares its memory.
func parsePacket(frame []byte) Packet {
	if len(frame) < etherHeader {
		return Packet{Data: frame}
	}
	return parseNetwork(binary.BigEndian.Uint16(frame[12:]), frame[etherHeader:])
}

// parsePlain reads a packet without an Ethernet header.
func parsePlain(packet []byte) Packet {
	switch {
	case len(packet) > 0 && packet[0]>>4 == 4:
		return parseNetwork(0x0800, packet)
	case len(packet) > 0 && packet[0]>>4 == 6:
		return parseNetwork(0x86dd, packet)
	}
	return Packet{Data: packet}
}

func parseNetwork(ether uint16, data []byte) Packet {
	p := Packet{Ether: ether, Data: data}
	switch ip := p.Data; {
	case p.Ether == 0x0800 && len(ip) >= 20:
		p.Protocol = ip[9]
		first := binary.BigEndian.Uint16(ip[6:])&0x1fff == 0
		src, dst := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		p.setTransport(src, dst, ip[min(len(ip), int(ip[0]&15)*4):], first)
	case p.Ether == 0x86dd && len(ip) >= 40:
		src, dst := netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
		next, rest := ip[6], ip[40:]
		// Multicast listener reports have a hop-by-hop header before them.
		if next == 0 && len(rest) >= 8 {
			size := min(len(rest), 8+int(rest[1])*8)
			next, rest = rest[0], rest[size:]
		}
		first := true
		if next == 44 && len(rest) >= 8 { // a fragment
			first = binary.BigEndian.Uint16(rest[2:])>>3 == 0
			next, rest = rest[0], rest[8:]
		}
		p.Protocol = next
		p.setTransport(src, dst, rest, first)
	}
	return p
}

func (p *Packet) setTransport(src, dst netip.Addr, rest []byte, first bool) {
	var from, to uint16
	switch p.Protocol {
	case 6, 17:
		if first && len(rest) >= 4 {
			from, to = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
		}
	case 1, 58:
		if first && len(rest) >= 1 {
			p.Type = rest[0]
		}
	}
	p.Source, p.Destination = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to)
}
