package nostrlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/direct"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// ListenerOptions are the choices of a Listener; the zero value works.
type ListenerOptions struct {
	MaxSessions int // at a time; default 1024
	Log         *slog.Logger
	Agent       string // software and version, told to the entry
	// SessionOnly turns away entries that speak NWS as written, which have no
	// session.
	SessionOnly bool
	// Admit decides about a session before it is opened, by who asks and what
	// invitation he shows; its error is told to him. Of entries without a session
	// it decides about each flow, and they are told nothing. nil admits everybody.
	// It is called from many goroutines and should return at once.
	Admit func(who Client, token string) error
	// MaxSessionsPerClient bounds those of one client; 0 for no bound.
	MaxSessionsPerClient int
	// Busy is how many greetings of strangers a second are no trouble: beyond it
	// they have to work for an answer. 0 stands for 200.
	Busy int
	// MinWork is the work that every greeting takes, busy or not: leading zero
	// bits of its id (NIP-13).
	MinWork int
	Direct  Direct // paths to entries that need no relay
	// DialBack connects to entries without a session that ask for it (CONNECTR),
	// which then pass their streams in the clear. It applies the operator's
	// policy to the address. nil refuses them.
	DialBack func(ctx context.Context, network, address string) (net.Conn, error)
	// Ready is called, once for each relay, when entries can reach the
	// listener through it; or nil.
	Ready func(relay string)
}

// Request is a flow that an entry wants: a *session.Request, or of an entry
// that speaks NWS as written a *compat.Request. See there.
type Request interface {
	Network() string
	Address() string
	Accept() (net.Conn, error)
	Reject(err error)
}

// Handle answers one flow that an entry opened: it must accept or reject it,
// and returns when the flow has ended. ctx ends with the flow's session.
type Handle func(ctx context.Context, req Request)

// Listener is an exit's end: it answers the HELLOs that arrive for its key
// through its relays, and hands the flows of the sessions to a handler, as it
// does with those of entries that know no session.
type Listener struct {
	hub    *Hub
	key    envelope.SecretKey
	relays []string
	opts   ListenerOptions

	mu       sync.Mutex // guards what follows
	doorman  *doorman
	guests   map[*guest]struct{}
	arriving map[Client]int // sessions that are admitted, and among guests soon
	flows    map[*nwsFlow]struct{}

	toll       toll
	remembered atomic.Int64 // greetings
	draining   atomic.Bool

	arrivals *arrivals    // events for the key
	nws      *compat.Exit // nil if entries must have a session
	peers    lastHeard    // entries without one

	books    books
	sessions atomic.Int64
	slots    chan struct{} // one for each session that may be open
	greeting chan struct{} // one for each handshake that may be under way
	wg       sync.WaitGroup

	roomMakers chan struct{} // see makeRoom
}

