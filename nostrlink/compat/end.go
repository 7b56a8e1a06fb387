package compat

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Sender publishes messages, each sealed in an event of its own, addressed to
// the key to.
//
// Send returns nil once a relay has taken the event: the next one of the stream
// follows then. If it tries again by itself, it does so with the same event,
// which the receiver can tell from another. Its error is final and ends the
// stream; it returns soon after ctx has ended. plaintext is borrowed until it
// returns. Send is called concurrently for different streams.
type Sender interface {
	Send(ctx context.Context, to envelope.PublicKey, plaintext []byte) error
}

// Incoming is a message that arrived. Keys.Open makes it of an event.
type Incoming struct {
	From      envelope.PublicKey // who signed the event: verified
	ID        [32]byte           // of the event; one that came before is dropped
	CreatedAt int64              // as the event says, seconds since 1970
	Message   *wire.Message
}

// Options are the choices that both ends have; the zero value works.
type Options struct {
	// Idle ends a stream on which nothing has passed for so long, DefaultIdle
	// by default.
	Idle time.Duration
	// Gap is what passes at least between the confirmation of one event of a
	// stream and the next event to the same peer, DefaultGap if it is nil. What
	// is written meanwhile travels together. ShortGap is enough for relays
	// that are known to deliver one by one, in order.
	Gap func(peer envelope.PublicKey) time.Duration
	// MaxMessage is the longest message sent, in bytes; DefaultMaxMessage by
	// default, which is a step of NIP-44's padding. Whatever it says, no message
	// holds more than 24 KiB of the stream.
	MaxMessage int
	// Limit is the longest message, in bytes, that the way to a peer takes at the
	// moment, if that is less than MaxMessage; 0 or less for no limit. nil: none.
	Limit func(peer envelope.PublicKey) int
	// MaxStreams is how many may be open at a time, DefaultMaxStreams by
	// default.
	MaxStreams int
	// MaxBuffer is how much of a stream, in bytes, may wait for its reader,
	// DefaultMaxBuffer by default, and MaxBuffered of all streams together,
	// DefaultMaxBuffered by default.
	MaxBuffer, MaxBuffered int
	// Log may be nil.
	Log *slog.Logger
}

// What zero in Options stands for, and ShortGap.
const (
	DefaultIdle        = 5 * time.Minute
	DefaultGap         = 120 * time.Millisecond // more than strfry's batches last
	ShortGap           = 10 * time.Millisecond
	DefaultMaxMessage  = 32768
	DefaultMaxStreams  = 1024
	DefaultMaxBuffer   = 8 << 20
	DefaultMaxBuffered = 64 << 20
)

// minMaxMessage leaves room for the longest destination and some data.
const minMaxMessage = 1024

func (o *Options) setDefaults() {
	if o.Idle <= 0 {
		o.Idle = DefaultIdle
	}
	if o.Gap == nil {
		o.Gap = func(envelope.PublicKey) time.Duration { return DefaultGap }
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = DefaultMaxMessage
	}
	o.MaxMessage = min(max(o.MaxMessage, minMaxMessage), wire.MaxMessage)
	if o.Limit == nil {
		o.Limit = func(envelope.PublicKey) int { return 0 }
	}
	if o.MaxStreams <= 0 {
		o.MaxStreams = DefaultMaxStreams
	}
	if o.MaxBuffer <= 0 {
		o.MaxBuffer = DefaultMaxBuffer
	}
	if o.MaxBuffered <= 0 {
		o.MaxBuffered = DefaultMaxBuffered
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// end is what an Entry and an Exit have in common: the streams.
type end struct {
	sender Sender
	opts   Options
	now    func() time.Time
	// unheard bounds the idleness of a stream before anything was heard,
	// silence the time since something was heard last, while we send; 0 is no
	// bound.
	unheard, silence time.Duration

	ctx    context.Context // of everything that waits
	cancel context.CancelFunc
	wg     sync.WaitGroup

	buffered atomic.Int64 // bytes that wait for readers
	books

	mu     sync.Mutex // before a Conn's, never after
	conns  map[wire.UUID]*Conn
	peers  map[envelope.PublicKey]int // streams of each
	closed bool
}

func (e *end) init(sender Sender, opts Options) {
	opts.setDefaults()
	e.sender, e.opts, e.now = sender, opts, time.Now
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.conns = make(map[wire.UUID]*Conn)
	e.peers = make(map[envelope.PublicKey]int)
}

// add puts a new stream among the others. e.mu is held.
func (e *end) add(c *Conn) {
	e.conns[c.id] = c
	e.peers[c.peer]++
	e.opened.Add(1)
}

// forget takes an ended stream out. No lock is held.
func (e *end) forget(c *Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns[c.id] != c {
		return
	}
	delete(e.conns, c.id)
	if e.peers[c.peer]--; e.peers[c.peer] == 0 {
		delete(e.peers, c.peer)
	}
}

// all returns the streams that want has.
func (e *end) all(want func(*Conn) bool) (list []*Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.conns {
		if want(c) {
			list = append(list, c)
		}
	}
	return list
}

// Lost says that a message was dropped, for want of room perhaps. What follows
// would have a hole, so its stream ends, unless it is a message that came
// before.
func (e *end) Lost(in Incoming) {
	id, err := wire.ParseUUID(in.Message.Key)
	if err != nil {
		return
	}
	e.mu.Lock()
	c := e.conns[id]
	e.mu.Unlock()
	if c == nil || c.peer != in.From || c.knows(in) {
		return
	}
	c.end(&wire.Error{Code: wire.CodeReset, Text: "a message of the stream was lost"})
}

// Knows reports whether a peer has a stream open.
func (e *end) Knows(peer envelope.PublicKey) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.peers[peer] > 0
}

// Close ends all streams, but for those of CONNECTR that are made, which are
// their users' alone, and waits for what they were doing.
func (e *end) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	for _, c := range e.all(func(*Conn) bool { return true }) {
		c.end(&wire.Error{Code: wire.CodeGoingAway, Text: "this end is shutting down"})
	}
	e.cancel()
	e.wg.Wait()
	return nil
}
