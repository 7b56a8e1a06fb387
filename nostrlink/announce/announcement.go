package announce

import (
	"errors"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Announcement is what an exit says of itself.
type Announcement struct {
	Key      envelope.PublicKey // set by Parse; Append takes it from the secret key
	Instance string             // of the exit, if several share the key; "" for DefaultInstance

	Relays     []string    // where it listens, best first, at most MaxRelays
	Transports []Transport // other ways to reach it, at most MaxTransports
	Policy     Policy
	Admission  string // whom the exit serves: a word such as Listed; "" for not said, or everybody
	Software   string // name/version, for people
	Versions   []int  // of the session protocol; empty: plain NWS
	Load       int    // per cent, or NoLoad
	Contact    string // of the operator, for people

	Created time.Time // set by Parse; seconds
	Expires time.Time // seconds

	// Closed: the exit takes its announcement back.
	Closed bool
	// LeftOut counts the relays and transports that Parse left out: not public,
	// or of a form that is not known.
	LeftOut int
}

// Whom an exit may say that it serves, besides those who were invited.
const (
	Listed  = "allowlist" // whom its operator knows
	Trusted = "wot"       // and those whom these follow
)

// Private reports whether an exit says that it does not serve everybody: then a
// stranger need not try.
func (a *Announcement) Private() bool { return a.Admission != "" && a.Admission != "open" }

// Transport is a way to reach an exit other than a common relay.
type Transport struct {
	Kind    string // Direct or WSN
	Address string // host:port, or a URL that begins with wsn://
}

// The kinds of transports.
const (
	Direct = "direct" // TCP, with TLS that is bound to the exit's key
	WSN    = "wsn"    // a relay addressed by its key
)

// Policy is a summary of what an exit allows, for people and for sorting. What
// it really allows shows when something is dialled.
type Policy struct {
	Ports      []PortRange // open ones; empty: not said
	IPv4, IPv6 bool        // both false: not said
	Price      Price
}

// PortRange is the ports from First to Last.
type PortRange struct{ First, Last uint16 }

// Price is what an exit asks for its service; all empty: not said.
type Price struct {
	Amount   string // digits, with a point perhaps
	Currency string // such as SAT or EUR
	Per      string // such as GB or hour
}

// DefaultInstance is the d tag of an exit that is alone with its key.
const DefaultInstance = "nws"

// NoLoad is the load of an exit that does not tell it.
const NoLoad = -1

// Bounds of an announcement. What exceeds them is refused.
const (
	MaxRelays     = 8
	MaxTransports = 8
	maxPorts      = 64 // ranges
	maxVersions   = 16
	maxVersion    = 1 << 16
	maxInstance   = 64
	maxWord       = 16  // of a price
	maxText       = 128 // contact, software
	maxAddress    = 256 // of a transport
	maxTags       = 128
	maxTagSize    = 512 // one tag's elements together
	maxContent    = 4 << 10
)

// Times of an announcement.
const (
	// maxAhead is how far the exit's clock may be before ours.
	maxAhead = 10 * time.Minute
	// maxLife bounds how long an announcement counts, whatever its expiration.
	maxLife = time.Hour
	// defaultLife is how long one without an expiration counts.
	defaultLife = 15 * time.Minute
)

// Why an announcement, or another event, does not count.
var (
	ErrExpired = errors.New("announce: expired")
	ErrFuture  = errors.New("announce: made in the future: a clock is wrong")
)
