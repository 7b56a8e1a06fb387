package session

import (
	"context"
	"errors"
	"net"
	"sync"
)

// Role says which end of the session this is. Only the dialer opens streams.
type Role int

// The two ends of a session.
const (
	Dialer   Role = iota // opens streams: the entry
	Listener             // accepts them: the exit
)

// Carrier takes packets to the other end, best effort: it may drop, delay,
// repeat and reorder them. A session calls Send from one goroutine only.
type Carrier interface {
	// Send hands over one packet and blocks while the carrier is busy: that is
	// the back-pressure. The packet is borrowed until Send returns. nil does not
	// mean delivered; an error means that the carrier is closed for good.
	Send(packet []byte) error
	// MaxPacket is the largest packet the carrier takes, at least
	// wire.MinMaxPacket. It does not change.
	MaxPacket() int
	// Close makes Send return. It may be called at any time and more than once.
	Close() error
}

// errAnswered is for a second answer to a Request.
var errAnswered = errors.New("session: request was answered before")

// ErrPeerSilent ends a session whose peer has acknowledged nothing for
// Config.DeadAfter while something was outstanding.
var ErrPeerSilent = errors.New("session: peer is silent")

// Session is one end of a session. All methods are safe for concurrent use.
type Session struct {
	cfg Config
	mu  sync.Mutex
}

// New makes a session without carriers; streams may be opened at once and wait
// until one is attached. Close must be called to release it.
func New(cfg Config) *Session { return &Session{cfg: cfg} }

// Attach gives the session a carrier and starts the goroutine that feeds it.
// The session owns the carrier from now on and closes it when the path is
// detached, when Send fails and when the session ends.
func (s *Session) Attach(c Carrier) *Path { return &Path{} }

// DialContext opens a stream or a flow of datagrams to address through the
// other end and waits until that has accepted or refused it. network is "tcp"
// (the result is a *Stream), "udp" (a *Datagrams) or "dns" (a *Stream to the
// other end's resolver; address is ""). A refusal is a *wire.Error, which
// unwraps to the errno a local dial would have failed with. When ctx ends first
// the other end is told. Only a Dialer's session dials.
func (s *Session) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return nil, errors.New("session: not written yet")
}

// Accept waits for the other end to open a stream or flow. It fails when ctx
// ends or the session does.
func (s *Session) Accept(ctx context.Context) (*Request, error) {
	return nil, errors.New("session: not written yet")
}

// Done is closed when the session has ended: by Close, by the other end, or
// because that fell silent or broke the protocol. Err says why.
func (s *Session) Done() <-chan struct{} { return nil }

// Err is nil before Done is closed. Afterwards it is net.ErrClosed after Close,
// ErrPeerSilent, or a *wire.Error (possibly wrapped).
func (s *Session) Err() error { return nil }

// Close tells the other end, as far as a carrier takes the packet within a
// second, resets every stream, closes the carriers and waits for the session's
// goroutines. It may be called more than once.
func (s *Session) Close() error { return nil }

// Path is a carrier in use by a session.
type Path struct{}

// Receive hands in a packet that the carrier brought, decrypted. It copies what
// it keeps, never blocks for long, and is safe for concurrent use.
func (p *Path) Receive(packet []byte) {}

// Accepted reports that the first hop took n more of the packets sent (a
// relay's OK). It lets waiting small writes go. A carrier whose first hop says
// nothing of the kind never calls it.
func (p *Path) Accepted(n int) {}

// Detach takes the carrier out of use and closes it; what it still carried is
// sent again over the others. It returns when the last Send has, so it must not
// be called from within Send. It may be called more than once.
func (p *Path) Detach() {}

// Request is a stream or flow that the other end wants opened. It ends in
// exactly one Accept or Reject.
type Request struct{}

// Network is "tcp", "udp" or "dns".
func (r *Request) Network() string { return "" }

// Address is the destination, host:port as the dialer gave it; "" for "dns".
func (r *Request) Address() string { return "" }

// Accept opens it: a *Stream for "tcp" and "dns", a *Datagrams for "udp". It
// fails when the dialer no longer wants it.
func (r *Request) Accept() (net.Conn, error) { return nil, errors.New("session: not written yet") }

// Reject refuses it; the dialer's DialContext fails with wire.CodeOf(err) and
// err's text.
func (r *Request) Reject(err error) {}
