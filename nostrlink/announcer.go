package nostrlink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// ErrReplaced is the cause of the end of an announcement's context when another
// process with the same key announces from now on.
var ErrReplaced = errors.New("another process has taken over")

// withdrawTimeout bounds how long the end of an announcement takes.
const withdrawTimeout = 2 * time.Second

// Load is how full the listener is, in per cent.
func (l *Listener) Load() int { return 100 * len(l.slots) / cap(l.slots) }

// Announce tells whoever asks the listener's relays that this exit is there,
// until ctx ends, and then takes it back, which takes at most two seconds, unless
// the cause of ctx's end is ErrReplaced. It announces again in time, with the load
// of the moment, to a relay that comes back, and soon after again has got a value.
// about says what else the exit tells of itself; again may be nil. The error, unless
// it is ctx's, is what cannot be announced; a relay that refuses is only logged.
func (l *Listener) Announce(ctx context.Context, about func() announce.Announcement, again <-chan struct{}) error {
	a := &announcer{l: l, labour: &labour{key: l.key}, changed: make(chan struct{})}
	var posts []*post
	for _, url := range l.relays {
		if p, err := l.hub.acquire(url); err == nil { // else Serve has said so
			defer l.hub.release(p)
			posts = append(posts, p)
		}
	}
	publisher := announce.NewPublisher(l.key)
	var keeping sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer keeping.Wait()
	defer cancel()
	instance := ""
	for ctx.Err() == nil {
		now := about()
		now.Relays = l.relays[:min(len(l.relays), announce.MaxRelays)]
		now.Versions = []int{wire.Version}
		now.Load = l.Load()
		instance = now.Instance
		ev, next, err := publisher.Announce(time.Now(), rand.Float64(), now)
		if err != nil {
			return fmt.Errorf("nostrlink: the announcement: %w", err)
		}
		first := a.renew(ev)
		if first {
			for _, p := range posts {
				keeping.Go(func() { a.keep(ctx, p) })
			}
		}
		sleep(ctx, announcePause)
		pause := time.Until(next)
		if first {
			pause = min(pause, secondPause)
		}
		sleepUntil(ctx, again, pause)
	}
	keeping.Wait()
	if errors.Is(context.Cause(ctx), ErrReplaced) {
		return ctx.Err()
	}
	withdrawal, err := publisher.Withdraw(time.Now(), instance)
	if err != nil {
		return fmt.Errorf("nostrlink: the announcement is not taken back: %w", err)
	}
	a.withdraw(posts, withdrawal)
	return ctx.Err()
}

// announcePause is between announcements at least, whatever changes.
const announcePause = 10 * time.Second

// secondPause is between the first two announcements, beside announcePause: an
// exit that was started while its predecessor ended was taken back by that.
const secondPause = 5 * time.Second

// announcer keeps the newest announcement at the relays.
type announcer struct {
	l      *Listener
	labour *labour

	mu      sync.Mutex
	newest  announce.Event
	changed chan struct{} // closed and replaced when newest changes
}

func (a *announcer) renew(ev announce.Event) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	first = a.newest.JSON == nil
	a.newest = ev
	close(a.changed)
	a.changed = make(chan struct{})
	return first
}

// keep publishes each announcement on one relay, and once more after the
// connection was lost: some relays forget.
func (a *announcer) keep(ctx context.Context, p *post) {
	log, told, retry := a.l.opts.Log.With("relay", p.url), false, minRetry
	for ctx.Err() == nil {
		p.client.Wait(ctx)
		lost := p.lost()
		a.mu.Lock()
		ev, changed := a.newest, a.changed
		a.mu.Unlock()
		err := a.labour.deliver(ctx, p, ev)
		var refused *refusedEvent
		switch {
		case err == nil:
			log.Debug("announced")
			retry = minRetry
		case !errors.As(err, &refused) || refused.again():
			sleep(ctx, retry)
			retry = min(2*retry, maxRetry)
			continue
		case !told:
			told = true
			log.Warn("this relay does not take the announcement of this exit", "reason", oneLine(refused.reason))
		}
		select {
		case <-changed:
		case <-lost:
		case <-ctx.Done():
		}
	}
}

// withdraw publishes events, in their order, where the relay is connected.
// Relays that do not know deletions, or refuse them, still have the replacement.
func (a *announcer) withdraw(posts []*post, events []announce.Event) {
	ctx, cancel := context.WithTimeout(context.Background(), withdrawTimeout)
	defer cancel()
	var publishing sync.WaitGroup
	for _, p := range posts {
		if p.client.Status().State != relay.Connected {
			continue
		}
		publishing.Go(func() {
			for _, ev := range events {
				if err := a.labour.deliver(ctx, p, ev); err != nil {
					a.l.opts.Log.Debug("the announcement is not taken back", "relay", p.url, "err", err)
				}
			}
		})
	}
	publishing.Wait()
}

// refusedEvent is a verdict on an event, of the relay or of the client.
type refusedEvent struct{ reason string }

func (r *refusedEvent) Error() string { return oneLine(r.reason) }

// again reports whether the event may be taken the next time.
func (r *refusedEvent) again() bool {
	switch relay.Prefix(r.reason) {
	case relay.ReasonTimeout, relay.ReasonDisconnected, "rate-limited", "error":
		return true
	}
	return false
}

// deliver publishes an event and waits until the relay has taken it. A verdict
// against it is a *refusedEvent.
func (p *post) deliver(ctx context.Context, ev announce.Event) error {
	verdict := make(chan error, 1)
	err := p.publish(ctx, ev.JSON, ev.ID, func(accepted bool, reason string) {
		if accepted || relay.Prefix(reason) == "duplicate" {
			verdict <- nil
			return
		}
		verdict <- &refusedEvent{reason}
	})
	if err != nil {
		return err
	}
	select {
	case err = <-verdict:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
