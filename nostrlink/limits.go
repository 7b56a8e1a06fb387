package nostrlink

import (
	"log/slog"
	"math"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// localLimits is what this end grants, and tells in its HELLO or WELCOME.
var localLimits = session.Limits{
	Window:       session.DefaultWindow,
	StreamWindow: session.DefaultStreamWindow,
	MaxStreams:   session.DefaultMaxStreams,
	MaxPacket:    envelope.MaxPlaintext,
}

// Spread says how a session uses several relays.
type Spread = session.Spread

// The ways to use several relays.
const (
	Primary = session.Primary // the best one; the others stand by
	Stripe  = session.Stripe  // all of them, by their rates
)

// spreadWord is how the handshake calls it.
func spreadWord(s Spread) string {
	if s == Stripe {
		return wire.SpreadStripe
	}
	return wire.SpreadPrimary
}

func spreadOf(word string) Spread {
	if word == wire.SpreadStripe {
		return Stripe
	}
	return Primary
}

func sessionConfig(role session.Role, sec secrets, peer session.Limits, log *slog.Logger) session.Config {
	return session.Config{Role: role, ID: sec.id, Local: localLimits, Peer: peer, Log: log}
}

// envelopeOverhead is what a message has beside its event: ["EVENT", and ].
const envelopeOverhead = 10

// packetFor is the largest packet for a relay that takes messages of up to
// message bytes and contents of up to content bytes, where zero means that it
// does not tell. It is 0 if that is too little to work with.
func packetFor(message, content int) int {
	event := math.MaxInt
	if message > 0 {
		event = message - envelopeOverhead
	}
	if content <= 0 {
		content = math.MaxInt
	}
	n := envelope.FullestWithin(event, content)
	if n < wire.MinMaxPacket {
		return 0
	}
	return n
}
