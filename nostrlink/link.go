package nostrlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// State is where a Link stands.
type State int

// The states of a Link.
const (
	Disconnected State = iota // not serving
	Connecting                // no session yet, or again none
	Connected                 // a session is up, or there is a way without one
)

func (s State) String() string {
	switch s {
	case Connecting:
		return "connecting"
	case Connected:
		return "connected"
	}
	return "disconnected"
}

// LinkOptions are the choices of a Link; the zero value works.
type LinkOptions struct {
	Log       *slog.Logger
	Agent     string // software and version, told to the exit
	Spread    Spread // how both ends use several relays
	Duplicate bool   // small packets go over two relays at once, in both directions
	Mode      Mode   // what is spoken with the exit
	Memory    Memory // of exits without a session; nil: none
	// Resolver is the address (IP:port) of a resolver that takes DNS over TCP,
	// for an exit without a session, which has none to offer. Without it, such
	// an exit carries no DNS.
	Resolver string
	Direct   Direct // paths to the exit that need no relay
	// Credentials says what an exit is shown of who dials; nil: nothing. It is
	// asked about each exit by its key, so that what is meant for one is never
	// shown to another.
	Credentials func(exit envelope.PublicKey) Credentials
	// Reverse is offered to an exit without a session, which may connect to it
	// instead of sending over relays (CONNECTR): in the clear. nil offers none.
	Reverse *compat.ReverseListener
}

// Credentials are what an exit is shown of who dials. The zero value shows
// nothing: to the exit, each session is a stranger's.
type Credentials struct {
	Identity *envelope.SecretKey // is proven; or nil
	Token    string              // of an invitation; or empty
}

// Link is an entry's way to one exit. While it is served it keeps a session
// with that exit, over all of its relays that the exit listens on: flows are
// dialed on it. A session survives what happens to relays and networks for a
// minute and more. When the exit has restarted, or everything has been gone for
// too long, its flows are reset and a new session is made.
//
// All methods may be called concurrently.
type Link struct {
	hub    *Hub
	exit   envelope.PublicKey
	relays []string
	opts   LinkOptions

	refusals refusals     // of flows
	asked    atomic.Int32 // work, by the exit, since it last answered

	leaving   chan struct{} // one for each session that is left for another, or about to be
	leftPlain atomic.Bool   // the way without a session is left, and still has streams

	taken, known         chan struct{} // closed by tookGreeting and answeredGreeting
	takenOnce, knownOnce sync.Once

	mu      sync.Mutex
	state   State         // of the session
	up      *opened       // nil unless Connected
	plain   *plain        // the way without a session, while it is used
	since   time.Time     // of the state
	failure error         // of the last attempt to connect, or what ails the session
	ailing  time.Time     // since when the session that is up is silent or cut, or zero
	changed chan struct{} // closed and replaced with every change
}

// NewLink prepares a link to exit over the relays (URLs); nothing is sent
// before Serve.
func (h *Hub) NewLink(exit envelope.PublicKey, relays []string, opts LinkOptions) *Link {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Memory == nil {
		opts.Memory = noMemory{}
	}
	return &Link{
		hub: h, exit: exit, relays: relayURLs(relays), opts: opts,
		since: time.Now(), changed: make(chan struct{}),
		leaving: make(chan struct{}, maxLeaving),
		taken:   make(chan struct{}), known: make(chan struct{}),
	}
}

// Exit is the key of the exit this link leads to.
func (l *Link) Exit() envelope.PublicKey { return l.exit }

// LinkStatus is a Link at one moment.
type LinkStatus struct {
	State   State
	Since   time.Time
	Relay   string        // the relay that carries most of the session, or "" without one
	Relays  []RelayStatus // of the session, by URL
	Agent   string        // the exit's software, as it says
	Failure error         // why the last attempt failed or what ails the session, or nil
	Session session.Stats // of the session that is up
	// Refused are the flows that the exit did not want to serve, by what it said,
	// since the link began. What failed at a destination is not among them.
	Refused map[string]uint64
	Plain   bool         // there is no session: NWS is spoken as written
	NWS     compat.Stats // while Plain
}

