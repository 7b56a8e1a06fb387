package session

import (
	"log/slog"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Limits are what one end grants the other, as exchanged in the handshake. The
// zero value of a field means the default, which is what both ends get when the
// handshake says nothing.
type Limits struct {
	Window       uint64 // bytes in flight or unread on all streams; default 48 MiB
	StreamWindow uint64 // the same for a new stream; default 1 MiB; it grows with use
	MaxStreams   int    // streams and flows open at a time; default 4096
	MaxPacket    int    // largest packet it can receive; default 65,535
}

// Spread says how the packets an end sends use several paths.
type Spread int

// The ways to use several paths.
const (
	// Primary uses one path at a time, the best; the others stand by, take over
	// within seconds when that falls silent, and share its load while it is
	// limited.
	Primary Spread = iota
	// Stripe uses all healthy paths at once, each by what it carries.
	Stripe
)

// Config says which session this is. The zero values of the optional fields
// give the defaults.
type Config struct {
	Role Role
	ID   [16]byte // made from both ends' randomness; the same at both ends

	Local Limits // what this end grants (optional)
	Peer  Limits // what the other end granted (optional)

	Spread    Spread // how the packets we send use several paths
	Duplicate bool   // packets of up to 1,200 bytes go over the two best paths at once

	MaxStreamWindow uint64        // how far a stream's window may grow; default 24 MiB
	SendBuffer      int           // unsent bytes of all streams together; default 8 MiB
	KeepAlive       time.Duration // the dialer asks for a sign of life after this silence, or less while it receives; default 20 s
	// DeadAfter is how long the peer may acknowledge nothing while something is
	// outstanding, by whatever path, before the session ends. Streams survive
	// shorter cuts. Default 2 min.
	DeadAfter time.Duration
	AckDelay  time.Duration // how long an acknowledgement waits for company; default 50 ms
	Log       *slog.Logger  // or nil

	// Refused is told each answer of the other end to an OPEN of ours that is no,
	// or nil. It must return at once and not call the session.
	Refused func(*wire.Error)
}

// The defaults of Limits and Config.
const (
	DefaultWindow          = 48 << 20
	DefaultStreamWindow    = 1 << 20
	DefaultMaxStreams      = 4096
	DefaultMaxStreamWindow = 24 << 20
	DefaultSendBuffer      = 8 << 20
	DefaultKeepAlive       = 20 * time.Second
	DefaultDeadAfter       = 2 * time.Minute
	DefaultAckDelay        = 50 * time.Millisecond
)

func (l Limits) withDefaults() Limits {
	if l.Window == 0 {
		l.Window = DefaultWindow
	}
	if l.StreamWindow == 0 {
		l.StreamWindow = DefaultStreamWindow
	}
	if l.MaxStreams <= 0 {
		l.MaxStreams = DefaultMaxStreams
	}
	if l.MaxPacket <= 0 {
		l.MaxPacket = wire.MaxMessage
	}
	return l
}

func (c Config) withDefaults() Config {
	c.Local, c.Peer = c.Local.withDefaults(), c.Peer.withDefaults()
	if c.MaxStreamWindow == 0 {
		c.MaxStreamWindow = DefaultMaxStreamWindow
	}
	c.MaxStreamWindow = max(c.MaxStreamWindow, c.Local.StreamWindow)
	if c.SendBuffer <= 0 {
		c.SendBuffer = DefaultSendBuffer
	}
	if c.KeepAlive <= 0 {
		c.KeepAlive = DefaultKeepAlive
	}
	if c.DeadAfter <= 0 {
		c.DeadAfter = DefaultDeadAfter
	}
	if c.AckDelay <= 0 {
		c.AckDelay = DefaultAckDelay
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
