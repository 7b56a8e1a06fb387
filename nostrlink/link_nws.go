package nostrlink

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Mode is what a Link speaks with its exit.
type Mode int

// The modes of a Link.
const (
	// Auto is the session, and NWS as written with an exit that does not answer
	// the session's greeting. Once an exit has answered, it is the session for
	// as long as the Link lives: nobody can talk it down by keeping an answer
	// back later.
	Auto        Mode = iota
	SessionOnly      // waits for the session, however long
	NWSOnly          // NWS as written, and no greeting
)

// Memory remembers, across starts, which exits were found to know no session, so
// that the link need not find out each time. It may forget. Its methods may be
// called concurrently.
type Memory interface {
	Plain(exit envelope.PublicKey) bool
	SetPlain(exit envelope.PublicKey, plain bool)
}

// noMemory forgets at once.
type noMemory struct{}

func (noMemory) Plain(envelope.PublicKey) bool     { return false }
func (noMemory) SetPlain(envelope.PublicKey, bool) {}

const (
	// fallBackAfter is how long an exit may take to answer the greeting, which
	// is sent three times meanwhile, before it is taken for one that knows no
	// session.
	fallBackAfter = 6 * time.Second
	// helloPause is between the greetings of an exit that has not answered.
	helloPause = 2 * time.Minute
	// drainTime is how long streams may go on without the session once there
	// is one.
	drainTime = 10 * time.Minute
)

// DialContext implements dialer.
func (o *opened) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return o.session.DialContext(ctx, network, address)
}

// DialEarly implements dialer.
func (o *opened) DialEarly(_ context.Context, network, address string, first []byte) (net.Conn, error) {
	return o.session.DialEarly(network, address, first)
}

// dialer is how flows are opened: on a session, or without one.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error)
}

// tookGreeting notes that a relay has taken the greeting, and did not say that
// nobody listens.
func (l *Link) tookGreeting() { l.takenOnce.Do(func() { close(l.taken) }) }

// answeredGreeting notes that the exit knows the session.
func (l *Link) answeredGreeting() { l.knownOnce.Do(func() { close(l.known) }) }

// fallBack goes without a session when the exit lets the greeting unanswered,
// until it does answer, or ctx ends. It does not wait for the answer if there was
// none another time; that is forgotten when one comes.
func (l *Link) fallBack(ctx context.Context) {
	defer l.forgetPlain()
	select {
	case <-ctx.Done():
		return
	case <-l.known:
		return
	case <-l.taken:
	}
	if !l.opts.Memory.Plain(l.exit) {
		sleepUntil(ctx, l.known, fallBackAfter)
	}
	select {
	case <-l.known:
	default:
		l.serveNWS(ctx)
	}
}

// forgetPlain takes out of the memory an exit that turned out to know the
// session.
func (l *Link) forgetPlain() {
	select {
	case <-l.known:
		if l.opts.Memory.Plain(l.exit) {
			l.opts.Memory.SetPlain(l.exit, false)
		}
	default:
	}
}

// serveNWS keeps up the way without a session until ctx ends or the exit
// turns out to know the session.
func (l *Link) serveNWS(ctx context.Context) {
	for retry := minRetry; ctx.Err() == nil; retry = min(2*retry, maxRetry) {
		p, err := l.openPlain(ctx)
		if err == nil {
			l.goPlain(ctx, p)
			p.close()
			return
		}
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errSilent): // the greeting's failure says it all
			l.opts.Log.Debug("the exit does not speak NWS as written either", "retry", retry)
		default:
			l.opts.Log.Warn("the exit cannot be reached", "err", err, "retry", retry)
			l.fails(err)
		}
		sleepUntil(ctx, l.known, retry)
		select {
		case <-l.known:
			return
		default:
		}
	}
}

// openPlain makes the way without a session. Unless the user has asked for
// nothing else, the exit must be there: one that is off does not answer a
// greeting either.
func (l *Link) openPlain(ctx context.Context) (*plain, error) {
	if l.opts.Mode == Auto && l.opts.Resolver != "" {
		p, err := l.readyPlain(ctx, nil)
		if err != nil {
			return nil, err
		}
		there := p.answers(ctx)
		if there {
			l.opts.Memory.SetPlain(l.exit, true)
		}
		if there && l.opts.Reverse == nil {
			return p, nil
		}
		p.close()
		if !there {
			return nil, errSilent
		}
	}
	return l.readyPlain(ctx, l.opts.Reverse)
}

func (l *Link) readyPlain(ctx context.Context, reverse *compat.ReverseListener) (*plain, error) {
	p, err := l.newPlain(reverse)
	if err != nil {
		return nil, err
	}
	if err := p.wait(ctx, len(l.relays)); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

var errSilent = errors.New("the exit says nothing")

// goPlain has flows dialed by p, and leaves it the streams that it still has
// when the session comes.
func (l *Link) goPlain(ctx context.Context, p *plain) {
	l.setPlain(p)
	relay, _ := p.status()
	l.opts.Log.Warn("the exit is spoken to without a session, as NWS is written: nothing is acknowledged or repeated, and UDP and ping do not work", "relay", relay)
	select {
	case <-ctx.Done():
	case <-l.known:
	}
	l.leftPlain.Store(true)
	defer l.leftPlain.Store(false)
	l.setPlain(nil)
	drained := time.Now().Add(drainTime)
	for p.entry.Stats().Streams > 0 && time.Now().Before(drained) && ctx.Err() == nil {
		sleep(ctx, time.Second)
	}
}

// fails notes why there is no way without a session, unless there is one with it.
func (l *Link) fails(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up != nil {
		return
	}
	l.failure = err
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) setPlain(p *plain) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plain, l.since = p, time.Now()
	if p != nil {
		l.failure = nil
	}
	close(l.changed)
	l.changed = make(chan struct{})
}