// Status reports where the link stands.
func (l *Link) Status() LinkStatus {
	l.mu.Lock()
	s := LinkStatus{State: l.state, Since: l.since, Failure: l.failure, Refused: l.refusals.byText()}
	up, plain := l.up, l.plain
	l.mu.Unlock()
	switch {
	case up != nil:
	case plain != nil:
		s.State, s.Plain, s.NWS = Connected, true, plain.entry.Stats()
		s.Relay, s.Relays = plain.status()
		fallthrough
	default:
		return s
	}
	s.Agent, s.Session, s.Relays = up.agent, up.session.Stats(), up.bundle.status()
	s.Relay = up.relay
	most := int64(-1)
	for _, r := range s.Relays {
		if r.State == RelayCarrying && r.Path.Active && r.Path.Rate > most {
			s.Relay, most = r.URL, r.Path.Rate
		}
	}
	return s
}

func (l *Link) set(state State, up *opened, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (l.state != state || l.up != up) && l.plain == nil {
		l.since = time.Now()
	}
	if l.plain != nil && up == nil {
		failure = nil // there is a way meanwhile
	}
	l.state, l.up, l.failure, l.ailing = state, up, failure, time.Time{}
	close(l.changed)
	l.changed = make(chan struct{})
}

// How long a link waits before it tries again to reach its exit.
const (
	minRetry = 500 * time.Millisecond
	maxRetry = 15 * time.Second
)

// Serve keeps a session with the exit until ctx ends, or a way without one as
// the mode says. It returns ctx's error once nothing of it is left.
func (l *Link) Serve(ctx context.Context) error {
	defer l.set(Disconnected, nil, nil)
	l.set(Connecting, nil, nil)
	var beside sync.WaitGroup
	defer beside.Wait()
	switch l.opts.Mode {
	case NWSOnly:
		l.serveNWS(ctx)
		return ctx.Err()
	case Auto:
		beside.Go(func() { l.fallBack(ctx) })
	}
	retry := minRetry
	for ctx.Err() == nil {
		up, err := l.open(ctx)
		if err != nil {
			l.retry(ctx, retry, err)
			retry = min(2*retry, maxRetry)
			continue
		}
		retry = minRetry
		l.serveSessions(ctx, up, &beside)
	}
	return ctx.Err()
}

// retry waits after an attempt to get a session has failed.
func (l *Link) retry(ctx context.Context, pause time.Duration, err error) {
	l.set(Connecting, nil, err)
	if l.isPlain() {
		l.opts.Log.Debug("still no session with the exit", "err", err)
		sleep(ctx, helloPause)
		return
	}
	l.opts.Log.Warn("no session with the exit", "err", err, "retry", pause)
	sleep(ctx, pause)
}

// serveSessions keeps a session, and each that takes the place of the one
// before, until one is lost. Those that were left for another go on in beside.
func (l *Link) serveSessions(ctx context.Context, up *opened, beside *sync.WaitGroup) {
	for up != nil {
		l.set(Connected, up, nil)
		l.opts.Log.Info("session with the exit is up", "relay", up.relay, "exit_software", up.agent)
		next, err := l.keep(ctx, up)
		if errors.Is(err, errGoesAway) {
			l.opts.Log.Info("the exit goes away: another process of it takes the new flows")
			l.set(Connected, next, nil) // so that no dial begins in what is left
			left := up
			beside.Go(func() { l.leave(ctx, left) })
			up = next
			continue
		}
		if err != nil {
			l.opts.Log.Warn("session with the exit was lost", "err", err)
		}
		if next == nil && err != nil {
			l.set(Connecting, nil, fmt.Errorf("the session ended: %w", err))
		}
		up.close()
		up = next
	}
}

// inUse reports whether the link carries a flow, also by a way that it has left.
func (l *Link) inUse() bool {
	status := l.Status()
	return status.Session.Streams > 0 || status.NWS.Streams > 0 || len(l.leaving) > 0 || l.leftPlain.Load()
}

