package compat

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// ExitOptions are the choices of an Exit; the zero value works.
type ExitOptions struct {
	Options
	// Silence ends a stream whose entry was not heard of for so long, also when
	// we go on sending: an entry that is gone does not say so. DefaultSilence by
	// default.
	Silence time.Duration
	// MaxPerPeer is how many streams one key may have open, DefaultMaxPerPeer by
	// default.
	MaxPerPeer int
	// DialBack connects to what an entry says is its public address, for
	// CONNECTR; the stream then passes in the clear. It must apply the
	// operator's policy to the address, after resolving. nil refuses CONNECTR.
	// Literal addresses that are not public never get there unless AllowPrivate
	// is set.
	DialBack     func(ctx context.Context, network, address string) (net.Conn, error)
	AllowPrivate bool
}

// What zero in ExitOptions stands for.
const (
	DefaultSilence    = 5 * time.Minute
	DefaultMaxPerPeer = 128
)

const (
	// maxSkew is how far the clock of a request may be from ours. The request
	// is remembered for as long as it could be repeated.
	maxSkew  = 2 * time.Minute
	keepUsed = 2*maxSkew + time.Second // events have whole seconds
	maxUsed  = 1 << 15                 // requests remembered; more are refused
	// backlog is how many requests may wait for Accept.
	backlog = 64
	// evictable is how long the entry of a stream must have been silent before
	// the stream makes room for another.
	evictable = 15 * time.Second
	// maxReverse bounds the connections of CONNECTR that are being made.
	maxReverse = 32
)

// Exit serves the entries that know no session: it makes their messages into
// requests.
type Exit struct {
	end
	perPeer      int
	dialBack     func(ctx context.Context, network, address string) (net.Conn, error)
	allowPrivate bool
	requests     chan *Request
	reversing    chan struct{} // a token for each connection being made

	// Guarded by end.mu.
	used  expiring[wire.UUID] // of requests that came
	early holder
}

// NewExit returns an Exit whose messages sender takes to the entries. What
// arrives for the sender's key goes to Receive.
func NewExit(sender Sender, opts ExitOptions) *Exit {
	if opts.MaxPerPeer <= 0 {
		opts.MaxPerPeer = DefaultMaxPerPeer
	}
	if opts.Silence <= 0 {
		opts.Silence = DefaultSilence
	}
	e := &Exit{
		perPeer: opts.MaxPerPeer, dialBack: opts.DialBack, allowPrivate: opts.AllowPrivate,
		requests:  make(chan *Request, backlog),
		reversing: make(chan struct{}, maxReverse),
	}
	e.init(sender, opts.Options)
	e.silence = opts.Silence
	return e
}

// Receive takes a message addressed to the exit's key. Messages of one peer
// must come in their order. It does not block.
func (e *Exit) Receive(in Incoming) {
	id, err := wire.ParseUUID(in.Message.Key)
	if err != nil {
		e.malformed.Add(1)
		return
	}
	switch in.Message.Type {
	case wire.TypeConnect:
		e.connect(id, in)
	case wire.TypeConnectReverse:
		e.connectReverse(id, in)
	case wire.TypeData, wire.TypeSocks5Response:
		e.data(id, in)
	default:
		e.malformed.Add(1)
	}
}

// data takes a message of a stream, or keeps it until its CONNECT comes.
func (e *Exit) data(id wire.UUID, in Incoming) {
	e.mu.Lock()
	c := e.conns[id]
	var err error
	switch {
	case e.closed:
	case c == nil && e.used.has(id, e.now()):
		e.unknown.Add(1)
	case c == nil:
		e.hold(id, in)
	case c.peer != in.From:
		e.foreign.Add(1)
	default:
		// Under the lock, so that nothing passes what was held.
		err = c.deliver(in)
	}
	e.mu.Unlock()
	if err != nil {
		c.end(err)
	}
}

