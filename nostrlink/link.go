package nostrlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// State is where a Link stands.
type State int

// The states of a Link.
const (
	Disconnected State = iota // not serving
	Connecting                // no session yet, or again none
	Connected                 // a session is up
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
	Log   *slog.Logger
	Agent string // software and version, told to the exit
}

// Link is an entry's way to one exit. While it is served it keeps a session
// with that exit: flows are dialed on it, and when the exit or every relay
// has been gone for too long, its flows are reset and a new session is made.
//
// All methods may be called concurrently.
type Link struct {
	hub    *Hub
	exit   envelope.PublicKey
	relays []string
	opts   LinkOptions

	mu      sync.Mutex
	state   State
	session *session.Session // nil unless Connected
	relay   string           // that carries it
	since   time.Time        // of the state
	failure error            // of the last attempt to connect
	agent   string           // of the exit
	changed chan struct{}    // closed and replaced with every change
}

// NewLink prepares a link to exit over any of the relays (URLs); nothing is
// sent before Serve.
func (h *Hub) NewLink(exit envelope.PublicKey, relays []string, opts LinkOptions) *Link {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Link{
		hub: h, exit: exit, relays: slices.Clone(relays), opts: opts,
		since: time.Now(), changed: make(chan struct{}),
	}
}

// Exit is the key of the exit this link leads to.
func (l *Link) Exit() envelope.PublicKey { return l.exit }

// LinkStatus is a Link at one moment.
type LinkStatus struct {
	State   State
	Since   time.Time
	Relay   string        // the relay that carries the session, or ""
	Agent   string        // the exit's software, as it says
	Failure error         // why the last attempt failed, or nil
	Session session.Stats // of the session that is up
}

// Status reports where the link stands.
func (l *Link) Status() LinkStatus {
	l.mu.Lock()
	s := LinkStatus{State: l.state, Since: l.since, Relay: l.relay, Agent: l.agent, Failure: l.failure}
	current := l.session
	l.mu.Unlock()
	if current != nil {
		s.Session = current.Stats()
	}
	return s
}

func (l *Link) set(state State, s *session.Session, relay, agent string, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != state {
		l.since = time.Now()
	}
	l.state, l.session, l.relay, l.agent, l.failure = state, s, relay, agent, failure
	close(l.changed)
	l.changed = make(chan struct{})
}

// How long a link waits before it tries again to reach its exit.
const (
	minRetry = 500 * time.Millisecond
	maxRetry = 15 * time.Second
)

