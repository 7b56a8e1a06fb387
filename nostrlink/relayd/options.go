package relayd

import (
	"log/slog"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Options are the settings of a Server. The zero value works.
type Options struct {
	Limits Limits
	// Rate bounds what each connection may do, AddressRate what all connections
	// of one address may together (an IPv4 address or an IPv6 /64; loopback is
	// not bounded), and KeyRate what one author may publish, over whatever
	// connections. By default nothing does.
	Rate, AddressRate, KeyRate Rate

	// Path is the file in which Open keeps events. New ignores it.
	Path string
	// Keep are the kinds of events that are kept; nil for DefaultKinds. All
	// others that are not ephemeral are refused.
	Keep Kinds
	// MinPoW is how many leading zero bits the id of an event must have to be
	// kept (NIP-13). It does not concern ephemeral ones.
	MinPoW int

	// Names are the hosts, with or without a port, by which clients know the
	// relay. A client that authenticates (NIP-42) names the relay in what it
	// signs, so that no other relay can use it here; it may always name the
	// address that it is connected to.
	Names []string
	// Members, unless nil, are the only ones who may use the relay: whoever has
	// authenticated as one of them may publish and read everything.
	Members []envelope.PublicKey
	// BehindProxy takes a client's address from the last X-Forwarded-For when
	// the connection is from loopback.
	BehindProxy bool

	// What the relay says of itself (NIP-11).
	Name, Description, Contact, Version string

	// Observe, unless nil, is called for each event that was accepted, after it
	// has been queued for its subscribers. It is called concurrently and must
	// not block.
	Observe func(Observation)
	// Log is nil for none. It never gets contents.
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
	MaxConnections int // 1024
	// MaxPerAddress bounds the connections of one address; see
	// Options.AddressRate. By default only MaxConnections does.
	MaxPerAddress    int
	MaxSubscriptions int // of a connection: 64
	MaxFilters       int // of a subscription: 16
	// MaxFilterValues is how many ids, authors, kinds and tag values the
	// filters of a connection, or those of a COUNT, may have together: 16,384. A
	// tag value of 128 bytes or more is several.
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

	MaxStored int // events: 10,000
	// MaxStoredBytes is the bytes of their JSON and of what finds them: 64 MiB.
	MaxStoredBytes int
	MaxStoredAge   time.Duration // since created_at: any
	MaxLimit       int           // stored events a filter gets at most: 500

	// MaxAge and MaxAhead bound how far the created_at of an ephemeral event may
	// lie in the past and of any event in the future: 60 s and 15 min.
	MaxAge, MaxAhead time.Duration
	// SlowTimeout is how long a subscriber that a publisher waits for may take
	// too little to make room in its queue: 3 s. Then it is cut.
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
	number(&l.MaxPerAddress, l.MaxConnections)
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
