package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Role says which end of the session this is. Only the dialer opens streams.
type Role int

// The two ends of a session.
const (
	Dialer   Role = iota // opens streams: the entry
	Listener             // accepts them: the exit
)

// ErrPeerSilent ends a session whose peer has acknowledged nothing for
// Config.DeadAfter while something was outstanding, or has sent nothing at all
// for much longer.
var ErrPeerSilent = errors.New("session: peer is silent")

// ErrEnded is for a stream that was not opened, since the session had ended before.
var ErrEnded = errors.New("session: it has ended")

// errAnswered is for a second answer to a Request.
var errAnswered = errors.New("session: request was answered before")

// goodbyeTime is how long carriers may take to send the session's last packet.
const goodbyeTime = time.Second

// Session is one end of a session. All methods are safe for concurrent use.
type Session struct {
	start time.Time
	done  chan struct{}
	away  chan struct{}  // closed when the other end asks for another session
	left  chan struct{}  // closed when, after the end, no sender is left
	wg    sync.WaitGroup // the timekeeper and the senders

	mu       sync.Mutex // guards everything below and all of the core
	core     *core
	timer    *time.Timer
	armed    time.Duration // when timer fires, or never
	incoming sync.Cond     // for Accept
	idle     sync.Cond     // for AwaitIdle
	paths    []*Path
	leaving  bool // away is closed
	ended    bool
}

// New makes a session without carriers; streams may be opened at once and wait
// until one is attached. Close must be called to release it.
func New(cfg Config) *Session {
	s := &Session{
		start: time.Now(),
		done:  make(chan struct{}),
		away:  make(chan struct{}),
		left:  make(chan struct{}),
		core:  newCore(cfg, 0),
		timer: time.NewTimer(time.Minute),
		armed: never,
	}
	s.incoming.L, s.idle.L = &s.mu, &s.mu
	s.wg.Go(s.keepTime)
	return s
}

func (s *Session) now() time.Duration { return time.Since(s.start) }

// after draws the consequences of a call into the core: it wakes the senders
// that have something to send, sets the timer, and ends the session when the
// core has. Every method that changes the core calls it before it unlocks.
func (s *Session) after(now time.Duration) {
	if len(s.core.requests) > 0 {
		s.incoming.Broadcast()
	}
	if s.core.open == 0 {
		s.idle.Broadcast()
	}
	if s.core.toldToGo && !s.leaving && s.core.cfg.Role == Dialer {
		s.leaving = true
		close(s.away)
	}
	for _, p := range s.paths {
		if p.idle && s.core.ready(now, p.state) {
			p.wake.Signal()
		}
	}
	if s.core.err != nil {
		s.end()
		return
	}
	if at := s.core.deadline(now); at < s.armed {
		s.armed = at
		s.timer.Reset(at - now)
	}
}

// end does once what follows from the core's end.
func (s *Session) end() {
	if s.ended {
		return
	}
	s.ended = true
	s.core.cfg.Log.Debug("session ended", "err", s.core.err)
	s.incoming.Broadcast()
	s.idle.Broadcast()
	for _, p := range s.paths {
		p.wake.Signal()
	}
	if len(s.paths) == 0 {
		close(s.left)
	}
	close(s.done)
}

// keepTime calls the core when its time has come. After the session's end it
// sees to it that every sender ends.
func (s *Session) keepTime() {
	for {
		select {
		case <-s.timer.C:
			s.tick()
			continue
		case <-s.done:
		}
		break
	}
	s.timer.Reset(goodbyeTime)
	select {
	case <-s.left:
	case <-s.timer.C:
	}
	s.timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.paths {
		p.carrier.Close()
	}
}

func (s *Session) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.armed = never
	if now >= s.core.deadline(now) {
		s.core.tick(now)
	}
	s.after(now)
}

// Accept waits for the other end to open a stream or flow. It fails when ctx
// ends or the session does.
func (s *Session) Accept(ctx context.Context) (*Request, error) {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.incoming.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.core.err != nil {
			return nil, s.core.err
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("session: accept: %w", ctx.Err())
		}
		if st := s.core.nextRequest(); st != nil {
			return &Request{s: s, st: st}, nil
		}
		s.incoming.Wait()
	}
}

// Done is closed when the session has ended: by Close, by the other end, or
// because that fell silent or broke the protocol. Err says why.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is nil before Done is closed. Afterwards it is net.ErrClosed after Close,
// ErrPeerSilent, or a *wire.Error, possibly wrapped.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.err
}

// Ping asks the other end for a sign of life, for a caller who has reason to
// doubt that there is any. It does not wait; see Stats.SinceReceived.
func (s *Session) Ping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.core.ping = true
	s.after(s.now())
}

// GoAway asks the other end to open new streams in another session, and does not
// wait. The streams that are open go on, and new ones are still taken. It is for
// the listener, and does nothing a second time.
func (s *Session) GoAway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.core.goAway()
	s.after(s.now())
}

// GoingAway is closed when the other end has called GoAway.
func (s *Session) GoingAway() <-chan struct{} { return s.away }

// AwaitIdle waits until no stream is open, the session has ended, or ctx has.
func (s *Session) AwaitIdle(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.idle.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.core.open > 0 && s.core.err == nil && ctx.Err() == nil {
		s.idle.Wait()
	}
}

// Stats counts what the session has done.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.snapshot(s.now())
}

// Close tells the other end, as far as a carrier takes the packet within a
// second, resets every stream, closes the carriers and waits for the session's
// goroutines. It may be called more than once.
func (s *Session) Close() error {
	s.mu.Lock()
	s.core.fail(net.ErrClosed, &wire.Close{Code: wire.CodeGoingAway})
	s.after(s.now())
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}
