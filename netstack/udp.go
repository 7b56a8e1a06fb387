package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// startUDP begins to take UDP packets.
func (s *Stack) startUDP() {
	s.udp.init(s, s.opts.MaxUDPFlows, s.opts.UDPIdle, func(c *datagramConn) {
		s.handler.HandleUDP(c.ctx, &UDPConn{c})
	})
	s.gv.SetTransportProtocolHandler(udp.ProtocolNumber, s.takeUDP)
}

// takeUDP takes every UDP packet. It returns true: there is none that gVisor
// should answer.
func (s *Stack) takeUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.UDP(pkt.TransportHeader().Slice())
	data := pkt.Data()
	fits, valid := header.UDPValid(h, data.Checksum, uint16(data.Size()), pkt.NetworkProtocolNumber,
		id.RemoteAddress, id.LocalAddress, pkt.RXChecksumValidated)
	if !fits || !valid {
		s.counters.dropped.Add(1)
		return true
	}
	size := int(h.Length()) - header.UDPMinimumSize
	s.udp.deliver(id, pkt, data.AsRange().Capped(size).ToSlice(), false)
	return true
}
