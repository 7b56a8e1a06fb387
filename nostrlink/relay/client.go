package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/segments"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
)

// ClientOptions are the settings of a Client. The zero value works.
type ClientOptions struct {
	Options // of each connection; OnNotice is called too

	// OnState is called with each change of the status, in order, from the
	// goroutine that runs Serve. It must not block and must not call Subscribe
	// or Publish.
	OnState func(Status)
	// MinBackoff and MaxBackoff bound the wait before the next attempt, which
	// doubles with each failure; zero for 0.5 s and 30 s.
	MinBackoff, MaxBackoff time.Duration
}

// State says how far a Client is.
type State int

// The states of a Client.
const (
	// Connecting: dialling or subscribing.
	Connecting State = iota
	// Connected: every subscription has been confirmed by EOSE.
	Connected
	// Waiting for the time of the next attempt.
	Waiting
	// Stopped: Serve has returned.
	Stopped
)

func (s State) String() string {
	return [...]string{"connecting", "connected", "waiting", "stopped"}[s]
}

// Status is what a user may be shown about a relay.
type Status struct {
	URL      string
	State    State
	Since    time.Time // of the state
	Err      error     // why the last attempt or connection ended; nil once connected
	Attempts int       // failed ones since the last connection
	Notice   string    // the relay's last NOTICE
	Pace     Pace
}

// Pace is how fast a relay takes events.
type Pace struct {
	Rate    float64       // events a second that the relay's limit seems to allow; 0: it has shown none
	Limited uint64        // publishes it has refused as too many
	Latency time.Duration // from a publish to the relay's OK, smoothed; 0: not known
}

// Client keeps a connection to one relay: it redials when it is lost and
// repeats the subscriptions. All methods may be called concurrently, but not
// from a callback, except Status.
type Client struct {
	url  string
	opts ClientOptions

	turn   chan struct{} // held by who is subscribing
	repair chan struct{} // a wanted subscription may not be in force
	gate   *gate
	outage outage // of the goroutine that runs Serve

	mu     sync.Mutex
	status Status
	conn   *Conn         // not nil while Connected
	change chan struct{} // closed at each change of conn or state
	// interrupt ends the present attempt, connection or wait; nil before Serve.
	interrupt context.CancelCauseFunc
	subs      map[string]*wanted
	cautious  time.Time // until when connections have small segments
}

var (
	errStopped = errors.New("no longer in use")
	errRedial  = errors.New("redialling")
)

// cautiousFor is for how long a path to the relay is taken for one that passes
// only small packets, unless the network changes.
const cautiousFor = time.Hour

// stableAfter is how long a connection must have lived for the next one to be
// tried without a grown backoff. A relay that accepts and drops us is not
// hammered.
const stableAfter = 10 * time.Second

// NewClient returns a Client for a ws:// or wss:// URL. It does nothing before
// Serve.
func NewClient(url string, opts ClientOptions) (*Client, error) {
	if err := ws.CheckURL(url); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	opts.Options = opts.withDefaults()
	if opts.MinBackoff <= 0 {
		opts.MinBackoff = time.Second / 2
	}
	if opts.MaxBackoff < opts.MinBackoff {
		opts.MaxBackoff = max(30*time.Second, opts.MinBackoff)
	}
	c := &Client{
		url:    url,
		opts:   opts,
		turn:   make(chan struct{}, 1),
		repair: make(chan struct{}, 1),
		gate:   newGate(opts.Window),
		change: make(chan struct{}),
		subs:   make(map[string]*wanted),
		status: Status{URL: url, State: Connecting, Since: time.Now()},
	}
	notice := opts.OnNotice
	c.opts.OnNotice = func(text string) {
		c.mu.Lock()
		c.status.Notice = text
		c.mu.Unlock()
		if notice != nil {
			notice(text)
		}
	}
	return c, nil
}

// Serve keeps the connection until ctx ends, and returns ctx's error when
// everything has been released. It must be called once.
func (c *Client) Serve(ctx context.Context) error {
	backoff := c.opts.MinBackoff
	for ctx.Err() == nil {
		attempt, interrupt := context.WithCancelCause(ctx)
		c.mu.Lock()
		c.interrupt = interrupt
		c.mu.Unlock()
		lived, err := c.once(attempt)
		if lived >= stableAfter || attempt.Err() != nil {
			backoff = c.opts.MinBackoff
		}
		if c.becomesCautious(attempt, err) {
			c.opts.Log.Info("relay fell silent: the next connection has small segments, for a network that loses large ones", "relay", c.url, "err", err)
			sleep(attempt, backoff)
		} else if attempt.Err() == nil {
			c.logLost(ctx, lived, err)
			c.setState(Waiting, nil, err)
			sleep(attempt, backoff)
			backoff = min(2*backoff, c.opts.MaxBackoff)
		}
		interrupt(nil)
	}
	c.setState(Stopped, nil, nil)
	return ctx.Err()
}

