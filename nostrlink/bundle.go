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
)

// bundle keeps one session on several relays. For each of them a track listens
// for what the peer sends to our session key and, while the relay is connected,
// lends the session a carrier.
type bundle struct {
	hub *Hub
	key envelope.PublicKey // our session key
	log *slog.Logger

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// Set once, by carry.
	session   *session.Session
	secrets   secrets
	maxPacket int

	heard     chan struct{} // closed when the peer has been heard
	abandoned chan struct{} // closed when every relay has turned us away
	muted     chan struct{} // takes one: a relay says that nobody listens for the peer

	mu       sync.Mutex
	tracks   map[string]*track
	directs  []*directTrack // without a relay
	carrying bool
	closed   bool
	isHeard  bool
	isAlone  bool
}

// newBundle returns a bundle for the session whose events come to key.
func newBundle(hub *Hub, key envelope.PublicKey, log *slog.Logger) *bundle {
	b := &bundle{
		hub: hub, key: key, log: log,
		heard: make(chan struct{}), abandoned: make(chan struct{}), muted: make(chan struct{}, 1),
		tracks: make(map[string]*track),
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// track is what a bundle does at one relay.
type track struct {
	bundle *bundle
	post   *post
	inbox  *box
	joined chan struct{} // closed when the session has had a carrier here

	mu       sync.Mutex
	state    RelayState
	err      error
	carrier  *relayCarrier // while the session has it
	isJoined bool
}

// RelayState says what a relay does for a session.
type RelayState int

// The states of a relay.
const (
	RelayConnecting RelayState = iota // or waiting for the next attempt
	RelayJoining                      // connected; the subscription is on its way
	RelayCarrying                     // at the session's disposal
	RelayRetired                      // it has turned us away, and is tried again much later
)

func (s RelayState) String() string {
	return [...]string{"connecting", "joining", "in use", "retired"}[s]
}

// listen has the relay pass on what comes for the session, and returns when the
// relay has confirmed that. It fails when the first attempt to reach the relay
// does.
func (b *bundle) listen(ctx context.Context, url string) (*track, error) {
	t, err := b.track(url)
	if err != nil {
		return nil, err
	}
	if err := t.post.connect(ctx); err != nil {
		return nil, err
	}
	return t, t.post.confirm(ctx, t.inbox)
}

// join puts the session, which the bundle carries, on one more relay, and
// returns when it can be reached there. It fails when the first attempt does.
func (b *bundle) join(ctx context.Context, url string) error {
	t, err := b.listen(ctx, url)
	if err != nil {
		return err
	}
	select {
	case <-t.joined:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-b.ctx.Done():
		return net.ErrClosed
	}
}

// track returns the track at a relay, which it makes if need be. It runs once
// the bundle carries.
func (b *bundle) track(url string) (*track, error) {
	url = relayURL(url)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, net.ErrClosed
	}
	if t := b.tracks[url]; t != nil {
		return t, nil
	}
	post, err := b.hub.acquire(url)
	if err != nil {
		return nil, err
	}
	t := &track{bundle: b, post: post, inbox: post.add(b.key, nil), joined: make(chan struct{})}
	b.tracks[url] = t
	if b.carrying {
		b.wg.Go(t.run)
	}
	return t, nil
}

// take is how the bundle gets its session, which nothing carries yet. It is
// called once.
func (b *bundle) take(s *session.Session, sec secrets, maxPacket int) {
	b.session, b.secrets, b.maxPacket = s, sec, maxPacket
}

// carry puts the session on the relays, and leaves the others. It is called
// once, after take.
func (b *bundle) carry(relays []string) {
	b.mu.Lock()
	for url, t := range b.tracks {
		if slices.Contains(relays, url) {
			b.wg.Go(t.run)
			continue
		}
		t.release()
		delete(b.tracks, url)
	}
	b.carrying = true
	b.mu.Unlock()
	for _, url := range relays {
		if _, err := b.track(url); err != nil {
			b.log.Warn("cannot use this relay", "relay", url, "err", err)
		}
	}
}

// close leaves all relays and waits until that is done. The session should have
// been closed before, as its last packet could not leave any more.
func (b *bundle) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	for url, t := range b.tracks {
		t.release()
		delete(b.tracks, url)
	}
}

func (t *track) release() {
	t.inbox.close()
	t.bundle.hub.release(t.post)
}

// retireFor is how long a relay is left alone that has turned us away.
const retireFor = 10 * time.Minute

