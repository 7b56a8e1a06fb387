package netstack

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/ports"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

// tcpTable is the stack's connections that wait for their handler, and the
// number of those that had it.
type tcpTable struct {
	stack     *Stack
	forwarder *tcp.Forwarder

	mu      sync.Mutex
	closed  bool
	pending map[stack.TransportEndpointID]*TCPRequest
	open    int
}

func (t *tcpTable) start(s *Stack) {
	t.stack = s
	t.pending = make(map[stack.TransportEndpointID]*TCPRequest)
	// The forwarder's own limit is never reached: add counts before it.
	t.forwarder = tcp.NewForwarder(s.gv, receiveBuffer, s.opts.MaxPending+1, t.serve)
	s.gv.SetTransportProtocolHandler(tcp.ProtocolNumber, t.handle)
}

// handle takes TCP packets that are for no open connection. It returns false
// when the stack is to answer with a reset.
func (t *tcpTable) handle(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	if !isSYN(h) {
		return false
	}
	switch t.add(id, h, pkt) {
	case drop:
		t.stack.counters.dropped.Add(1)
		return true
	case repeated:
		return true
	case refuse:
		t.stack.counters.tcpRejected.Add(1)
		return false
	}
	if !t.forwarder.HandlePacket(id, pkt) { // a bad checksum
		t.remove(id, func() {})
		t.stack.handlers.Done()
		t.stack.counters.dropped.Add(1)
		return true
	}
	return true
}

type verdict int

const (
	serve verdict = iota
	repeated
	refuse
	drop
)

// add makes a request pending, and counts its handler, if the limits allow it.
func (t *tcpTable) add(id stack.TransportEndpointID, h header.TCP, pkt *stack.PacketBuffer) verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch _, ok := t.pending[id]; {
	case ok:
		return repeated
	case t.closed, len(t.pending) >= t.stack.opts.MaxPending:
		return drop
	case len(t.pending)+t.open >= t.stack.opts.MaxTCPFlows:
		return refuse
	}
	t.pending[id] = &TCPRequest{stack: t.stack, flow: flowOf(id, pkt), sequence: h.SequenceNumber()}
	t.stack.handlers.Add(1)
	return serve
}

// remove ends the pending state of a request; while does so in the forwarder,
// at the same moment for handle.
func (t *tcpTable) remove(id stack.TransportEndpointID, while func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	while()
	delete(t.pending, id)
}

// serve is the goroutine of one connection.
func (t *tcpTable) serve(fr *tcp.ForwarderRequest) {
	defer t.stack.handlers.Done()
	t.mu.Lock()
	req := t.pending[fr.ID()]
	t.mu.Unlock()
	req.forwarded = fr
	t.stack.handler.HandleTCP(t.stack.ctx, req)
	req.Reject(errNoAnswer)
	if kind := req.unreachable.Load(); kind != nil {
		req.remind(*kind)
	}
}

var (
	errNoAnswer = errors.New("netstack: the handler returned without an answer")
	errAnswered = errors.New("netstack: the request has been answered already")
)

// makeWay is called before a SYN, and clears the ports that it wants to use of
// the connection that had them before. The kernel takes them again as soon as
// it has forgotten that one, and has nothing left to hear of it; gVisor would
// keep them in TIME_WAIT and swallow the SYN, because it knows no listener to
// pass it on to.
//
// The kernel may be that fast that this side is still at work on the earlier
// connection's last packet. That is worth a short wait: else the SYN would be
// taken for one of its packets.
func (t *tcpTable) makeWay(p packet) {
	const (
		tries = 20
		pause = 50 * time.Microsecond
	)
	id := p.endpointID()
	for range tries {
		if t.isFree(id, p) {
			return
		}
		time.Sleep(pause)
	}
}

