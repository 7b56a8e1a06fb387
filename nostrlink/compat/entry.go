package compat

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// EntryOptions are the choices of an Entry; the zero value works.
type EntryOptions struct {
	Options
	// Answer ends a stream of which nothing was heard, for so long after
	// something was sent, DefaultAnswer by default: it is all that shows of a
	// destination that refuses.
	Answer time.Duration
	// Text makes the entry send DATA from the first byte. Otherwise it does once
	// the exit has, and until then it sends SOCKS5RESPONSE, since the reference
	// takes nothing else.
	Text bool
	// Resolver is the address, host:port, of a resolver that speaks DNS over
	// TCP, to be reached through the exit when the network "dns" is dialed. By
	// default there is none.
	Resolver string
	// Reverse receives the connections of CONNECTR, which are in the clear. By
	// default there are none, and every stream goes over the relays.
	Reverse *ReverseListener
}

// DefaultAnswer is what zero in EntryOptions.Answer stands for.
const DefaultAnswer = 60 * time.Second

// Entry dials through one exit that knows no session.
type Entry struct {
	end
	exit     envelope.PublicKey
	text     atomic.Bool // the exit speaks DATA
	resolver string
	reverse  *ReverseListener
	down     atomic.Int64 // until when, in nanoseconds since 1970, CONNECTR is not tried
	newID    func() wire.UUID
}

// NewEntry returns an Entry whose messages sender takes to exit. What exit sends
// to the sender's key goes to Receive.
func NewEntry(exit envelope.PublicKey, sender Sender, opts EntryOptions) *Entry {
	e := &Entry{exit: exit, resolver: opts.Resolver, reverse: opts.Reverse, newID: wire.NewUUID}
	e.init(sender, opts.Options)
	e.text.Store(opts.Text)
	if e.unheard = opts.Answer; e.unheard <= 0 {
		e.unheard = DefaultAnswer
	}
	return e
}

// Receive takes a message addressed to the entry's key. Messages of a stream
// must come in their order. It does not block.
func (e *Entry) Receive(in Incoming) {
	m := in.Message
	id, err := wire.ParseUUID(m.Key)
	if err != nil || m.Type != wire.TypeData && m.Type != wire.TypeSocks5Response {
		e.malformed.Add(1)
		return
	}
	if in.From != e.exit {
		e.foreign.Add(1)
		return
	}
	e.mu.Lock()
	c := e.conns[id]
	e.mu.Unlock()
	if c == nil {
		e.unknown.Add(1)
		return
	}
	if m.Type == wire.TypeData {
		e.text.Store(true)
	}
	if err := c.deliver(in); err != nil {
		c.end(err)
	}
}

// DialContext opens a stream to address through the exit. It returns when a
// relay has taken the request, or with CONNECTR when the exit has connected:
// the protocol has no answer. The result is a *Conn, or a *net.TCPConn.
//
// The network is "tcp", or "dns" if there is EntryOptions.Resolver; the others
// do not exist in this protocol. A host name in address travels as it is. The
// exit's own name stands for its service, and the port is not told.
func (e *Entry) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	dest, err := e.destination(network, address)
	if err != nil {
		return nil, err
	}
	if e.reverse != nil && e.now().UnixNano() >= e.down.Load() {
		conn, err := e.dialReverse(ctx, dest)
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		e.opts.Log.Warn("the exit did not connect back; its streams go over relays for a while", "err", err)
	}
	c, err := e.dial(dest, nil)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.opened:
		return c, nil
	case <-c.ctx.Done():
		return nil, c.failure()
	case <-ctx.Done():
		c.Abort(ctx.Err())
		return nil, ctx.Err()
	}
}

// DialEarly does what DialContext does and writes first, which is copied. It
// does not wait for a relay, but it does for a connection of CONNECTR.
func (e *Entry) DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error) {
	if e.reverse == nil {
		dest, err := e.destination(network, address)
		if err != nil {
			return nil, err
		}
		return e.dial(dest, first)
	}
	conn, err := e.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(first); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (e *Entry) destination(network, address string) (string, error) {
	switch network {
	case "tcp":
	case "dns":
		if e.resolver != "" {
			return asked(e.resolver, e.exit)
		}
		fallthrough
	default:
		return "", &wire.Error{Code: wire.CodeUnsupported, Text: "this exit carries only TCP: it knows no network " + network}
	}
	return asked(address, e.exit)
}

// dial begins a stream over the relays.
func (e *Entry) dial(dest string, first []byte) (*Conn, error) {
	c := e.newConn(e.newID(), e.exit)
	c.dest = dest
	c.opened = make(chan struct{})
	c.request = &wire.Message{Key: c.id.String(), Type: wire.TypeConnect, Destination: dest}
	c.out = append(c.out, first...)
	c.speaks = wire.TypeSocks5Response
	if e.text.Load() {
		c.speaks = wire.TypeData
	}
	e.mu.Lock()
	switch {
	case e.closed:
		e.mu.Unlock()
		c.cancel()
		return nil, net.ErrClosed
	case len(e.conns) >= e.opts.MaxStreams:
		e.mu.Unlock()
		c.cancel()
		e.busy.Add(1)
		return nil, &wire.Error{Code: wire.CodeBusy, Text: "too many streams are open through this exit"}
	}
	e.add(c)
	c.mu.Lock()
	c.pump()
	c.mu.Unlock()
	e.mu.Unlock()
	c.watch()
	return c, nil
}

// failure is why the stream is over.
func (c *Conn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