// run keeps the session on the relay until the bundle is closed.
func (t *track) run() {
	ctx := t.bundle.ctx
	for retry := minRetry; ctx.Err() == nil; retry = min(2*retry, maxRetry) {
		t.note(RelayJoining, nil)
		err := t.post.confirm(ctx, t.inbox)
		if err == nil {
			retry = minRetry
			err = t.carry(ctx)
		}
		var final *finalError
		var refused *relay.RefusedError
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, &final), errors.As(err, &refused):
			t.bundle.log.Warn("relay is not used any more", "relay", t.post.url, "err", err, "again_in", retireFor)
			t.note(RelayRetired, err)
			sleep(ctx, retireFor)
		case err != nil:
			t.note(RelayConnecting, err)
			sleep(ctx, retry)
		}
	}
}

// finalError is a refusal that will not pass soon.
type finalError struct{ error }

// carry lends the session a carrier until the connection to the relay is lost,
// which is nil, or the relay turns us away.
func (t *track) carry(ctx context.Context) error {
	size := min(t.post.maxPacket(ctx), t.bundle.maxPacket)
	if size == 0 && ctx.Err() == nil {
		return &finalError{fmt.Errorf("relay %s takes only messages that are too small to be of use: use another relay", t.post.url)}
	}
	t.bundle.wg.Go(func() { t.post.vouch(ctx, t.bundle.secrets.local, t.bundle.log.Debug) })
	lost := t.post.lost()
	c := attach(t.bundle, t, size)
	t.hold(c)
	defer func() {
		t.hold(nil)
		c.path.Detach()
	}()
	t.note(RelayCarrying, nil)
	select {
	case <-lost:
	case <-c.path.Done(): // the session has ended
		<-ctx.Done()
	case err := <-c.refused:
		return &finalError{err}
	case <-ctx.Done():
	}
	return nil
}

func (t *track) hold(c *relayCarrier) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.carrier = c
	if !t.isJoined {
		t.isJoined = true
		close(t.joined)
	}
}

func (t *track) note(s RelayState, err error) {
	t.mu.Lock()
	t.state, t.err = s, err
	t.mu.Unlock()
	if s == RelayRetired {
		t.bundle.checkAbandoned(time.Now())
	}
}

// checkAbandoned looks whether there is a relay left, or a path without one.
func (b *bundle) checkAbandoned(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.tracks {
		t.mu.Lock()
		state := t.state
		t.mu.Unlock()
		if state != RelayRetired {
			return
		}
	}
	for _, d := range b.directs {
		if d.alive(now) {
			return
		}
	}
	if !b.isAlone {
		b.isAlone = true
		close(b.abandoned)
	}
}

// problem says why the relays that do not work do not.
func (b *bundle) problem() error {
	var all []string
	for _, s := range b.status() {
		if s.Err != nil {
			all = append(all, s.Err.Error())
		}
	}
	return errors.New(strings.Join(all, "; "))
}

// hear notes that a packet came. The peer has been heard once the session has
// taken one: a relay can send back our own, or the peer's a second time.
func (b *bundle) hear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isHeard && b.session.Stats().PacketsReceived > 0 {
		b.isHeard = true
		close(b.heard)
	}
}

// heardAt is when the session took the last packet from the peer, or began.
func (b *bundle) heardAt() time.Time {
	return time.Now().Add(-b.session.Stats().SinceReceived)
}

// mute notes that a relay knows of nobody who listens for the peer's key.
func (b *bundle) mute() {
	select {
	case b.muted <- struct{}{}:
	default:
	}
}

// RelayStatus is what a relay does for a link's session, or a direct path, whose
// URL is tls://host:port.
type RelayStatus struct {
	URL   string
	State RelayState
	Err   error             // why it is not in use, or nil
	Pace  relay.Pace        // what it takes from us
	Path  session.PathStats // while in use
}

func (b *bundle) status() []RelayStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []RelayStatus
	for url, t := range b.tracks {
		all = append(all, t.status(url))
	}
	for _, d := range b.directs {
		all = append(all, d.status())
	}
	slices.SortFunc(all, func(x, y RelayStatus) int { return strings.Compare(x.URL, y.URL) })
	return all
}

func (t *track) status(url string) RelayStatus {
	client := t.post.client.Status()
	t.mu.Lock()
	defer t.mu.Unlock()
	s := RelayStatus{URL: url, State: t.state, Err: t.err, Pace: client.Pace}
	if s.State == RelayJoining && client.State != relay.Connected {
		s.State, s.Err = RelayConnecting, client.Err
	}
	if t.carrier != nil {
		s.Path = t.carrier.path.Stats()
	}
	return s
}
