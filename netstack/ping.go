package netstack

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
)

// sequenceSize is the sequence number in front of each payload that passes
// through a PingConn.
const sequenceSize = 2

// startPing begins to take echo requests, which gVisor would answer itself:
// with promiscuous mode and spoofing, every address in the world would seem to
// be there. It calls the handlers with an echo request only, never with another
// message.
func (s *Stack) startPing() {
	s.ping.init(s, s.opts.MaxPingFlows, s.opts.PingIdle, func(c *datagramConn) {
		s.handler.HandlePing(c.ctx, &PingConn{c})
	})
	s.gv.SetTransportProtocolHandler(icmp.ProtocolNumber4, s.takeEcho)
	s.gv.SetTransportProtocolHandler(icmp.ProtocolNumber6, s.takeEcho)
}

// takeEcho takes every echo request. It returns true: there is none that gVisor
// should answer. In id the identifier stands in the place of the local port.
func (s *Stack) takeEcho(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h, data := pkt.TransportHeader().Slice(), pkt.Data()
	// Over IPv6 gVisor has checked the sum, over IPv4 it leaves that to us.
	if len(h) < header.ICMPv4MinimumSize || data.Size() > maxDatagram || !isEchoRequest(pkt.TransportProtocolNumber, h) ||
		pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber && checksum.Checksum(h, data.Checksum()) != 0xffff {
		s.counters.dropped.Add(1)
		return true
	}
	// The sequence is at the same place over IPv4 and IPv6.
	echo := append(make([]byte, 0, sequenceSize+data.Size()), h[6:8]...)
	s.ping.deliver(id, pkt, append(echo, data.AsRange().ToSlice()...), true)
	return true
}

// requote has ICMP errors quote pkt: a ping shows the number of the echo that
// was not answered.
func (c *datagramConn) requote(pkt *stack.PacketBuffer) {
	f := flowOf(c.id, pkt)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flow = f
}

// A PingConn is the ICMP echo requests of a program (or of its kernel) to one
// destination with one identifier. It is a net.Conn with message boundaries:
// Read returns a request, its sequence number (2 bytes, big endian) and then
// its payload; Write sends a reply of the same form to the program, with the
// right identifier and checksum. It ends, with net.ErrClosed, when it is closed
// or nothing has passed for Options.PingIdle.
//
// All methods may be called concurrently.
type PingConn struct{ *datagramConn }

var (
	_ net.Conn    = (*PingConn)(nil)
	_ io.WriterTo = (*PingConn)(nil)
)

// Source is the program's address.
func (c *PingConn) Source() netip.Addr { return source(c.id).Addr() }

// Destination is what the program pings.
func (c *PingConn) Destination() netip.Addr { return destination(c.id).Addr() }

// LocalAddr is the address that the program pings.
func (c *PingConn) LocalAddr() net.Addr { return &net.IPAddr{IP: c.Destination().AsSlice()} }

// RemoteAddr is the program's address.
func (c *PingConn) RemoteAddr() net.Addr { return &net.IPAddr{IP: c.Source().AsSlice()} }

// Write sends one reply to the program: sequence and payload.
func (c *PingConn) Write(p []byte) (int, error) {
	switch {
	case len(p) < sequenceSize:
		return 0, fmt.Errorf("netstack: write: echo of %d bytes has no sequence number: %w", len(p), syscall.EINVAL)
	case len(p) > sequenceSize+maxDatagram:
		return 0, fmt.Errorf("netstack: write: echo of %d bytes: %w", len(p), syscall.EMSGSIZE)
	}
	protocol, encode := header.ICMPv4ProtocolNumber, c.encode4
	if c.id.LocalAddress.Len() == header.IPv6AddressSize {
		protocol, encode = header.ICMPv6ProtocolNumber, c.encode6
	}
	sequence, payload := binary.BigEndian.Uint16(p), p[sequenceSize:]
	err := c.send(protocol, header.ICMPv4MinimumSize, payload, func(h []byte, _ *stack.Route, payloadSum uint16) {
		encode(h, sequence, len(payload), payloadSum)
	})
	if err != nil {
		return 0, err
	}
	c.stack.counters.toPrograms.Add(uint64(len(p)))
	return len(p), nil
}

func (c *PingConn) encode4(b []byte, sequence uint16, _ int, payloadSum uint16) {
	h := header.ICMPv4(b)
	h.SetType(header.ICMPv4EchoReply)
	h.SetIdent(c.id.LocalPort)
	h.SetSequence(sequence)
	h.SetChecksum(header.ICMPv4Checksum(h, payloadSum))
}

func (c *PingConn) encode6(b []byte, sequence uint16, size int, payloadSum uint16) {
	h := header.ICMPv6(b)
	h.SetType(header.ICMPv6EchoReply)
	h.SetIdent(c.id.LocalPort)
	h.SetSequence(sequence)
	h.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header: h, Src: c.id.LocalAddress, Dst: c.id.RemoteAddress, PayloadCsum: payloadSum, PayloadLen: size,
	}))
}

// Reject ends the flow as Close does, and tells the program that its
// destination is unreachable: filtered when err is EACCES or EOPNOTSUPP, its
// network or host when it is ENETUNREACH, EHOSTUNREACH or a timeout, and its
// port else.
func (c *PingConn) Reject(err error) {
	kind, ok := unreachableFor(err)
	if !ok {
		kind = unreachablePort
	}
	c.stack.opts.Log.Debug("netstack: echoes rejected", "destination", c.Destination(), "err", err)
	c.reject(kind)
}

// tooBig tells the program that its echoes to this destination may have limit
// bytes at most, sequence number included.
func (c *PingConn) tooBig(limit int) {
	c.stack.sendTooBig(c.quoted(), header.ICMPv4MinimumSize+limit-sequenceSize)
}