// NewListener prepares an exit with the identity key, reachable through the
// relays (URLs); nothing is sent before Serve.
func (h *Hub) NewListener(key envelope.SecretKey, relays []string, opts ListenerOptions) *Listener {
	if opts.MaxSessions == 0 {
		opts.MaxSessions = 1024
	}
	if opts.Busy == 0 {
		opts.Busy = defaultBusy
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	l := &Listener{
		hub: h, key: key, relays: relayURLs(relays), opts: opts,
		guests:   make(map[*guest]struct{}),
		arriving: make(map[Client]int),
		flows:    make(map[*nwsFlow]struct{}),
		toll:     toll{busy: opts.Busy, least: min(opts.MinWork, mostWork)},
		doorman:  newDoorman(key, 4*opts.MaxSessions),
		arrivals: newArrivals(key, maxPeers),
		slots:    make(chan struct{}, opts.MaxSessions),
		greeting: make(chan struct{}, maxHandshakes),

		roomMakers: make(chan struct{}, maxRoomMakers),
	}
	l.toll.full = l.full
	if !opts.SessionOnly {
		l.nws = l.newNWS()
	}
	return l
}

// full is how much of the room for sessions and remembered greetings is taken.
func (l *Listener) full() float64 {
	return max(float64(len(l.slots))/float64(cap(l.slots)), float64(l.remembered.Load())/float64(l.doorman.max))
}

// maxHandshakes bounds the handshakes under way; further HELLOs are dropped,
// and their senders repeat them.
const maxHandshakes = 64

// Sessions is the number of open sessions.
func (l *Listener) Sessions() int { return int(l.sessions.Load()) }

// Serve listens on every relay until ctx ends and calls handle, in a goroutine
// of its own, for each flow that an entry opens. Serve returns once all sessions
// are closed and all handlers have returned. A relay that cannot be reached is
// tried again. Serve is called once.
func (l *Listener) Serve(ctx context.Context, handle Handle) error {
	if len(l.relays) == 0 {
		return errors.New("no relay to listen on: name one with --relay")
	}
	var relays sync.WaitGroup
	relays.Go(func() {
		l.arrivals.serve(ctx, func(post *post, in compat.Incoming, err error) { l.take(ctx, post, in, err, handle) })
	})
	for _, url := range l.relays {
		relays.Go(func() { l.serveRelay(ctx, url) })
	}
	if l.nws != nil {
		relays.Go(func() { l.serveNWS(ctx, handle) })
	}
	relays.Wait()
	if l.nws != nil {
		l.nws.Close()
	}
	l.wg.Wait()
	return ctx.Err()
}

func (l *Listener) serveRelay(ctx context.Context, url string) {
	post, err := l.hub.acquire(url)
	if err != nil {
		l.opts.Log.Error("cannot listen on this relay", "relay", url, "err", err)
		return
	}
	defer l.hub.release(post)
	box := post.add(l.key.Public(), func(ev *envelope.Event, raw []byte) { l.arrived(post, ev, raw) })
	defer box.close()
	for retry := minRetry; ; retry = min(2*retry, maxRetry) {
		err := post.confirm(ctx, box)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		l.opts.Log.Warn("cannot listen on this relay", "relay", url, "err", err, "retry", retry)
		sleep(ctx, retry)
	}
	l.opts.Log.Info("listening", "relay", url)
	if l.opts.Ready != nil {
		l.opts.Ready(url)
	}
	<-ctx.Done()
}

// arrived takes an event for the identity key out of a relay's read loop.
func (l *Listener) arrived(post *post, ev *envelope.Event, raw []byte) {
	l.books.greetings.Add(1)
	if !l.knows(ev.PubKey) {
		if l.draining.Load() {
			return
		}
		if !l.toll.pass(ev, time.Now()) {
			l.books.unpaid.Add(1)
			return
		}
	}
	lost, err := l.arrivals.put(post, ev, raw, l.knows)
	if err == nil {
		return
	}
	l.books.enter(err)
	if l.nws != nil && errors.Is(err, errLost) {
		l.nws.Lost(lost)
	}
}

// take hands a message to whom it is for. It does not wait for anything.
func (l *Listener) take(ctx context.Context, post *post, in compat.Incoming, err error, handle Handle) {
	switch {
	case err != nil:
	case in.Message.Hello != nil:
		l.greeted(ctx, post, in, handle)
		return
	case l.nws == nil:
		err = fmt.Errorf("message of type %s is not a HELLO", in.Message.Type)
	default:
		l.peers.heard(in.From, post)
		l.nws.Receive(in)
		return
	}
	l.books.enter(err)
	l.opts.Log.Debug("event not taken", "relay", post.url, "err", err)
}

// greeted answers a HELLO, beside others.
func (l *Listener) greeted(ctx context.Context, post *post, hello compat.Incoming, handle Handle) {
	select {
	case l.greeting <- struct{}{}:
	default:
		l.books.busy.Add(1)
		return
	}
	l.wg.Go(func() {
		defer func() { <-l.greeting }()
		if err := l.welcome(ctx, post, hello, handle); err != nil {
			l.opts.Log.Debug("greeting not answered", "relay", post.url, "err", err)
		}
	})
}

// welcome answers one HELLO and, if it is a new one, opens its session.
func (l *Listener) welcome(ctx context.Context, post *post, hello compat.Incoming, handle Handle) error {
	limited, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	a, v, err := l.admit(hello)
	if err == nil {
		// A greeting may come by several relays: each answers once the
		// session can be reached through it.
		err = l.receive(ctx, limited, post, a, v, handle)
	}
	l.books.enter(err)
	var (
		no    *refusal
		event []byte
		id    [32]byte
	)
	switch {
	case errors.As(err, &no):
		event, id, err = l.doorman.refused(no, time.Now())
	case err == nil:
		event, id, err = l.doorman.welcome(a, time.Now(), l.opts.Agent, v.relays, l.opts.Direct.offer())
	}
	if err != nil {
		return err
	}
	return post.publish(limited, event, id, nil)
}

// visit is the session of an admission, for all greetings that belong to it.
type visit struct {
	once   sync.Once
	err    error // of opening it
	bundle *bundle
	relays []string // where the session can be reached, or will be soon
}

// admit reads a HELLO and decides about it.
func (l *Listener) admit(hello compat.Incoming) (*admission, *visit, error) {
	read, err := l.doorman.read(hello.From, hello.Message.Hello)
	if err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doorman.expire(time.Now())
	l.remembered.Store(int64(len(l.doorman.seen)))
	if work := l.toll.asked(); envelope.Work(hello.ID) < work {
		return nil, nil, &refusal{to: read, why: refusedBusy, code: wire.CodeBusy, text: "too many greet me: work for it (NIP-13), or try again later", work: work}
	}
	a, fresh, err := l.doorman.admit(read, time.Now())
	l.remembered.Store(int64(len(l.doorman.seen)))
	if err != nil {
		return nil, nil, err
	}
	if fresh {
		a.visit = new(visit)
	}
	return a, a.visit, nil
}

// receive opens the session of an admission, if it is not open, and has it
// listen on the relay. limited bounds the waiting, ctx the session.
func (l *Listener) receive(ctx, limited context.Context, post *post, a *admission, v *visit, handle Handle) error {
	v.once.Do(func() { v.err = l.start(ctx, a, v, post.url, handle) })
	if v.err != nil {
		return v.err
	}
	return v.bundle.join(limited, post.url)
}

// start opens the session of an admission on the relays that the entry has in
// common with us, of which the one that brought the greeting is one.
func (l *Listener) start(ctx context.Context, a *admission, v *visit, greetedVia string, handle Handle) error {
	if err := l.admitGuest(ctx, a); err != nil {
		return err
	}
	defer l.hasArrived(a.client)
	select {
	case l.slots <- struct{}{}:
	default:
		return &refusal{to: a, why: refusedBusy, code: wire.CodeBusy, text: "all my sessions are in use: try again later, or another exit"}
	}
	v.relays = []string{greetedVia}
	for _, url := range relayURLs(a.hello.Relays) {
		if slices.Contains(l.relays, url) && url != greetedVia {
			v.relays = append(v.relays, url)
		}
	}
	cfg := sessionConfig(session.Listener, a.secrets, session.Limits{
		Window: a.hello.Window, StreamWindow: a.hello.StreamWindow, MaxPacket: a.hello.MaxPacket,
	}, l.opts.Log)
	cfg.Spread, cfg.Duplicate = spreadOf(a.hello.Spread), a.hello.Duplicate
	s := session.New(cfg)
	v.bundle = newBundle(l.hub, a.local.Public(), l.opts.Log)
	v.bundle.take(s, a.secrets, a.hello.MaxPacket)
	v.bundle.goDirect(direct.Exit, l.opts.Direct, a.hello.Direct)
	v.bundle.carry(v.relays)
	ctx, end := context.WithCancelCause(ctx)
	g := &guest{client: a.client, since: time.Now(), agent: oneLine(a.hello.Agent), s: s, end: end}
	l.mu.Lock()
	l.guests[g] = struct{}{}
	l.mu.Unlock()
	if l.draining.Load() { // since it greeted
		s.GoAway()
	}
	l.sessions.Add(1)
	l.wg.Go(func() {
		l.serveSession(ctx, g, v.bundle, handle)
		end(nil)
		v.bundle.close()
		l.mu.Lock()
		delete(l.guests, g)
		l.mu.Unlock()
		l.sessions.Add(-1)
		<-l.slots
	})
	return nil
}

// takeUpTimeout is how long an entry may take to use its session. One that did
// and falls silent later is the session's to notice.
const takeUpTimeout = 30 * time.Second

// serveSession hands the session's flows to handle until it is lost or ctx
// ends, and waits for the handlers.
func (l *Listener) serveSession(ctx context.Context, g *guest, b *bundle, handle Handle) {
	s := g.s
	ctx, cancel := context.WithCancel(ctx)
	var flows sync.WaitGroup
	defer flows.Wait()
	defer s.Close()
	defer cancel()
	flows.Go(func() {
		timeout := time.NewTimer(takeUpTimeout)
		defer timeout.Stop()
		select {
		case <-b.heard:
		case <-ctx.Done():
		case <-timeout.C:
			cancel()
		}
	})
	for {
		req, err := s.Accept(ctx)
		if err != nil {
			l.opts.Log.Debug("session ended", "err", err)
			return
		}
		flows.Go(func() { handle(ctx, guestRequest{req, g.client}) })
	}
}
