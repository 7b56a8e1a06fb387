package nostrlink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/direct"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// handshakeTimeout bounds the whole way to a session: relay and exit.
const handshakeTimeout = 12 * time.Second

// helloRepeats are the pauses before a HELLO is sent again, since it or its
// answer may have been lost. The last one repeats.
var helloRepeats = [...]time.Duration{time.Second, 2 * time.Second, 4 * time.Second}

// maxMutes is how often a relay may say that nobody listens for the exit
// before it is believed: an exit that is reconnecting comes back within this.
const maxMutes = 3

var errNoRelay = errors.New("no relay is known for this exit: name one with --relay")

// answered is the exit's word on a greeting.
type answered struct {
	secrets
	welcome *wire.Welcome
	relay   string // that brought it
	err     error
}

// outcome is what becomes of a greeting, which goes out over several relays, and
// maybe to several exits that share the key. It is safe for concurrent use.
type outcome struct {
	end context.CancelFunc // ends the greeting

	mu     sync.Mutex
	worth  worth
	answer *answered   // that counts so far; or nil
	grace  *time.Timer // runs from the first refusal
}

// worth says which of two answers counts: the higher one, or the earlier.
type worth int

const (
	unanswered worth = iota
	demanding        // it asks for work, which is done
	refusing
	welcoming
)

// refusalGrace is how long a refusal waits for a WELCOME. No refusal is for all
// exits that share a key: one of them may be full, or of another version, have
// other rules or another clock. How many there are is not known to the entry.
const refusalGrace = time.Second

// hear takes an answer in, and ends the greeting when there is none better to
// come.
func (o *outcome) hear(a *answered, w worth) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w <= o.worth {
		return
	}
	o.worth, o.answer = w, a
	switch w {
	case welcoming:
		o.end()
	case refusing:
		o.grace = time.AfterFunc(refusalGrace, o.end)
	}
}

// sum is the answer that counts, or nil if there was none.
func (o *outcome) sum() *answered {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.grace != nil {
		o.grace.Stop()
	}
	return o.answer
}

// open shakes hands over all the link's relays at once, with one greeting. The
// first WELCOME wins, also when several exits share the key; when none comes,
// the error is the exit's refusal or names what went wrong at each relay.
func (l *Link) open(ctx context.Context) (*opened, error) {
	if len(l.relays) == 0 {
		return nil, errNoRelay
	}
	g, err := newGreeting(l.exit, l.wishes())
	if err != nil {
		return nil, err
	}
	g.work.raise(int(l.asked.Load()))
	b := newBundle(l.hub, g.session.Public(), l.opts.Log)
	a, err := l.greetAll(ctx, b, g)
	if err != nil {
		b.close()
		return nil, err
	}
	l.asked.Store(0)
	return l.take(b, a), nil
}

func (l *Link) wishes() wishes {
	w := wishes{
		agent: l.opts.Agent, spread: l.opts.Spread, duplicate: l.opts.Duplicate,
		direct: l.opts.Direct.offer(),
	}
	if l.opts.Credentials != nil {
		w.Credentials = l.opts.Credentials(l.exit)
	}
	for _, url := range l.relays {
		if len(url) <= wire.MaxRelayURL && len(w.relays) < wire.MaxRelays {
			w.relays = append(w.relays, url)
		}
	}
	return w
}

// take makes the session that the exit has granted.
func (l *Link) take(b *bundle, a *answered) *opened {
	cfg := sessionConfig(session.Dialer, a.secrets, session.Limits{
		Window: a.welcome.Window, StreamWindow: a.welcome.StreamWindow,
		MaxStreams: a.welcome.MaxStreams, MaxPacket: a.welcome.MaxPacket,
	}, l.opts.Log)
	cfg.Spread, cfg.Duplicate = l.opts.Spread, l.opts.Duplicate
	cfg.Refused = l.refusals.count
	s := session.New(cfg)
	relays := []string{a.relay}
	for _, url := range relayURLs(a.welcome.Relays) {
		// The exit chooses among ours.
		if slices.Contains(l.relays, url) && url != a.relay {
			relays = append(relays, url)
		}
	}
	b.take(s, a.secrets, a.welcome.MaxPacket)
	b.goDirect(direct.Entry, l.opts.Direct, a.welcome.Direct)
	b.carry(relays)
	if len(b.directs) > 0 {
		s.Ping() // the exit dials once it has heard us, and so do we
	}
	return &opened{session: s, bundle: b, since: time.Now(), relay: a.relay, agent: oneLine(a.welcome.Agent)}
}

