package nostrlink

import (
	"context"
	"fmt"
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
func (l *Listener) admitGuest(a *admission) error {
	if l.opts.Admit != nil {
		if err := l.opts.Admit(a.client, a.hello.Token); err != nil {
			e := wire.AsError(err)
			return &refusal{to: a, why: refusedGuest, code: e.Code, text: e.Text}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if most := l.opts.MaxSessionsPerClient; most > 0 {
		n := l.arriving[a.client]
		for g := range l.guests {
			if g.client == a.client {
				n++
			}
		}
		if n >= most {
			return &refusal{to: a, why: refusedGuest, code: wire.CodeBusy, text: fmt.Sprintf("you have %d sessions, which is all that this exit allows: end one", n)}
		}
	}
	l.arriving[a.client]++
	return nil
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
