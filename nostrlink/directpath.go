package nostrlink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/segments"
	"github.com/nws-vpn/nws-vpn/nostrlink/direct"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Direct is how an end makes paths that need no relay; the zero value makes
// none. Sessions use them as they use relays, and before those.
type Direct struct {
	Listener *direct.Listener // is offered to the peer, which may connect to it
	Dialer   *direct.Dialer   // connects to what the peer offers
}

// offer is what to say of the listener in a handshake.
func (d Direct) offer() []string {
	if d.Listener == nil {
		return nil
	}
	offers := d.Listener.Addresses()
	return offers[:min(len(offers), wire.MaxDirect)]
}

const (
	// minRedial and maxRedial bound the pause before a direct path is tried
	// again; it doubles each time, unless the path lasted for wellAfter.
	minRedial = time.Second
	maxRedial = 5 * time.Minute
	wellAfter = time.Minute
	// maxRedials is how often it is tried in a row before it is given up for
	// the session: in a little more than half an hour.
	maxRedials = 14
	// silentDirect is how long a direct path may stay silent before its
	// connection is given up for another one.
	silentDirect = 10 * time.Second
	directCheck  = time.Second
	// directGrace is how long a session without a relay waits for a direct path
	// that was lost.
	directGrace = 20 * time.Second
)

// directTrack is a session's way to the peer by one address of either end.
type directTrack struct {
	bundle  *bundle
	address string
	secret  direct.Secret
	end     direct.End

	mu    sync.Mutex
	state RelayState
	err   error
	path  *session.Path // while the session has it
	lost  time.Time     // when it had it last
	grace *time.Timer   // runs from then on
}

// goDirect makes paths without a relay, as opts allow: to the addresses that
// the peer offers, and from the peer to those that we do. It is called before
// carry: what the peer hears of the session is its sign to connect, and whoever
// comes before being expected is a stranger.
func (b *bundle) goDirect(end direct.End, opts Direct, offers []string) {
	secret := direct.Secret(b.secrets.key.Derive("direct path"))
	add := func(address string, prepare func(d *directTrack) (run func())) {
		d := &directTrack{bundle: b, address: address, secret: secret, end: end}
		b.mu.Lock()
		defer b.mu.Unlock()
		if !b.closed {
			b.directs = append(b.directs, d)
			b.wg.Go(prepare(d))
		}
	}
	if opts.Dialer != nil {
		for _, address := range offers {
			add(address, func(d *directTrack) func() { return func() { d.dial(opts.Dialer) } })
		}
	}
	if own := opts.offer(); len(own) > 0 {
		// One connection is enough for all of them.
		add(own[0], func(d *directTrack) func() { return d.expect(opts.Listener) })
	}
}

var errNotCalled = errors.New("the other end has not connected to it: is the port open, and does that end allow it?")

var errFellSilent = errors.New("the connection has fallen silent")

// expect returns a function that takes the connections of the peer until the
// bundle is closed; those that come before it is called wait for it. The newest
// one counts: the peer makes another one when it has lost the last.
func (d *directTrack) expect(l *direct.Listener) (run func()) {
	conns := make(chan *direct.Conn, 1)
	stop, err := l.Expect(d.secret, d.end, func(c *direct.Conn) {
		select {
		case old := <-conns:
			old.Close()
		default:
		}
		conns <- c // only this function fills it, one call at a time
	})
	if err != nil {
		d.state, d.err = RelayRetired, err
		return func() {}
	}
	d.err = errNotCalled
	return func() {
		d.listen(conns)
		stop()
		select {
		case c := <-conns:
			c.Close()
		default:
		}
	}
}

func (d *directTrack) listen(conns <-chan *direct.Conn) {
	ctx := d.bundle.ctx
	var (
		next *direct.Conn
		err  error
	)
	for {
		if next == nil {
			select {
			case next = <-conns:
			case <-d.bundle.session.Done():
				return
			case <-ctx.Done():
				return
			}
		}
		if next, err = d.carry(ctx, next, conns); next == nil {
			d.note(RelayConnecting, err)
		}
	}
}