// greetAll sends the greeting over every relay until an exit welcomes it, a refusal
// has waited for that long enough, or all relays have failed. It returns when
// nothing of it is left.
func (l *Link) greetAll(ctx context.Context, b *bundle, g *greeting) (*answered, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	o := &outcome{end: cancel}
	failed := make(chan error, len(l.relays))
	for _, url := range l.relays {
		go func() { failed <- l.greetVia(ctx, url, b, g, o) }()
	}
	var failures []string
	for range l.relays {
		failures = append(failures, (<-failed).Error())
	}
	if a := o.sum(); a != nil {
		return a, a.err
	}
	return nil, errors.New(strings.Join(failures, "; "))
}

// greetVia sends the greeting over one relay until ctx ends or the relay shows
// that it is of no use, and returns why. What the exit answers goes to o.
func (l *Link) greetVia(ctx context.Context, url string, b *bundle, g *greeting, o *outcome) error {
	// The session's key is listened for before the exit can know it, so that
	// its first packet is not missed.
	t, err := b.listen(ctx, url)
	if err != nil {
		return err
	}
	box := t.post.add(g.hello.Public(), func(ev *envelope.Event, _ []byte) {
		s, w, err := g.answer(ev)
		if errors.Is(err, errNotOurs) {
			return
		}
		l.answeredGreeting()
		a := &answered{s, w, t.post.url, err}
		switch {
		case err == nil:
			o.hear(a, welcoming)
		case g.doesWork(err):
			l.asked.Store(int32(g.work.bits()))
			o.hear(a, demanding)
		default:
			o.hear(a, refusing)
		}
	})
	defer box.close()
	if err := t.post.confirm(ctx, box); err != nil {
		return err
	}
	return l.repeat(ctx, t.post, g)
}

// repeat sends the greeting again and again. It returns why that is of no use
// any more.
func (l *Link) repeat(ctx context.Context, post *post, g *greeting) error {
	verdicts := make(chan string, 16)
	mutes, said := 0, ""
	for try := 0; ; try++ {
		more := g.work.more()
		if err := l.greet(ctx, post, g, verdicts); err != nil {
			return err
		}
		repeat := time.After(helloRepeats[min(try, len(helloRepeats)-1)])
		for waiting := true; waiting; {
			select {
			case said = <-verdicts:
				prefix := relay.Prefix(said)
				if isFinal(prefix) {
					return fmt.Errorf("relay %s refused the greeting: %s: use another relay", post.url, oneLine(said))
				}
				if prefix == "mute" {
					mutes++
				}
				if mutes >= maxMutes {
					return fmt.Errorf("exit %s does not listen on relay %s: is the exit running, on this relay, and is its key right?", l.exit.NPub(), post.url)
				}
			case <-repeat:
				waiting = false
			case <-more:
				waiting = false
			case <-ctx.Done():
				if said != "" {
					said = " (the relay said: " + oneLine(said) + ")"
				}
				return fmt.Errorf("exit %s did not answer through relay %s%s: is the exit running, and is its key right?", l.exit.NPub(), post.url, said)
			}
		}
	}
}

// greet sends the greeting once. What the relay has against it goes to
// verdicts.
func (l *Link) greet(ctx context.Context, post *post, g *greeting, verdicts chan<- string) error {
	event, id, err := g.event(ctx, time.Now())
	if err != nil {
		return err
	}
	return post.publish(ctx, event, id, func(accepted bool, reason string) {
		if accepted {
			l.tookGreeting()
			return
		}
		select {
		case verdicts <- reason:
		default:
		}
	})
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
