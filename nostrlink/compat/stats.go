package compat

import "sync/atomic"

// Stats are the counts of an Entry or an Exit. All but Streams and Buffered
// only grow.
type Stats struct {
	Streams  int   // open now
	Buffered int64 // bytes that wait for readers, with what they cost to keep

	Opened        uint64 // streams, without those of CONNECTR
	Reversed      uint64 // streams by CONNECTR
	BytesSent     uint64
	BytesReceived uint64

	Malformed uint64 // messages that make no sense here
	Stale     uint64 // messages that are too old, or from the future
	Repeated  uint64 // messages that came before
	Foreign   uint64 // messages for the stream of another key
	Unknown   uint64 // messages for no stream: late, mostly
	Held      uint64 // messages that overtook their CONNECT
	Spoilt    uint64 // streams given up since such messages were dropped
	Busy      uint64 // requests refused because of a bound
	Refused   uint64 // requests refused by whoever handles them, or CONNECTR when it is off

	Overflowed    uint64 // streams ended because their reader was slow
	TimedOut      uint64 // streams ended because nothing passed
	Evicted       uint64 // silent streams ended to make room
	Unsent        uint64 // streams ended because no relay took a message
	ReverseFailed uint64 // CONNECTRs whose connection did not come about
}

type books struct {
	opened, reversed, sent, received                     atomic.Uint64
	malformed, stale, repeated, foreign, unknown         atomic.Uint64
	held, spoilt, busy, refused                          atomic.Uint64
	overflowed, timedOut, evicted, unsent, reverseFailed atomic.Uint64
}

// Stats returns the present counts.
func (e *end) Stats() Stats {
	e.mu.Lock()
	streams := len(e.conns)
	e.mu.Unlock()
	b := &e.books
	return Stats{
		Streams: streams, Buffered: e.buffered.Load(),
		Opened: b.opened.Load(), Reversed: b.reversed.Load(),
		BytesSent: b.sent.Load(), BytesReceived: b.received.Load(),
		Malformed: b.malformed.Load(), Stale: b.stale.Load(), Repeated: b.repeated.Load(),
		Foreign: b.foreign.Load(), Unknown: b.unknown.Load(),
		Held: b.held.Load(), Spoilt: b.spoilt.Load(), Busy: b.busy.Load(), Refused: b.refused.Load(),
		Overflowed: b.overflowed.Load(), TimedOut: b.timedOut.Load(), Evicted: b.evicted.Load(),
		Unsent: b.unsent.Load(), ReverseFailed: b.reverseFailed.Load(),
	}
}
