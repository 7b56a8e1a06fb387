package netstack

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxDatagram is the largest payload of a UDP datagram over IPv4, in bytes. It
// is that of an echo, too.
const maxDatagram = 65535 - header.IPv4MinimumSize - header.UDPMinimumSize

// A UDPConn is what a program sends to one destination from one port, and
// what it gets back. It is a net.Conn with message boundaries: each Read
// returns one datagram, each Write sends one. It ends, with net.ErrClosed,
// when it is closed or nothing has passed for Options.UDPIdle.
//
// All methods may be called concurrently.
type UDPConn struct{ *datagramConn }

var (
	_ net.Conn    = (*UDPConn)(nil)
	_ io.WriterTo = (*UDPConn)(nil)
)

// Source is the program's end.
func (c *UDPConn) Source() netip.AddrPort { return source(c.id) }

// Destination is where the program sends to.
func (c *UDPConn) Destination() netip.AddrPort { return destination(c.id) }

// LocalAddr is the address the program sends to.
func (c *UDPConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.Destination()) }

// RemoteAddr is the program's address.
func (c *UDPConn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.Source()) }

// Write sends one datagram to the program.
func (c *UDPConn) Write(p []byte) (int, error) {
	if len(p) > maxDatagram {
		return 0, fmt.Errorf("netstack: write: datagram of %d bytes: %w", len(p), syscall.EMSGSIZE)
	}
	err := c.send(header.UDPProtocolNumber, header.UDPMinimumSize, p, func(h []byte, route *stack.Route, payloadSum uint16) {
		length := uint16(header.UDPMinimumSize + len(p))
		udp := header.UDP(h)
		udp.Encode(&header.UDPFields{SrcPort: c.id.LocalPort, DstPort: c.id.RemotePort, Length: length})
		sum := checksum.Combine(route.PseudoHeaderChecksum(header.UDPProtocolNumber, length), payloadSum)
		if sum = ^udp.CalculateChecksum(sum); sum == 0 {
			sum = 0xffff // zero means that there is none (RFC 768)
		}
		udp.SetChecksum(sum)
	})
	if err != nil {
		return 0, err
	}
	c.stack.counters.toPrograms.Add(uint64(len(p)))
	return len(p), nil
}

// Reject ends the flow as Close does, and makes the next call on the program's
// connected socket fail: with EACCES (over IPv4 EHOSTUNREACH) when err is that,
// else with ECONNREFUSED.
func (c *UDPConn) Reject(err error) {
	// Kernels keep messages about an unreachable host or network from
	// datagram sockets, which would then wait for an answer that cannot come.
	kind, _ := unreachableFor(err)
	if kind != unreachableProhibited {
		kind = unreachablePort
	}
	c.stack.opts.Log.Debug("netstack: datagrams rejected", "destination", c.Destination(), "err", err)
	c.reject(kind)
}

// tooBig tells the program that its datagrams to this destination may have
// limit bytes at most.
func (c *UDPConn) tooBig(limit int) { c.stack.sendTooBig(c.quoted(), header.UDPMinimumSize+limit) }
