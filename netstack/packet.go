package netstack

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/nws-vpn/nws-vpn/tun"
)

// packet is what has to be known of an incoming packet before gVisor sees it.
type packet struct {
	network  tcpip.NetworkProtocolNumber
	src, dst tcpip.Address
	tcp      []byte // from the TCP header on; nil for anything else
}

// parsePacket looks at the beginning of a packet. ok is false for what is not
// served: other protocols than TCP, UDP and ICMP echo requests, and addresses
// that are no host's.
// It is no full check; gVisor makes that.
func parsePacket(b []byte) (p packet, ok bool) {
	if len(b) == 0 {
		return packet{}, false
	}
	switch b[0] >> 4 {
	case header.IPv4Version:
		return parseIPv4(b)
	case header.IPv6Version:
		return parseIPv6(b)
	}
	return packet{}, false
}

func parseIPv4(b []byte) (p packet, ok bool) {
	h := header.IPv4(b)
	if len(b) < header.IPv4MinimumSize || int(h.HeaderLength()) < header.IPv4MinimumSize {
		return packet{}, false
	}
	p = packet{network: header.IPv4ProtocolNumber, src: h.SourceAddress(), dst: h.DestinationAddress()}
	part := whole
	switch {
	case h.FragmentOffset() > 0:
		part = later
	case h.Flags()&header.IPv4FlagMoreFragments != 0:
		part = first
	}
	return p, p.isUnicast() && p.setTransport(h.Protocol(), b[min(len(b), int(h.HeaderLength())):], part)
}

func parseIPv6(b []byte) (p packet, ok bool) {
	h := header.IPv6(b)
	if len(b) < header.IPv6MinimumSize {
		return packet{}, false
	}
	p = packet{network: header.IPv6ProtocolNumber, src: h.SourceAddress(), dst: h.DestinationAddress()}
	protocol, rest, part := h.NextHeader(), b[header.IPv6MinimumSize:], whole
	// Of the extension headers only fragments are served. The others have no
	// use at a host's edge, and other messages could hide behind them.
	if protocol == header.IPv6FragmentHeader {
		if len(rest) < header.IPv6FragmentHeaderSize {
			return packet{}, false
		}
		protocol, part = rest[0], first
		if binary.BigEndian.Uint16(rest[2:])>>3 > 0 {
			part = later
		}
		rest = rest[header.IPv6FragmentHeaderSize:]
	}
	return p, p.isUnicast() && p.setTransport(protocol, rest, part)
}

func (p *packet) isUnicast() bool {
	for _, a := range []tcpip.Address{p.src, p.dst} {
		addr := fromGVisor(a)
		if addr.IsMulticast() || addr.IsUnspecified() || addr.IsLoopback() || a == header.IPv4Broadcast {
			return false
		}
	}
	return true
}

// part says what of a transport message a packet holds.
type part int

const (
	whole part = iota
	first
	later
)

// setTransport looks at the transport message b, and reports whether it is one
// that is served.
func (p *packet) setTransport(protocol uint8, b []byte, part part) bool {
	switch number := tcpip.TransportProtocolNumber(protocol); number {
	case header.TCPProtocolNumber:
		if part == whole && len(b) >= header.TCPMinimumSize {
			p.tcp = b
		}
		return true
	case header.UDPProtocolNumber:
		return true
	case header.ICMPv4ProtocolNumber, header.ICMPv6ProtocolNumber:
		// Of a message in fragments the first decides: without it the others
		// are never put together.
		return (number == header.ICMPv4ProtocolNumber) == (p.network == header.IPv4ProtocolNumber) &&
			(part == later || isEchoRequest(number, b))
	}
	return false
}

// isEchoRequest reports whether b begins with the header of an echo request
// (RFC 792, RFC 4443).
func isEchoRequest(protocol tcpip.TransportProtocolNumber, b []byte) bool {
	kind := byte(header.ICMPv4Echo)
	if protocol == header.ICMPv6ProtocolNumber {
		kind = byte(header.ICMPv6EchoRequest)
	}
	return len(b) >= header.ICMPv4MinimumSize && b[0] == kind && b[1] == 0
}

// opensTCP reports whether the packet asks for a connection.
func (p *packet) opensTCP() bool {
	return p.tcp != nil && isSYN(header.TCP(p.tcp))
}

func isSYN(h header.TCP) bool {
	return h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) == header.TCPFlagSyn
}

// endpointID is how gVisor names the connection that the packet is for.
func (p *packet) endpointID() stack.TransportEndpointID {
	return stack.TransportEndpointID{
		LocalAddress:  p.dst,
		LocalPort:     binary.BigEndian.Uint16(p.tcp[header.TCPDstPortOffset:]),
		RemoteAddress: p.src,
		RemotePort:    binary.BigEndian.Uint16(p.tcp[header.TCPSrcPortOffset:]),
	}
}

// maxParts bounds the pieces of a packet that are handed to the device one by
// one. The kernel takes 1024.
const maxParts = 256

// packetWriter writes gVisor's packets to a device. It keeps the scratch.
type packetWriter struct {
	parts [][]byte
}

func (w *packetWriter) write(dev tun.Device, pkt *stack.PacketBuffer) error {
	w.parts = w.parts[:0]
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		part := v.AsSlice()
		if skip >= len(part) {
			skip -= len(part)
			continue
		}
		w.parts = append(w.parts, part[skip:])
		skip = 0
	}
	if len(w.parts) > maxParts {
		all := pkt.ToView()
		defer all.Release()
		w.parts = append(w.parts[:0], all.AsSlice())
	}
	err := dev.WritePacket(offloadHeader(pkt), w.parts)
	clear(w.parts) // they are borrowed
	return err
}

// offloadHeader says what of the packet gVisor has left to the kernel.
func offloadHeader(pkt *stack.PacketBuffer) tun.Header {
	gso := pkt.GSOOptions
	if gso.Type != stack.GSOTCPv4 && gso.Type != stack.GSOTCPv6 {
		return tun.Header{}
	}
	headers := gso.L3HdrLen + uint16(len(pkt.TransportHeader().Slice()))
	h := tun.Header{
		NeedsChecksum:  gso.NeedsCsum,
		ChecksumStart:  gso.L3HdrLen, // a TUN has no Ethernet header before it
		ChecksumOffset: gso.CsumOffset,
	}
	if pkt.Data().Size() > int(gso.MSS) {
		h.HeaderLength, h.SegmentSize = headers, gso.MSS
		h.Segmentation = tun.SegmentTCPv4
		if gso.Type == stack.GSOTCPv6 {
			h.Segmentation = tun.SegmentTCPv6
		}
	}
	return h
}
