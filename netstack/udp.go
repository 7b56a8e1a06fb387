package netstack

import (
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	// maxWaiting bounds the datagrams of one flow that its handler has not
	// read, and maxWaitingAll those of all flows, in bytes. What comes on top
	// is dropped, as a socket's full receive buffer does it.
	maxWaiting    = 256 << 10
	maxWaitingAll = 32 << 20
	// datagramCost is added to each datagram's length, so that empty ones are
	// bounded too.
	datagramCost = 64
)

// udpTable is the stack's UDP flows, open until their handler has returned.
type udpTable struct {
	stack   *Stack
	waiting atomic.Int64 // bytes in all flows' queues

	mu     sync.Mutex
	closed bool
	flows  map[stack.TransportEndpointID]*UDPConn
}

func (t *udpTable) start(s *Stack) {
	t.stack = s
	t.flows = make(map[stack.TransportEndpointID]*UDPConn)
	s.gv.SetTransportProtocolHandler(udp.ProtocolNumber, t.handle)
}

// handle takes every UDP packet. It returns true: there is none that gVisor
// should answer.
func (t *udpTable) handle(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.UDP(pkt.TransportHeader().Slice())
	data := pkt.Data()
	fits, valid := header.UDPValid(h, data.Checksum, uint16(data.Size()), pkt.NetworkProtocolNumber,
		id.RemoteAddress, id.LocalAddress, pkt.RXChecksumValidated)
	if !fits || !valid {
		t.stack.counters.dropped.Add(1)
		return true
	}
	size := int(h.Length()) - header.UDPMinimumSize
	conn, fresh := t.conn(id, pkt)
	if conn == nil || !conn.push(data.AsRange().Capped(size).ToSlice()) {
		t.stack.counters.dropped.Add(1)
	}
	if fresh {
		t.stack.counters.udpAccepted.Add(1)
		go t.serve(conn)
	}
	return true
}

func (t *udpTable) serve(c *UDPConn) {
	defer t.stack.handlers.Done()
	defer c.Close()
	t.stack.handler.HandleUDP(c.ctx, c)
}

// conn returns the flow that a packet belongs to. One that is fresh needs its
// handler started, which is counted already. It is nil when no flow is to be
// begun.
func (t *udpTable) conn(id stack.TransportEndpointID, pkt *stack.PacketBuffer) (c *UDPConn, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.flows[id]; ok {
		return c, false
	}
	if t.closed || len(t.flows) >= t.stack.opts.MaxUDPFlows && !t.evictLocked() {
		return nil, false
	}
	c = newUDPConn(t.stack, flowOf(id, pkt))
	if c == nil {
		return nil, false
	}
	t.flows[id] = c
	t.stack.handlers.Add(1)
	return c, true
}

// evictLocked makes room by ending the flow that has been idle for longest
// among a few taken at random, if that is long enough to spare it. A program
// that opens flows without end thereby mostly ends its own.
func (t *udpTable) evictLocked() bool {
	const (
		sample = 16
		spare  = 5 * time.Second
	)
	var victim *UDPConn
	longest, seen := time.Duration(0), 0
	for _, c := range t.flows {
		if idle := c.idleFor(); idle >= longest {
			victim, longest = c, idle
		}
		if seen++; seen == sample {
			break
		}
	}
	if victim == nil || longest < min(spare, t.stack.opts.UDPIdle/2) {
		return false
	}
	delete(t.flows, victim.flow.id)
	go victim.Close()
	return true
}

// remove forgets c, unless its place has been taken.
func (t *udpTable) remove(c *UDPConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flows[c.flow.id] == c {
		delete(t.flows, c.flow.id)
	}
}

func (t *udpTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flows)
}

// closeAll ends all flows and lets none begin.
func (t *udpTable) closeAll() {
	t.mu.Lock()
	t.closed = true
	var all []*UDPConn
	for _, c := range t.flows {
		all = append(all, c)
	}
	t.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}
