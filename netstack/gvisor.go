package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const nicID tcpip.NICID = 1

const (
	// These bound what a connection holds of what the program has sent and has
	// yet to receive. The other end of the wire is this machine's kernel, so
	// there is no delay for which more would be needed; half of either is
	// measurably slower.
	receiveBuffer = 512 << 10
	sendBuffer    = 256 << 10

	// timeWait is how long an ended connection still answers a repeated FIN.
	// On a TUN nothing is delayed or duplicated, so it need only outlast the
	// kernel's first retransmission.
	timeWait = 500 * time.Millisecond

	// synRetries bounds how long a handshake waits for a program's kernel that
	// does not answer any more: 1+2+4+8 seconds.
	synRetries = 3
)

// newGVisor makes a stack with one interface that takes packets for, and
// sends packets from, any address.
func newGVisor(l stack.LinkEndpoint) (*stack.Stack, error) {
	gv := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	if err := setTCPOptions(gv); err != nil {
		gv.Destroy()
		return nil, err
	}
	steps := []func() tcpip.Error{
		func() tcpip.Error { return gv.CreateNIC(nicID, l) },
		func() tcpip.Error { return gv.SetPromiscuousMode(nicID, true) },
		func() tcpip.Error { return gv.SetSpoofing(nicID, true) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			gv.Destroy()
			return nil, errors.New(err.String())
		}
	}
	gv.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID},
		{Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	return gv, nil
}

func setTCPOptions(gv *stack.Stack) error {
	var (
		// Off by default; without it each lost packet costs a round trip.
		sack = tcpip.TCPSACKEnabled(true)
		// RACK walks all segments in flight at each ACK, a fifth of the
		// throughput here, and guards against reordering, which a TUN has not.
		rack = tcpip.TCPRecovery(0)
		// Cubic costs a third of the throughput, and its window arithmetic
		// overflows on links without delay: github.com/google/gvisor/issues/11632.
		reno = tcpip.CongestionControlOption("reno")
		// gVisor swallows a SYN that reuses the ports of a connection in
		// TIME_WAIT when nothing listens, and here nothing ever does. See also
		// makeWay.
		wait    = tcpip.TCPTimeWaitTimeoutOption(timeWait)
		retries = tcpip.TCPSynRetriesOption(synRetries)
		receive = tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: receiveBuffer, Max: receiveBuffer}
		send    = tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: sendBuffer, Max: sendBuffer}
		// The buffers are as large as they get.
		tune = tcpip.TCPModerateReceiveBufferOption(false)
	)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &rack, &reno, &wait, &retries, &receive, &send, &tune} {
		if err := gv.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("option %T: %s", o, err)
		}
	}
	return nil
}

// source and destination are the flow's ends as the program sees them: gVisor
// calls the program's end remote.
func source(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(fromGVisor(id.RemoteAddress), id.RemotePort)
}

func destination(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(fromGVisor(id.LocalAddress), id.LocalPort)
}

func fromGVisor(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}