func (l *Link) isPlain() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.plain != nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Connect waits until a session is up, or the way without one is taken. When an
// attempt fails first, or ctx ends, it says which hop failed.
func (l *Link) Connect(ctx context.Context) error {
	for {
		l.mu.Lock()
		up, failure, changed := l.state == Connected || l.plain != nil, l.failure, l.changed
		l.mu.Unlock()
		switch {
		case up:
			return nil
		case failure != nil:
			return failure
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer from the exit in time: %w", ctx.Err())
		case <-changed:
		}
	}
}

// DialContext opens a flow to address through the exit; network is "tcp",
// "udp", "ping" (address is a host without a port) or "dns" (the exit's
// resolver, address ""). It waits for a session, and for "tcp" and "dns" for the
// exit's verdict: it fails with an error that unwraps to what the destination's
// refusal would have been here, such as syscall.ECONNREFUSED. The others return
// at once, and a refusal comes from Read and Write.
//
// Without a session there are "tcp" and, with LinkOptions.Resolver, "dns" only,
// and no verdict: see compat.Entry.
func (l *Link) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return l.dialWith(ctx, func(d dialer) (net.Conn, error) { return d.DialContext(ctx, network, address) })
}

// DialEarly opens a TCP flow as DialContext does but does not wait for the
// exit's verdict, and sends first, which is copied, along with the request. A
// refusal comes from Read and Write. It waits for a session.
func (l *Link) DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error) {
	return l.dialWith(ctx, func(d dialer) (net.Conn, error) { return d.DialEarly(ctx, network, address, first) })
}

// dialWith dials with what there is, and again if that has just ended.
func (l *Link) dialWith(ctx context.Context, dial func(dialer) (net.Conn, error)) (net.Conn, error) {
	for {
		d, release, err := l.current(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := dial(d)
		release()
		if !errors.Is(err, session.ErrEnded) {
			return conn, err
		}
	}
}

// flowPatience is how long a flow may wait for an exit that is lost, from when that
// is known: long enough for another network or relay to be found. Who comes later
// hears at once that nothing can be reached.
const flowPatience = 10 * time.Second

// current waits for a session that has not ended, or the way without one, for as
// long as flowPatience says. The session is not left before release is called.
func (l *Link) current(ctx context.Context) (_ dialer, release func(), _ error) {
	for {
		l.mu.Lock()
		up, plain, state, failure, changed := l.up, l.plain, l.state, l.failure, l.changed
		if up != nil && up.session.Err() != nil {
			up = nil // there will be another one
		}
		patience := l.patience(up)
		if up != nil && patience > 0 {
			up.dials.Add(1)
		}
		l.mu.Unlock()
		switch {
		case up != nil && patience > 0:
			return up, up.dials.Done, nil
		case plain != nil:
			return plain, func() {}, nil
		case state == Disconnected:
			return nil, nil, net.ErrClosed
		case patience <= 0:
			return nil, nil, unreachable(failure)
		}
		select {
		case <-ctx.Done():
			if failure == nil {
				failure = ctx.Err()
			}
			return nil, nil, unreachable(failure)
		case <-time.After(patience):
		case <-changed:
		}
	}
}

// patience is for how long flows may wait still. It is never over while nothing is
// known to be wrong. up is the session, if there is one; l.mu is held.
func (l *Link) patience(up *opened) time.Duration {
	lost := l.since
	if !l.ailing.IsZero() {
		lost = l.ailing
	}
	left := time.Until(lost.Add(flowPatience))
	if l.failure == nil && l.ailing.IsZero() || left <= 0 && up != nil && up.silentFor(time.Now()) == 0 && !up.isCut() {
		return flowPatience
	}
	return left
}

func unreachable(why error) error {
	if why == nil {
		why = errors.New("no relay is connected")
	}
	return &wire.Error{Code: wire.CodeNetUnreachable, Text: why.Error()}
}

// opened is a session with what it stands on.
type opened struct {
	session *session.Session
	bundle  *bundle
	since   time.Time
	dials   sync.WaitGroup // begins while it is the Link's
	relay   string         // over which the exit answered
	agent   string
}

func (o *opened) close() {
	o.session.Close()
	o.bundle.close()
}