// logLost logs why there is no connection, at debug level what was said already.
func (c *Client) logLost(ctx context.Context, lived time.Duration, err error) {
	level := slog.LevelDebug
	if c.outage.lost(time.Now(), lived, err) {
		level = slog.LevelInfo
	}
	c.opts.Log.Log(ctx, level, "relay not connected", "relay", c.url, "err", err, "attempts", c.Status().Attempts+1)
}

// becomesCautious has the next connections have small segments, after err has
// ended an attempt by silence. It reports whether that is new: then it is worth
// an attempt at once.
func (c *Client) becomesCautious(attempt context.Context, err error) bool {
	if attempt.Err() != nil || !fellSilent(err) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	was := now.Before(c.cautious)
	c.cautious = now.Add(cautiousFor)
	return !was
}

// dialing is ctx for making a connection.
func (c *Client) dialing(ctx context.Context) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.cautious) {
		return segments.Small(ctx)
	}
	return ctx
}

// sleep waits for between a half and the whole of d, so that the clients of a
// relay that restarted do not come back together.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// once makes one connection and stays with it until it ends. It returns how
// long it was connected, and why it is not any more.
func (c *Client) once(ctx context.Context) (lived time.Duration, err error) {
	c.setState(Connecting, nil, nil)
	conn, err := dial(c.dialing(ctx), c.url, c.opts.Options, c.gate)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := c.resubscribe(ctx, conn); err != nil {
		return 0, err
	}
	if c.outage.connected() {
		c.opts.Log.Info("relay connected", "relay", c.url)
	}
	begun := time.Now()
	err = c.stay(ctx, conn)
	c.setState(Connecting, nil, err)
	return time.Since(begun), err
}

// stay returns when the connection has ended or is to end, and why.
func (c *Client) stay(ctx context.Context, conn *Conn) error {
	lasting := time.NewTimer(stableAfter)
	defer lasting.Stop()
	for {
		select {
		case <-conn.Done():
			return conn.Err()
		case <-lasting.C:
			if c.outage.lasted() {
				c.opts.Log.Info("relay connected", "relay", c.url)
			}
		case <-ctx.Done():
			err := context.Cause(ctx)
			if errors.Is(err, errRedial) {
				conn.ws.Fail(err) // the network has changed: no time for a farewell
			}
			return err
		case <-c.repair:
			if err := c.mend(ctx, conn); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// mend makes what is missing on the connection, once nobody else is subscribing.
// Whoever is may be waiting for the next connection: the end of this one ends the
// wait.
func (c *Client) mend(ctx context.Context, conn *Conn) error {
	select {
	case c.turn <- struct{}{}:
	case <-conn.Done():
		return conn.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.turn }()
	return c.resubscribe(ctx, conn)
}

// Redial drops the connection, or the wait for the next attempt, and dials at
// once: for use after a change of the network.
func (c *Client) Redial() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.interrupt != nil {
		c.interrupt(errRedial)
	}
}

// Check makes sure, after a change of the network, that the connection still
// works: a relay that does not answer within two seconds is redialled, and the
// wait for the next attempt ends at once.
func (c *Client) Check() {
	c.mu.Lock()
	conn := c.conn
	c.cautious = time.Time{} // that was the other network
	c.mu.Unlock()
	if conn == nil {
		c.Redial()
		return
	}
	conn.check()
}

// setState notes a change and tells whoever waits for one.
func (c *Client) setState(s State, conn *Conn, err error) {
	c.mu.Lock()
	c.setStateLocked(s, conn, err)
	c.mu.Unlock()
	c.announce()
}

func (c *Client) setStateLocked(s State, conn *Conn, err error) {
	if s != c.status.State {
		c.status.Since = time.Now()
	}
	switch {
	case s == Connected:
		c.status.Err, c.status.Attempts = nil, 0
	case s == Waiting:
		c.status.Err = err
		c.status.Attempts++
	case err != nil:
		c.status.Err = err
	}
	c.status.State = s
	c.conn = conn
	close(c.change)
	c.change = make(chan struct{})
}

func (c *Client) announce() {
	if c.opts.OnState != nil {
		c.opts.OnState(c.Status())
	}
}

// Status is the present one.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Pace = c.gate.pace()
	return s
}
