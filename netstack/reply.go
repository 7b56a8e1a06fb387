package netstack

import (
	"context"
	"errors"
	"os"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// flow identifies a flow, and keeps of its first packet what an ICMP error has
// to quote: Linux drops one that does not carry the packet's own sequence
// number.
type flow struct {
	id      stack.TransportEndpointID
	network tcpip.NetworkProtocolNumber
	quote   []byte
}

// quotedTransport is how much of the transport header is quoted: the ports and
// the sequence number. (RFC 792)
const quotedTransport = 8

func flowOf(id stack.TransportEndpointID, pkt *stack.PacketBuffer) flow {
	transport := pkt.TransportHeader().Slice()
	quote := append([]byte(nil), pkt.NetworkHeader().Slice()...)
	quote = append(quote, transport[:min(len(transport), quotedTransport)]...)
	return flow{id: id, network: pkt.NetworkProtocolNumber, quote: quote}
}

// unreachable is a reason for an ICMP destination unreachable message.
type unreachable int

const (
	unreachableHost unreachable = iota
	unreachableNet
	unreachableProhibited
	unreachablePort
)

// codes are the message's codes over ICMPv4 (RFC 792, RFC 1812) and ICMPv6
// (RFC 4443).
var codes = map[unreachable]struct {
	v4 header.ICMPv4Code
	v6 header.ICMPv6Code
}{
	unreachableHost:       {header.ICMPv4HostUnreachable, header.ICMPv6AddressUnreachable},
	unreachableNet:        {header.ICMPv4NetUnreachable, header.ICMPv6NetworkUnreachable},
	unreachableProhibited: {header.ICMPv4AdminProhibited, header.ICMPv6Prohibited},
	unreachablePort:       {header.ICMPv4PortUnreachable, header.ICMPv6PortUnreachable},
}

// unreachableFor is what to answer for err. ok is false for errors that are
// the destination's own refusal, and for those of which nothing is known.
func unreachableFor(err error) (kind unreachable, ok bool) {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return 0, false
	case errors.Is(err, syscall.ENETUNREACH):
		return unreachableNet, true
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EOPNOTSUPP):
		return unreachableProhibited, true
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ETIMEDOUT),
		errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return unreachableHost, true
	}
	return 0, false
}

// sendUnreachable tells the program that its destination cannot be reached.
// The message pretends to come from there: no router lies between.
func (s *Stack) sendUnreachable(f flow, kind unreachable) {
	code := codes[kind]
	if f.network == header.IPv4ProtocolNumber {
		m := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize, header.ICMPv4MinimumSize+len(f.quote)))
		m.SetType(header.ICMPv4DstUnreachable)
		m.SetCode(code.v4)
		m = append(m, f.quote...)
		m.SetChecksum(^checksum.Checksum(m, 0))
		s.send(f, header.ICMPv4ProtocolNumber, m)
		return
	}
	m := header.ICMPv6(make([]byte, header.ICMPv6DstUnreachableMinimumSize, header.ICMPv6DstUnreachableMinimumSize+len(f.quote)))
	m.SetType(header.ICMPv6DstUnreachable)
	m.SetCode(code.v6)
	m = append(m, f.quote...)
	m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: f.id.LocalAddress, Dst: f.id.RemoteAddress}))
	s.send(f, header.ICMPv6ProtocolNumber, m)
}

// sendTooBig tells the program that its packets to this destination are too
// large: IP payloads of more than most bytes do not get through.
func (s *Stack) sendTooBig(f flow, most int) {
	if f.network == header.IPv4ProtocolNumber {
		m := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize, header.ICMPv4MinimumSize+len(f.quote)))
		m.SetType(header.ICMPv4DstUnreachable)
		m.SetCode(header.ICMPv4FragmentationNeeded)
		m.SetMTU(uint16(min(header.IPv4MinimumSize+most, header.IPv4MaximumPayloadSize-1)))
		m = append(m, f.quote...)
		m.SetChecksum(^checksum.Checksum(m, 0))
		s.send(f, header.ICMPv4ProtocolNumber, m)
		return
	}
	m := header.ICMPv6(make([]byte, header.ICMPv6PacketTooBigMinimumSize, header.ICMPv6PacketTooBigMinimumSize+len(f.quote)))
	m.SetType(header.ICMPv6PacketTooBig)
	// Smaller ones than every link takes are no answer (RFC 8201, 4).
	m.SetMTU(uint32(max(header.IPv6MinimumSize+most, header.IPv6MinimumMTU)))
	m = append(m, f.quote...)
	m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: f.id.LocalAddress, Dst: f.id.RemoteAddress}))
	s.send(f, header.ICMPv6ProtocolNumber, m)
}

// sendReset answers a SYN as a closed port does. (RFC 9293, 3.5.2)
func (s *Stack) sendReset(f flow, sequence uint32) {
	h := header.TCP(make([]byte, header.TCPMinimumSize))
	h.Encode(&header.TCPFields{
		SrcPort:    f.id.LocalPort,
		DstPort:    f.id.RemotePort,
		AckNum:     sequence + 1,
		DataOffset: header.TCPMinimumSize,
		Flags:      header.TCPFlagRst | header.TCPFlagAck,
	})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, f.id.LocalAddress, f.id.RemoteAddress, header.TCPMinimumSize)
	h.SetChecksum(^h.CalculateChecksum(sum))
	s.send(f, header.TCPProtocolNumber, h)
}

// send sends a transport message in a packet of its own from the flow's
// destination to its source.
func (s *Stack) send(f flow, protocol tcpip.TransportProtocolNumber, message []byte) {
	route, err := s.gv.FindRoute(nicID, f.id.LocalAddress, f.id.RemoteAddress, f.network, false)
	if err != nil {
		s.counters.dropped.Add(1)
		return
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(message),
	})
	defer pkt.DecRef()
	params := stack.NetworkHeaderParams{Protocol: protocol, TTL: route.DefaultTTL()}
	if err := route.WritePacket(params, pkt); err != nil {
		s.counters.dropped.Add(1)
	}
}
