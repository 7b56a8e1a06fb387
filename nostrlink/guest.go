package nostrlink

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/session"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// guest is a session that a Listener has open.
type guest struct {
	client Client
	since  time.Time
	agent  string
	s      *session.Session
	end    context.CancelCauseFunc
	gone   bool // it had to make room; guarded by Listener.mu
}

// Guest describes an open session of a Listener.
type Guest struct {
	Client Client
	Since  time.Time
	Agent  string // the entry's software, as it says
	Stats  session.Stats
}

// Guests lists the open sessions.
func (l *Listener) Guests() []Guest {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Guest
	for g := range l.guests {
		list = append(list, Guest{g.client, g.since, g.agent, g.s.Stats()})
	}
	return list
}

// TurnOut ends the sessions of those for whom turnOut returns an error, and the
// flows of entries without a session.
func (l *Listener) TurnOut(turnOut func(Client) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for g := range l.guests {
		if err := turnOut(g.client); err != nil {
			g.end(err)
		}
	}
	for f := range l.flows {
		if err := turnOut(f.client); err != nil {
			f.end(err)
		}
	}
}

// Drain has the Listener take no new sessions, nor new streams of entries
// without one: greetings are left to another process with the same key, and
// entries are asked to go there with their next flows. Sessions that are open go
// on.
func (l *Listener) Drain() {
	l.draining.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	for g := range l.guests {
		g.s.GoAway()
	}
}

// admitGuest decides whether a session may be opened. If so, its client has one
// more until hasArrived is called.
func (l *Listener) admitGuest(ctx context.Context, a *admission) error {
	if l.opts.Admit != nil {
		if err := l.opts.Admit(a.client, a.hello.Token); err != nil {
			e := wire.AsError(err)
			return &refusal{to: a, why: refusedGuest, code: e.Code, text: e.Text}
		}
	}
	n, ok := l.arrive(a.client)
	if !ok && l.makeRoom(ctx, a.client) {
		n, ok = l.arrive(a.client)
	}
	if !ok {
		return &refusal{to: a, why: refusedGuest, code: wire.CodeBusy, text: fmt.Sprintf("you have %d sessions, which is all that this exit allows: end one", n)}
	}
	return nil
}

// arrive notes one more session of a client that has n already, if it may.
func (l *Listener) arrive(c Client) (n int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if most := l.opts.MaxSessionsPerClient; most > 0 {
		n = l.arriving[c] + len(l.guestsOf(c))
		if n >= most {
			return n, false
		}
	}
	l.arriving[c]++
	return n, true
}

// guestsOf lists a client's open sessions; l.mu is held.
func (l *Listener) guestsOf(c Client) (list []*guest) {
	for g := range l.guests {
		if g.client == c && !g.gone {
			list = append(list, g)
		}
	}
	return list
}

const (
	// lifeSign is how long a client's sessions may take to answer when it wants
	// one more than it may have.
	lifeSign = 4 * time.Second
	// maxRoomMakers bounds the greetings that wait for that.
	maxRoomMakers = 8
)

// makeRoom ends those of a client's sessions that give no sign of life: whoever
// was killed, or lost its network for longer, comes back before they have timed
// out. It reports whether there were any.
func (l *Listener) makeRoom(ctx context.Context, c Client) (made bool) {
	select {
	case l.roomMakers <- struct{}{}:
		defer func() { <-l.roomMakers }()
	default:
		return false
	}
	l.mu.Lock()
	asked := l.guestsOf(c)
	l.mu.Unlock()
	begun := time.Now()
	for _, g := range asked {
		g.s.Ping()
	}
	poll := time.NewTicker(lifeSign / 40)
	defer poll.Stop()
	isSilent := func(g *guest) bool { return g.s.Err() == nil && g.s.Stats().SinceReceived >= time.Since(begun) }
	for slices.ContainsFunc(asked, isSilent) && time.Since(begun) < lifeSign {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return false
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range asked {
		if isSilent(g) || g.s.Err() != nil {
			g.gone, made = true, true
			g.end(&wire.Error{Code: wire.CodeTimedOut, Text: "you have opened another session, and this one was silent"})
		}
	}
	return made
}

// hasArrived says that an admitted session is among the guests, or came to
// nothing.
func (l *Listener) hasArrived(c Client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.arriving[c]--; l.arriving[c] == 0 {
		delete(l.arriving, c)
	}
}

// guestRequest is a flow of a session whose client is known.
type guestRequest struct {
	*session.Request
	client Client
}

// Client is who asks, and whether that is a proven identity.
func (r guestRequest) Client() (key [32]byte, proven bool) { return r.client.Key, r.client.Proven }
