package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
)

// Conn is one connection to one relay. It lives until Close is called, the
// relay ends it, the relay is silent for too long, or the relay ends one of the
// subscriptions. Its methods may be called concurrently, but Close not from a
// callback.
type Conn struct {
	url    string
	opts   Options
	ws     *ws.Conn
	gate   *gate
	wait   pending
	auth   authenticator
	inCall atomic.Bool   // the reader is in a subscription's callback
	urgent chan struct{} // ask the relay now whether it lives

	mu   sync.Mutex
	subs map[string]*subscription
	err  error

	ending context.Context // ends when the connection does
	end    context.CancelFunc
	done   chan struct{}
	tasks  sync.WaitGroup
}

type subscription struct {
	onEvent  func(raw []byte)
	answer   chan error // takes one: nil for EOSE, or the refusal
	answered bool       // guarded by the connection's mu
}

var errReplaced = errors.New("replaced by a newer subscription with the same id")

// Dial connects to the relay at a ws:// or wss:// URL. It returns after the
// websocket handshake, after Options.ReplyTimeout or when ctx ends. ctx does not
// bound the connection's life.
func Dial(ctx context.Context, url string, opts Options) (*Conn, error) {
	opts = opts.withDefaults()
	return dial(ctx, url, opts, newGate(opts.Window))
}

// dial is Dial for options with defaults and a gate that may be older than the
// connection.
func dial(ctx context.Context, url string, opts Options, g *gate) (*Conn, error) {
	if err := ws.CheckURL(url); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	dialCtx, cancel := context.WithTimeout(ctx, opts.ReplyTimeout)
	defer cancel()
	w, err := ws.Dial(dialCtx, url, ws.DialOptions{DialContext: opts.DialContext, TLS: opts.TLS})
	if err != nil {
		return nil, fmt.Errorf("relay %s: %w", url, err)
	}
	c := &Conn{
		url:    url,
		opts:   opts,
		ws:     w,
		gate:   g,
		urgent: make(chan struct{}, 1),
		subs:   make(map[string]*subscription),
		done:   make(chan struct{}),
	}
	c.auth.init()
	c.ending, c.end = context.WithCancel(context.Background())
	c.tasks.Go(c.read)
	c.tasks.Go(c.keepAlive)
	return c, nil
}

// Done is closed when the connection has ended and every publish has had its
// verdict.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection ended, or nil while it lives. After Close it wraps
// net.ErrClosed.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close says farewell, ends the connection and waits for its goroutines. It
// takes at most about a second.
func (c *Conn) Close() error {
	c.ws.Close(ws.StatusNormal, "")
	c.tasks.Wait()
	return nil
}

// Subscribe asks the relay for events and returns when the relay has sent EOSE,
// so that from then on no new event is missed. The same id again replaces the
// filters and the callback.
//
// onEvent is called from the connection's reader for each event, stored ones
// included, in the order of arrival, with the event's JSON, which is borrowed
// until it returns. While it runs nothing else is received, so it must not wait
// for anything that this connection brings.
//
// When the relay refuses, the error is a [*RefusedError]. When it answers
// nothing within Options.ReplyTimeout the error says so. After that, or when ctx
// ends first, the relay may have the subscription or not: events are delivered if
// they come, until Unsubscribe.
func (c *Conn) Subscribe(ctx context.Context, id string, filters []Filter, onEvent func(raw []byte)) error {
	err := c.request(ctx, id, filters, onEvent)
	var refused *RefusedError
	if errors.As(err, &refused) && Prefix(refused.Reason) == "auth-required" {
		if c.opts.Auth == nil {
			refused.NoSigner = true
			return err
		}
		if err := c.authenticated(ctx); err != nil {
			return err
		}
		err = c.request(ctx, id, filters, onEvent)
	}
	return err
}

