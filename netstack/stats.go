package netstack

import "sync/atomic"

// Stats is what a Stack has done since it was started, and what it does now.
type Stats struct {
	TCPPending int // connections neither accepted nor rejected
	TCPOpen    int // accepted, and not yet gone
	UDPOpen    int
	PingOpen   int

	TCPAccepted uint64
	TCPRejected uint64 // by the handler, or because of a limit
	UDPAccepted uint64 // flows begun
	UDPRejected uint64

	PingAccepted uint64 // flows begun
	PingRejected uint64

	// Payload bytes: FromPrograms is what programs on this machine sent and a
	// handler took, ToPrograms what handlers sent to them.
	FromPrograms, ToPrograms uint64

	// PacketsDropped counts packets from or to the device that were malformed,
	// of a protocol not served, or in excess of a limit.
	PacketsDropped uint64
}

type counters struct {
	tcpAccepted, tcpRejected atomic.Uint64
	fromPrograms, toPrograms atomic.Uint64
	dropped                  atomic.Uint64
}

// Stats returns the counters as they are now.
func (s *Stack) Stats() Stats {
	pending, open := s.tcp.counts()
	return Stats{
		TCPPending:     pending,
		TCPOpen:        open,
		UDPOpen:        s.udp.count(),
		PingOpen:       s.ping.count(),
		TCPAccepted:    s.counters.tcpAccepted.Load(),
		TCPRejected:    s.counters.tcpRejected.Load(),
		UDPAccepted:    s.udp.accepted.Load(),
		UDPRejected:    s.udp.rejected.Load(),
		PingAccepted:   s.ping.accepted.Load(),
		PingRejected:   s.ping.rejected.Load(),
		FromPrograms:   s.counters.fromPrograms.Load(),
		ToPrograms:     s.counters.toPrograms.Load(),
		PacketsDropped: s.counters.dropped.Load(),
	}
}
