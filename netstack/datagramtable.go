package netstack

import (
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// maxWaiting bounds the datagrams of one flow that its handler has not
	// read, and maxWaitingAll those of all flows of a table, in bytes. What
	// comes on top is dropped, as a socket's full receive buffer does it.
	maxWaiting    = 256 << 10
	maxWaitingAll = 32 << 20
	// datagramCost is added to each datagram's length, so that empty ones are
	// bounded too.
	datagramCost = 64
)

// datagramTable is the stack's flows of one kind, open until their handler has
// returned.
type datagramTable struct {
	stack  *Stack
	most   int
	idle   time.Duration
	handle func(*datagramConn)

	waiting            atomic.Int64 // bytes in all flows' queues
	accepted, rejected atomic.Uint64

	mu     sync.Mutex
	closed bool
	flows  map[stack.TransportEndpointID]*datagramConn
}

func (t *datagramTable) init(s *Stack, most int, idle time.Duration, handle func(*datagramConn)) {
	t.stack, t.most, t.idle, t.handle = s, most, idle, handle
	t.flows = make(map[stack.TransportEndpointID]*datagramConn)
}

// deliver hands a datagram to its flow, which it begins if there is none. An
// ICMP error for the flow quotes pkt from now on if requote is set, else the
// flow's first packet.
func (t *datagramTable) deliver(id stack.TransportEndpointID, pkt *stack.PacketBuffer, datagram []byte, requote bool) {
	c, fresh := t.conn(id, pkt)
	if c == nil || !c.push(datagram) {
		t.stack.counters.dropped.Add(1)
	}
	switch {
	case fresh:
		t.accepted.Add(1)
		go t.serve(c)
	case c != nil && requote:
		c.requote(pkt)
	}
}

func (t *datagramTable) serve(c *datagramConn) {
	defer t.stack.handlers.Done()
	defer c.Close()
	t.handle(c)
}

// conn returns the flow that a packet belongs to. One that is fresh needs its
// handler started, which is counted already. It is nil when no flow is to be
// begun.
func (t *datagramTable) conn(id stack.TransportEndpointID, pkt *stack.PacketBuffer) (c *datagramConn, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.flows[id]; ok {
		return c, false
	}
	if t.closed || len(t.flows) >= t.most && !t.evictLocked() {
		return nil, false
	}
	c = newDatagramConn(t, flowOf(id, pkt))
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
func (t *datagramTable) evictLocked() bool {
	const (
		sample = 16
		spare  = 5 * time.Second
	)
	var victim *datagramConn
	longest, seen := time.Duration(0), 0
	for _, c := range t.flows {
		if idle := c.idleFor(); idle >= longest {
			victim, longest = c, idle
		}
		if seen++; seen == sample {
			break
		}
	}
	if victim == nil || longest < min(spare, t.idle/2) {
		return false
	}
	delete(t.flows, victim.id)
	go victim.Close()
	return true
}

// remove forgets c, unless its place has been taken.
func (t *datagramTable) remove(c *datagramConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flows[c.id] == c {
		delete(t.flows, c.id)
	}
}

func (t *datagramTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flows)
}

// closeAll ends all flows and lets none begin.
func (t *datagramTable) closeAll() {
	t.mu.Lock()
	t.closed = true
	var all []*datagramConn
	for _, c := range t.flows {
		all = append(all, c)
	}
	t.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}