func (c *Conn) request(ctx context.Context, id string, filters []Filter, onEvent func(raw []byte)) error {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.opts.ReplyTimeout)
	defer cancel()
	sub := &subscription{onEvent: onEvent, answer: make(chan error, 1)}
	c.mu.Lock()
	if old := c.subs[id]; old != nil {
		old.give(fmt.Errorf("relay %s: subscription: %w", c.url, errReplaced))
	}
	c.subs[id] = sub
	c.mu.Unlock()

	out := newBuffer()
	out.b = nip01.AppendReq(out.b, id, filters)
	err := c.send(ctx, out)
	if err == nil {
		select {
		case err = <-sub.answer:
		case <-ctx.Done():
			err = ctx.Err()
		case <-c.done:
			err = c.Err()
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return silentError{fmt.Errorf("relay %s: accepted the connection but did not answer the subscription within %v: "+
			"it may be overloaded, or not a Nostr relay; try another: %w", c.url, time.Since(begun).Round(time.Second/10), err)}
	}
	return err
}

// give answers the waiting Subscribe, unless it has been answered. The
// connection's mu is held.
func (s *subscription) give(err error) bool {
	if s.answered {
		return false
	}
	s.answered = true
	s.answer <- err
	return true
}

// Unsubscribe ends a subscription. Its callback is not called any more once the
// call that may be running has returned.
func (c *Conn) Unsubscribe(ctx context.Context, id string) error {
	c.mu.Lock()
	sub := c.subs[id]
	delete(c.subs, id)
	c.mu.Unlock()
	if sub == nil {
		return nil
	}
	out := newBuffer()
	out.b = nip01.AppendClose(out.b, id)
	return c.send(ctx, out)
}

// Publish sends a signed event. It does not wait for the relay's OK, but it
// waits while as many publishes are without OK as the relay has shown to take,
// at most Options.Window, while the relay's rate limit leaves no room, and while
// Options.QueueBytes are waiting to be written. event is borrowed until Publish
// returns.
//
// After a nil error onOK (unless nil) is called exactly once, with what the
// relay said, or with a reason that begins with ReasonTimeout or
// ReasonDisconnected. It is called from a goroutine of the connection and must
// not block. After an error the event was not sent and onOK is never called.
func (c *Conn) Publish(ctx context.Context, event []byte, id [32]byte, onOK func(accepted bool, reason string)) error {
	if !c.gate.enter(ctx, c.done) {
		if err := ctx.Err(); err != nil {
			return err
		}
		return c.Err()
	}
	sent := time.Now()
	return c.sendEvent(ctx, `["EVENT",`, event, id, func(accepted bool, reason string) {
		c.gate.leave(sent, accepted, reason)
		if onOK != nil {
			onOK(accepted, reason)
		}
	}, c.gate.withdraw)
}

// sendEvent sends an event under a verb. Exactly one of verdict and failed is
// called: failed before sendEvent returns an error, verdict at any time.
func (c *Conn) sendEvent(ctx context.Context, head string, event []byte, id [32]byte,
	verdict func(accepted bool, reason string), failed func(),
) error {
	number := c.wait.add(publish{id: id, sent: time.Now(), onOK: verdict})
	if number == 0 {
		failed()
		return c.Err()
	}
	out := newBuffer()
	out.b = append(append(append(out.b, head...), event...), ']')
	if err := c.send(ctx, out); err != nil && c.wait.withdraw(number) {
		failed()
		return err
	}
	return nil // or the verdict has already been given: the connection ended
}

// send queues a message and waits for room in the queue.
func (c *Conn) send(ctx context.Context, out *buffer) error {
	err := c.ws.Send(ctx, ws.Message{Body: out.b, Owner: out}, c.opts.QueueBytes)
	if err != nil {
		out.Release()
		if ctx.Err() == nil {
			return fmt.Errorf("relay %s: %w", c.url, err)
		}
	}
	return err
}

// buffer is a message on its way out.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func newBuffer() *buffer { return buffers.Get().(*buffer) }

// Release gives the buffer back.
func (b *buffer) Release() {
	b.b = b.b[:0]
	buffers.Put(b)
}
