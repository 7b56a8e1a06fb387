package relayd

import (
	"log/slog"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Options are the settings of a Server. The zero value works.
type Options struct {
	Limits Limits
	// Rate bounds what each connection may publish; by default nothing does.
	Rate Rate
	// Name and Description are what the relay says of itself (NIP-11).
	Name, Description string
	// Version of the software, for NIP-11.
	Version string
	// Observe, unless nil, is called for each event that was accepted, after it
	// has been queued for its subscribers. It is called concurrently and must
	// not block.
	Observe func(Observation)
	// Log is nil for none.
	Log *slog.Logger
}

// Observation is what Observe is told of an event.
type Observation struct {
	Kind        int
	Author      envelope.PublicKey
	Recipient   envelope.PublicKey // of the first p tag that holds a key, or zero
	Size        int                // of its JSON in bytes
	Subscribers int                // that it was queued for
}

// Limits bounds what clients can make the server do. Zero means the default.
type Limits struct {
	MaxConnections   int // 1024
	MaxSubscriptions int // of a connection: 64
	MaxFilters       int // of a subscription: 16
	// MaxFilterValues is how many ids, authors, kinds and tag values the
	// filters of a connection may have together: 16,384.
	MaxFilterValues int
	// MaxAllValues is the same for all connections together: 262,144. A value
	// costs up to about 200 bytes.
	MaxAllValues int

	MaxEvent   int // bytes of an event's JSON: 65,536
	MaxMessage int // bytes of a message: 262,144
	MaxQueue   int // bytes that wait to be written to one connection: 4 MiB
	// MaxMemory is the bytes of received messages that are held at a time, in
	// reading, checking and in queues, each counted once: 256 MiB.
	MaxMemory int

	MaxStored      int // events: 10,000
	MaxStoredBytes int // 64 MiB
	MaxLimit       int // stored events a filter gets at most: 500

	// MaxAge and MaxAhead bound how far the created_at of an ephemeral event may
	// lie in the past and of any event in the future: 60 s and 15 min.
	MaxAge, MaxAhead time.Duration
	// SlowTimeout is how long a subscriber may take nothing while a publisher
	// waits for room in its queue: 3 s. A publisher waits three times as long at
	// most for all subscribers of one event together.
	SlowTimeout time.Duration
	// MessageTimeout is how long a message may take to arrive, and 64 KiB to be
	// accepted by a client: 30 s.
	MessageTimeout time.Duration
	// PingAfter is the silence after which a client is asked whether it lives,
	// and PongTimeout how long it may stay silent then: 30 s and 20 s.
	PingAfter, PongTimeout time.Duration
	// MaxFaults is how many messages of a connection may be malformed or hold a
	// wrong id or signature before it is cut: 100.
	MaxFaults int
}

func (l Limits) withDefaults() Limits {
	number := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	seconds := func(d *time.Duration, n int) {
		if *d <= 0 {
			*d = time.Duration(n) * time.Second
		}
	}
	number(&l.MaxConnections, 1024)
	number(&l.MaxSubscriptions, 64)
	number(&l.MaxFilters, 16)
	number(&l.MaxFilterValues, 16384)
	number(&l.MaxAllValues, 1<<18)
	number(&l.MaxEvent, 64<<10)
	number(&l.MaxMessage, 256<<10)
	number(&l.MaxQueue, 4<<20)
	number(&l.MaxMemory, 256<<20)
	number(&l.MaxStored, 10000)
	number(&l.MaxStoredBytes, 64<<20)
	number(&l.MaxLimit, 500)
	number(&l.MaxFaults, 100)
	seconds(&l.MaxAge, 60)
	seconds(&l.MaxAhead, 900)
	seconds(&l.SlowTimeout, 3)
	seconds(&l.MessageTimeout, 30)
	seconds(&l.PingAfter, 30)
	seconds(&l.PongTimeout, 20)
	l.MaxEvent = min(l.MaxEvent, envelope.MaxEventSize)
	l.MaxMessage = max(l.MaxMessage, l.MaxEvent+1024)
	return l
}