// Serve keeps a session with the exit until ctx ends. It returns ctx's error
// once the session is closed and nothing of it is left.
func (l *Link) Serve(ctx context.Context) error {
	defer l.set(Disconnected, nil, "", "", nil)
	l.set(Connecting, nil, "", "", nil)
	retry := minRetry
	for ctx.Err() == nil {
		opened, err := l.open(ctx)
		if err != nil {
			l.opts.Log.Warn("no session with the exit", "err", err, "retry", retry)
			l.set(Connecting, nil, "", "", err)
			sleep(ctx, retry)
			retry = min(2*retry, maxRetry)
			continue
		}
		retry = minRetry
		l.set(Connected, opened.session, opened.relay, opened.agent, nil)
		l.opts.Log.Info("session with the exit is up", "relay", opened.relay, "exit_software", opened.agent)
		if err := opened.wait(ctx); err != nil {
			l.opts.Log.Warn("session with the exit was lost", "err", err)
			l.set(Connecting, nil, "", "", fmt.Errorf("the session ended: %w", err))
		}
		opened.close()
	}
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Connect waits until a session is up. When an attempt fails first, or ctx
// ends, it says which hop failed.
func (l *Link) Connect(ctx context.Context) error {
	for {
		l.mu.Lock()
		state, failure, changed := l.state, l.failure, l.changed
		l.mu.Unlock()
		switch {
		case state == Connected:
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
// "udp" or "dns" (the exit's resolver, address ""). It waits for a session and
// for the exit's verdict, and fails with an error that unwraps to what the
// destination's refusal would have been here, such as syscall.ECONNREFUSED.
func (l *Link) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	s, err := l.current(ctx)
	if err != nil {
		return nil, err
	}
	return s.DialContext(ctx, network, address)
}

// current waits for a session.
func (l *Link) current(ctx context.Context) (*session.Session, error) {
	for {
		l.mu.Lock()
		s, state, failure, changed := l.session, l.state, l.failure, l.changed
		l.mu.Unlock()
		if s != nil {
			return s, nil
		}
		if state == Disconnected {
			return nil, net.ErrClosed
		}
		select {
		case <-ctx.Done():
			if failure == nil {
				failure = ctx.Err()
			}
			return nil, &wire.Error{Code: wire.CodeNetUnreachable, Text: failure.Error()}
		case <-changed:
		}
	}
}

// opened is a session with what it stands on.
type opened struct {
	session *session.Session
	carrier *relayCarrier
	relay   string
	agent   string
	release func()
}

// wait blocks until the session is lost, and says why, or ctx ends.
func (o *opened) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-o.session.Done():
		return o.session.Err()
	case <-o.carrier.gone:
		return o.carrier.lost()
	}
}

func (o *opened) close() {
	o.session.Close()
	o.carrier.Close()
	o.release()
}

// open shakes hands over all the link's relays at once. The first WELCOME
// wins; when none comes, the error names what went wrong at each relay.
func (l *Link) open(ctx context.Context) (*opened, error) {
	if len(l.relays) == 0 {
		return nil, errors.New("no relay is known for this exit: name one with --relay")
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	type result struct {
		*opened
		err error
	}
	results := make(chan result, len(l.relays))
	for _, url := range l.relays {
		go func() {
			o, err := l.openVia(ctx, url)
			results <- result{o, err}
		}()
	}
	var (
		won      *opened
		failures []string
	)
	for range l.relays {
		switch r := <-results; {
		case r.err != nil:
			failures = append(failures, r.err.Error())
		case won == nil:
			won = r.opened
			cancel()
		default:
			r.close()
		}
	}
	if won == nil {
		return nil, errors.New(strings.Join(failures, "; "))
	}
	return won, nil
}

// handshakeTimeout bounds the whole way to a session: relay and exit.
const handshakeTimeout = 12 * time.Second

// helloRepeats are the pauses before a HELLO is sent again, since it or its
// answer may have been lost. The last one repeats.
var helloRepeats = [...]time.Duration{time.Second, 2 * time.Second, 4 * time.Second}

// maxMutes is how often a relay may say that nobody listens for the exit
// before it is believed: an exit that is reconnecting comes back within this.
const maxMutes = 3

func (l *Link) openVia(ctx context.Context, url string) (_ *opened, err error) {
	g, err := newGreeting(l.exit)
	if err != nil {
		return nil, err
	}
	post, err := l.hub.acquire(url)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.hub.release(post)
		}
	}()
	if err := post.connect(ctx); err != nil {
		return nil, err
	}
	answers := make(chan *answered, 1)
	box := post.add(g.hello.Public(), func(ev *envelope.Event, _ []byte) {
		s, w, err := g.answer(ev)
		if errors.Is(err, errNotOurs) {
			return
		}
		select {
		case answers <- &answered{s, w, err}:
		default: // the first one counts
		}
	})
	defer box.close()
	// The session's key is listened for before the exit can know it, so that
	// its first packet is not missed.
	inbox := post.add(g.session.Public(), nil)
	defer func() {
		if err != nil {
			inbox.close()
		}
	}()
	if err := post.confirm(ctx, box, inbox); err != nil {
		return nil, err
	}
	a, err := l.greet(ctx, post, g, answers)
	if err != nil {
		return nil, err
	}
	s := session.New(sessionConfig(session.Dialer, a.secrets, session.Limits{
		Window: a.welcome.Window, StreamWindow: a.welcome.StreamWindow,
		MaxStreams: a.welcome.MaxStreams, MaxPacket: a.welcome.MaxPacket,
	}, l.opts.Log))
	c := attach(s, post, inbox, a.secrets, a.welcome.MaxPacket)
	return &opened{
		session: s, carrier: c, relay: url, agent: oneLine(a.welcome.Agent),
		release: func() {
			inbox.close()
			l.hub.release(post)
		},
	}, nil
}

// answered is the exit's word on a greeting.
type answered struct {
	secrets
	welcome *wire.Welcome
	err     error
}

// greet sends HELLO until the exit answers, the relay refuses, or ctx ends.
func (l *Link) greet(ctx context.Context, post *post, g *greeting, answers <-chan *answered) (*answered, error) {
	verdicts := make(chan string, 16)
	mutes := 0
	for try := 0; ; try++ {
		event, id, err := g.event(time.Now(), l.opts.Agent)
		if err != nil {
			return nil, err
		}
		err = post.publish(ctx, event, id, func(accepted bool, reason string) {
			if !accepted {
				select {
				case verdicts <- reason:
				default:
				}
			}
		})
		if err != nil {
			return nil, err
		}
		repeat := time.NewTimer(helloRepeats[min(try, len(helloRepeats)-1)])
		for waiting := true; waiting; {
			select {
			case a := <-answers:
				repeat.Stop()
				return a, a.err
			case reason := <-verdicts:
				if relay.Prefix(reason) != "mute" {
					repeat.Stop()
					return nil, fmt.Errorf("relay %s refused the greeting: %s: use another relay", post.url, oneLine(reason))
				}
				if mutes++; mutes >= maxMutes {
					repeat.Stop()
					return nil, fmt.Errorf("exit %s does not listen on relay %s: is the exit running, on this relay, and is its key right?", l.exit.NPub(), post.url)
				}
			case <-repeat.C:
				waiting = false
			case <-ctx.Done():
				repeat.Stop()
				return nil, fmt.Errorf("exit %s did not answer through relay %s: is the exit running, and is its key right?", l.exit.NPub(), post.url)
			}
		}
	}
}

// oneLine keeps a peer's or a relay's words from breaking a line or a terminal.
func oneLine(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u202e' {
			return ' '
		}
		return r
	}, s)
}