// dial keeps a connection to the peer until the bundle is closed, or it is of
// no use to try. It begins when the peer has been heard in the session: whoever
// only greets makes nobody dial.
func (d *directTrack) dial(dialer *direct.Dialer) {
	ctx := d.bundle.ctx
	select {
	case <-d.bundle.heard:
	case <-ctx.Done():
		return
	}
	pause, dialing := minRedial, ctx
	for tries := 0; tries < maxRedials; tries++ {
		conn, err := dialer.Dial(dialing, d.address, d.secret, d.end)
		if err == nil {
			begun := time.Now()
			_, err = d.carry(ctx, conn, nil)
			if time.Since(begun) >= wellAfter {
				tries, pause = 0, minRedial
			}
		}
		if ctx.Err() != nil || d.bundle.session.Err() != nil {
			return
		}
		if dialing = ctx; errors.Is(err, errFellSilent) {
			dialing = segments.Small(ctx) // the network may lose large packets
		}
		d.note(RelayConnecting, err)
		d.bundle.log.Debug("no direct path", "address", d.address, "err", err, "retry", pause)
		sleepUntil(ctx, d.bundle.session.Done(), pause+time.Duration(rand.Int64N(int64(pause/4))))
		pause = min(2*pause, maxRedial)
	}
	if ctx.Err() == nil {
		d.note(RelayRetired, fmt.Errorf("no direct path to %s after %d attempts", d.address, maxRedials))
	}
}

// carry lends the session the connection until it is lost, another one comes by
// next, or ctx ends. It returns that other one, or why there is none.
func (d *directTrack) carry(ctx context.Context, conn *direct.Conn, next <-chan *direct.Conn) (*direct.Conn, error) {
	b := d.bundle
	path := b.session.AttachPreferred(conn)
	d.mu.Lock()
	d.state, d.err, d.path = RelayCarrying, nil, path
	d.mu.Unlock()
	b.log.Debug("direct path is up", "address", d.address)
	lost := make(chan error, 1)
	b.wg.Go(func() {
		lost <- conn.Receive(func(packet []byte) {
			path.Receive(packet)
			b.hear()
		})
	})
	another, err := d.watch(ctx, path, lost, next)
	path.Detach() // closes conn, so that Receive returns
	d.lose(time.Now())
	if ctx.Err() == nil {
		b.log.Debug("direct path is down", "address", d.address, "err", err)
	}
	return another, err
}

// watch returns when a direct path is to be left, and why, or for which
// connection.
func (d *directTrack) watch(ctx context.Context, path *session.Path, lost <-chan error, next <-chan *direct.Conn) (*direct.Conn, error) {
	check := time.NewTicker(directCheck)
	defer check.Stop()
	for {
		select {
		case err := <-lost:
			return nil, fmt.Errorf("the connection was lost: %w", err)
		case another := <-next:
			return another, errors.New("the other end has made another connection")
		case <-path.Done(): // sending has failed, or the session ended
			return nil, errors.New("the connection was lost")
		case <-check.C:
			if s := path.Stats(); s.Silent && s.SinceAck >= silentDirect {
				return nil, errFellSilent
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (d *directTrack) note(s RelayState, err error) {
	d.mu.Lock()
	d.state, d.err = s, err
	d.mu.Unlock()
	d.bundle.checkAbandoned(time.Now())
}

// lose notes that the session has the path no more, and has it looked at again when
// it is not there in time.
func (d *directTrack) lose(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.path, d.lost = nil, now
	if d.grace == nil {
		d.grace = time.AfterFunc(directGrace, func() { d.bundle.checkAbandoned(time.Now()) })
	} else {
		d.grace.Reset(directGrace)
	}
}

// alive reports whether the path carries, or did a moment ago.
func (d *directTrack) alive(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.path != nil || d.state != RelayRetired && !d.lost.IsZero() && now.Sub(d.lost) < directGrace
}

func (d *directTrack) status() RelayStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := RelayStatus{URL: "tls://" + d.address, State: d.state, Err: d.err}
	if d.path != nil {
		s.Path = d.path.Stats()
	}
	return s
}
