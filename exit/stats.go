package exit

import "sync/atomic"

// Stats is what a Server has done since New. Bytes are those of flows that
// have ended, seen from the exit: sent to destinations and received from them.
type Stats struct {
	OpenFlows, Dialling          int
	TCPFlows, UDPFlows, DNSFlows int64 // accepted
	PingFlows                    int64
	Queries, QueriesFailed       int64 // of dns flows
	BytesSent, BytesReceived     int64
	Refused                      map[Reason]int64 // reasons that occurred
}

type counters struct {
	tcpFlows, udpFlows, dnsFlows, pingFlows atomic.Int64
	asked, unanswered                       atomic.Int64
	sent, received                          atomic.Int64
	refused                                 [reasons]atomic.Int64
}