func (t *tcpTable) isFree(id stack.TransportEndpointID, syn packet) bool {
	ep, ok := t.stack.gv.FindTransportEndpoint(syn.network, tcp.ProtocolNumber, id, nicID).(*tcp.Endpoint)
	if !ok {
		t.mu.Lock()
		defer t.mu.Unlock()
		req, ok := t.pending[id]
		return !ok || req.sequence == header.TCP(syn.tcp).SequenceNumber()
	}
	ep.LockUser() // past whatever is being done to it
	state := ep.EndpointState()
	ep.UnlockUser()
	if state != tcp.StateTimeWait {
		return false
	}
	// It lives on until its timer ends it, and may still be read.
	t.stack.gv.UnregisterTransportEndpoint([]tcpip.NetworkProtocolNumber{syn.network},
		tcp.ProtocolNumber, id, ep, ports.Flags{}, 0)
	return true
}

// refuse makes the table take no further connections.
func (t *tcpTable) refuse() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

func (t *tcpTable) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
}

func (t *tcpTable) counts() (pending, open int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pending), t.open
}

// A TCPRequest is a program's wish for a connection, which waits in its
// connect(). It must be answered by one Accept or Reject; of several, the
// first counts.
type TCPRequest struct {
	stack     *Stack
	flow      flow
	sequence  uint32 // of the SYN
	forwarded *tcp.ForwarderRequest
	answered  atomic.Bool

	unreachable atomic.Pointer[unreachable] // set if that is the answer
}

// Source is the program's end.
func (r *TCPRequest) Source() netip.AddrPort { return source(r.flow.id) }

// Destination is where the program wants to connect to.
func (r *TCPRequest) Destination() netip.AddrPort { return destination(r.flow.id) }

// Accept completes the handshake, which makes the program's connect() succeed.
// The connection is the caller's to close. It also is a splice.Aborter, whose
// Abort sends a reset, and an io.WriterTo that holds no buffer while there is
// nothing to write. Accept fails when the program has given up by now.
func (r *TCPRequest) Accept() (splice.Conn, error) {
	c, err := r.accept()
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (r *TCPRequest) accept() (*tcpConn, error) {
	if !r.answered.CompareAndSwap(false, true) {
		return nil, errAnswered
	}
	queue := new(waiter.Queue)
	ep, err := r.handshake(queue)
	if err != nil {
		r.complete(func() {})
		return nil, opError("accept", err)
	}
	r.complete(func() { r.stack.tcp.open++ })
	r.stack.counters.tcpAccepted.Add(1)
	return newTCPConn(r.stack, r.flow.id, ep, queue), nil
}

// handshake is done on a goroutine of its own: it needs several times the stack
// that a flow does later, and a goroutine that stays would keep it for long.
func (r *TCPRequest) handshake(queue *waiter.Queue) (ep tcpip.Endpoint, err tcpip.Error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		ep, err = r.forwarded.CreateEndpoint(queue)
	}()
	<-done
	return ep, err
}

// Reject makes the program's connect() fail: with EHOSTUNREACH, ENETUNREACH or
// (over IPv6) EACCES when err is one of these, with EHOSTUNREACH when it is a
// timeout, else with ECONNREFUSED. After an answer it does nothing.
func (r *TCPRequest) Reject(err error) {
	if !r.answered.CompareAndSwap(false, true) {
		return
	}
	r.complete(func() {})
	r.stack.counters.tcpRejected.Add(1)
	r.stack.opts.Log.Debug("netstack: connection rejected", "destination", r.Destination(), "err", err)
	if kind, ok := unreachableFor(err); ok {
		r.unreachable.Store(&kind)
		r.stack.sendUnreachable(r.flow, kind)
		return
	}
	r.stack.sendReset(r.flow, r.sequence)
}

// remind sends the ICMP message again. Linux passes over one that comes while
// the connect() which sent the SYN still holds its socket, and would try again
// only after a second. One too many does no harm: it fits no socket.
func (r *TCPRequest) remind(kind unreachable) {
	const later = 10 * time.Millisecond
	select {
	case <-time.After(later):
		r.stack.sendUnreachable(r.flow, kind)
	case <-r.stack.ctx.Done():
	}
}

// complete ends the pending state; account is called at the same moment.
func (r *TCPRequest) complete(account func()) {
	r.stack.tcp.remove(r.flow.id, func() {
		r.forwarded.Complete(false)
		account()
	})
}
