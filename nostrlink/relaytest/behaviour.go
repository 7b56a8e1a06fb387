package relaytest

import "time"

// Behaviour is what the relay does. The zero value is a well-behaved relay
// without storage. It can be changed at any time with [Relay.Set]; what is
// under way already is not changed.
type Behaviour struct {
	// NoHandshake accepts the network connection and never answers on it.
	NoHandshake bool
	// Status, unless 0, is the HTTP status that answers the handshake.
	Status int

	// Mute reads everything and answers nothing, deliveries included.
	Mute bool
	// Deaf stops reading after the handshake, so that the network fills.
	Deaf bool
	// NoPong leaves pings without answer.
	NoPong bool
	// Greeting is sent, each as a text message, to every new connection.
	Greeting []string
	// CutAfter, unless 0, drops a connection after that many of its messages.
	CutAfter int

	// NoEOSE delivers to subscriptions but never confirms them.
	NoEOSE bool
	// Closed, unless "", refuses every subscription with that reason.
	Closed string
	// ClosedWithoutWords refuses them with no reason, not even an empty one.
	ClosedWithoutWords bool
	// MaxFilters, unless 0, is how many bytes of filters a subscription may
	// have; longer ones are refused.
	MaxFilters int
	// Keep is how many of the last events are kept and repeated to each new
	// subscription that they match, as strfry does with ephemeral events.
	Keep int

	// Auth demands NIP-42: a challenge is sent to every new connection, and
	// what comes before an AUTH event is refused with auth-required.
	Auth bool
	// AuthVerdict, unless "", refuses AUTH events with that reason.
	AuthVerdict string

	// NoOK takes events without a verdict.
	NoOK bool
	// Reject, unless "", refuses every event with that reason.
	Reject string
	// PerSecond, unless 0, is how many events a connection may publish in each
	// second; the others are refused with rate-limited.
	PerSecond int

	// Drop and Duplicate are the shares (0 to 1) of deliveries lost and
	// repeated. Lost ones get their OK nevertheless.
	Drop, Duplicate float64
	// Delay is added to each delivery, and up to Jitter more.
	Delay, Jitter time.Duration
	// Reorder lets deliveries overtake each other as the jitter has it.
	// Otherwise they wait for the ones before them.
	Reorder bool
	// Batch, unless 0, holds deliveries back to multiples of that time and
	// shuffles those that leave together.
	Batch time.Duration

	// Attack, unless nil, adds events of the relay's own. They get no OK, and
	// the rest of the behaviour applies to their deliveries too.
	Attack Attack
}