// connect makes a request of a CONNECT.
func (e *Exit) connect(id wire.UUID, in Incoming) {
	address, err := requested(in.Message.Destination)
	if err != nil {
		e.malformed.Add(1)
		return
	}
	e.mu.Lock()
	if !e.admit(id, in) {
		e.mu.Unlock()
		return
	}
	if !e.makeRoom(in.From) {
		e.mu.Unlock()
		e.busy.Add(1)
		return
	}
	c := e.newConn(id, in.From)
	c.speaks = wire.TypeData
	e.add(c)
	err = c.deliver(in)
	for _, held := range e.early.take(holdKey{in.From, id}) {
		if err == nil {
			err = c.deliver(held)
		}
	}
	e.mu.Unlock()
	c.watch()
	if err != nil {
		c.end(err)
		return
	}
	if !e.queue(&Request{exit: e, id: id, peer: in.From, address: address, conn: c}) {
		c.end(&wire.Error{Code: wire.CodeBusy})
	}
}

// admit decides whether a request is new, and remembers it. e.mu is held.
func (e *Exit) admit(id wire.UUID, in Incoming) bool {
	now := e.now()
	c := e.conns[id]
	switch {
	case e.closed:
	case now.Sub(time.Unix(in.CreatedAt, 0)).Abs() > maxSkew:
		e.stale.Add(1)
	case c != nil && c.peer != in.From:
		e.foreign.Add(1)
	case c != nil || e.used.has(id, now):
		e.repeated.Add(1)
	case e.early.isSpoilt(holdKey{in.From, id}):
		e.spoilt.Add(1)
	case !e.used.add(id, now, keepUsed, maxUsed):
		e.busy.Add(1)
	default:
		return true
	}
	return false
}

// makeRoom reports whether there is room for one more stream of the peer. It
// may end another, of which nothing was heard for a while. e.mu is held, and
// free meanwhile.
func (e *Exit) makeRoom(peer envelope.PublicKey) bool {
	if e.peers[peer] >= e.perPeer {
		return false
	}
	if len(e.conns) < e.opts.MaxStreams {
		return true
	}
	var silent *Conn
	since := e.now().Add(-evictable)
	for _, c := range e.conns {
		c.mu.Lock()
		if !c.heard.After(since) {
			silent, since = c, c.heard
		}
		c.mu.Unlock()
	}
	if silent == nil {
		return false
	}
	e.mu.Unlock()
	if silent.end(&wire.Error{Code: wire.CodeBusy, Text: "made room for another stream"}) {
		e.evicted.Add(1)
	}
	e.mu.Lock()
	return !e.closed && len(e.conns) < e.opts.MaxStreams && e.peers[peer] < e.perPeer
}

func (e *Exit) queue(r *Request) bool {
	select {
	case e.requests <- r:
		return true
	default:
		e.busy.Add(1)
		return false
	}
}

// Accept waits for the next request. It fails when ctx ends or the Exit is
// closed.
func (e *Exit) Accept(ctx context.Context) (*Request, error) {
	select {
	case r := <-e.requests:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-e.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Request is a stream that an entry wants. It ends in exactly one Accept or
// Reject.
type Request struct {
	exit     *Exit
	id       wire.UUID
	peer     envelope.PublicKey
	address  string
	conn     *Conn  // nil for CONNECTR
	back     string // where to connect for CONNECTR
	answered atomic.Bool
}

// Network is "tcp".
func (r *Request) Network() string { return "tcp" }

// Address is the destination: host:port, or the name of an exit without a port,
// which stands for its service.
func (r *Request) Address() string { return r.address }

// ID is the stream's UUID.
func (r *Request) ID() [16]byte { return r.id }

// Peer is the key that wants the stream; the reference has a new one for each.
func (r *Request) Peer() envelope.PublicKey { return r.peer }

// Accept returns the stream: a *Conn, in which what has come already waits, or
// for CONNECTR a connection to the entry, which it makes. Nothing is sent: the
// protocol has no answer.
func (r *Request) Accept() (net.Conn, error) {
	if !r.answered.CompareAndSwap(false, true) {
		return nil, net.ErrClosed
	}
	if r.conn == nil {
		return r.exit.connectBack(r)
	}
	r.conn.mu.Lock()
	over, err := r.conn.over, r.conn.err
	r.conn.mu.Unlock()
	if over {
		return nil, err
	}
	return r.conn, nil
}

// Reject drops the stream. The entry is not told, since the protocol cannot.
func (r *Request) Reject(err error) {
	if !r.answered.CompareAndSwap(false, true) {
		return
	}
	r.exit.refused.Add(1)
	if r.conn != nil {
		r.conn.Abort(err)
	}
}
