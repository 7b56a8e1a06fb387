package nostrlink

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// ListenerOptions are the choices of a Listener; the zero value works.
type ListenerOptions struct {
	MaxSessions int // at a time; default 1024
	Log         *slog.Logger
	Agent       string // software and version, told to the entry
	// Ready is called, once for each relay, when entries can reach the
	// listener through it; or nil.
	Ready func(relay string)
}

// Handle answers one flow that an entry opened: it must accept or reject it,
// and returns when the flow has ended. ctx ends with the flow's session.
type Handle func(ctx context.Context, req *session.Request)

// Listener is an exit's end: it answers the HELLOs that arrive for its key
// through its relays, and hands the flows of the sessions to a handler.
type Listener struct {
	hub    *Hub
	key    envelope.SecretKey
	relays []string
	opts   ListenerOptions

	mu      sync.Mutex // guards doorman
	doorman *doorman

	sessions atomic.Int64
	slots    chan struct{} // one for each session that may be open
	greeting chan struct{} // one for each handshake that may be under way
	wg       sync.WaitGroup
}

// NewListener prepares an exit with the identity key, reachable through the
// relays (URLs); nothing is sent before Serve.
func (h *Hub) NewListener(key envelope.SecretKey, relays []string, opts ListenerOptions) *Listener {
	if opts.MaxSessions == 0 {
		opts.MaxSessions = 1024
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Listener{
		hub: h, key: key, relays: slices.Clone(relays), opts: opts,
		doorman:  newDoorman(key, 4*opts.MaxSessions),
		slots:    make(chan struct{}, opts.MaxSessions),
		greeting: make(chan struct{}, maxHandshakes),
	}
}

// maxHandshakes bounds the handshakes under way; further HELLOs are dropped,
// and their senders repeat them.
const maxHandshakes = 64

// Sessions is the number of open sessions.
func (l *Listener) Sessions() int { return int(l.sessions.Load()) }

// Serve listens on every relay until ctx ends and calls handle, in a goroutine
// of its own, for each flow that an entry opens. Serve returns once all sessions are closed and all
// handlers have returned. A relay that cannot be reached is tried again.
func (l *Listener) Serve(ctx context.Context, handle Handle) error {
	if len(l.relays) == 0 {
		return errors.New("no relay to listen on: name one with --relay")
	}
	var relays sync.WaitGroup
	for _, url := range l.relays {
		relays.Go(func() { l.serveRelay(ctx, url, handle) })
	}
	relays.Wait()
	l.wg.Wait()
	return ctx.Err()
}

func (l *Listener) serveRelay(ctx context.Context, url string, handle Handle) {
	post, err := l.hub.acquire(url)
	if err != nil {
		l.opts.Log.Error("cannot listen on this relay", "relay", url, "err", err)
		return
	}
	defer l.hub.release(post)
	box := post.add(l.key.Public(), func(_ *envelope.Event, raw []byte) { l.greeted(ctx, post, raw, handle) })
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

// greeted takes an event that arrived for the identity key out of the relay's
// read loop and answers it.
func (l *Listener) greeted(ctx context.Context, post *post, raw []byte, handle Handle) {
	select {
	case l.greeting <- struct{}{}:
	default:
		return
	}
	own := bytes.Clone(raw)
	l.wg.Go(func() {
		defer func() { <-l.greeting }()
		if err := l.welcome(ctx, post, own, handle); err != nil {
			l.opts.Log.Debug("greeting not answered", "relay", post.url, "err", err)
		}
	})
}

// welcome answers one HELLO and, if it is a new one, opens its session.
func (l *Listener) welcome(ctx context.Context, post *post, raw []byte, handle Handle) error {
	ev, err := envelope.ParseEvent(raw)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	read, err := l.doorman.read(&ev)
	if err != nil {
		return err
	}
	l.mu.Lock()
	a, fresh, err := l.doorman.admit(read, time.Now())
	l.mu.Unlock()
	if err == nil && fresh {
		err = l.start(ctx, limited, post, a, handle)
	}
	var (
		no    *refusal
		event []byte
		id    [32]byte
	)
	switch {
	case errors.As(err, &no):
		event, id, err = l.doorman.refused(no, time.Now())
	case err == nil:
		event, id, err = l.doorman.welcome(a, time.Now(), l.opts.Agent)
	}
	if err != nil {
		return err
	}
	return post.publish(limited, event, id, nil)
}

// start opens the session of an admission. limited bounds the waiting, ctx
// the session.
func (l *Listener) start(ctx, limited context.Context, post *post, a *admission, handle Handle) error {
	select {
	case l.slots <- struct{}{}:
	default:
		return &refusal{a, wire.CodeBusy, "all my sessions are in use: try again later, or another exit"}
	}
	if _, err := l.hub.acquire(post.url); err != nil {
		<-l.slots
		return err
	}
	inbox := post.add(a.local.Public(), nil)
	if err := post.confirm(limited, inbox); err != nil {
		inbox.close()
		l.hub.release(post)
		<-l.slots
		return err
	}
	s := session.New(sessionConfig(session.Listener, a.secrets, session.Limits{
		Window: a.hello.Window, StreamWindow: a.hello.StreamWindow, MaxPacket: a.hello.MaxPacket,
	}, l.opts.Log))
	c := attach(s, post, inbox, a.secrets, a.hello.MaxPacket)
	l.sessions.Add(1)
	l.wg.Go(func() {
		l.serveSession(ctx, s, c, handle)
		s.Close()
		c.Close()
		inbox.close()
		l.hub.release(post)
		l.sessions.Add(-1)
		<-l.slots
	})
	return nil
}

// An entry that is never heard again is forgotten: soon if it did not even
// take up its session, later if it was there, as it sends a sign of life at
// least every 20 seconds.
const (
	takeUpTimeout = 30 * time.Second
	silentTimeout = 90 * time.Second
)

// serveSession hands the session's flows to handle until it is lost or ctx
// ends, and waits for the handlers.
func (l *Listener) serveSession(ctx context.Context, s *session.Session, c *relayCarrier, handle Handle) {
	ctx, cancel := context.WithCancel(ctx)
	var flows sync.WaitGroup
	defer flows.Wait()
	defer s.Close()
	defer cancel()
	flows.Go(func() {
		defer cancel()
		c.watch(ctx, takeUpTimeout, silentTimeout)
	})
	for {
		req, err := s.Accept(ctx)
		if err != nil {
			l.opts.Log.Debug("session ended", "err", err)
			return
		}
		flows.Go(func() { handle(ctx, req) })
	}
}
