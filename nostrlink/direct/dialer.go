package direct

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a Dialer.
const (
	maxDials    = 32 // at a time
	dialsPerSec = 4
	dialBurst   = 32
	// dialTimeout bounds one attempt, the other end's word included.
	dialTimeout = 10 * time.Second
)

// ErrBusy is for an attempt that was not made, since there were too many.
var ErrBusy = errors.New("direct: too many connections are being made: it is tried again later")

// Dialer connects to the addresses that the other ends of sessions name. Its
// methods may be called concurrently.
type Dialer struct {
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	slots chan struct{}
	now   func() time.Time

	mu     sync.Mutex
	tokens float64
	filled time.Time

	made, failed, limited atomic.Uint64
}

// NewDialer returns a Dialer that makes TCP connections with dial. dial decides
// which addresses may be dialed at all, after resolving: they are the words of
// strangers.
func NewDialer(dial func(ctx context.Context, network, address string) (net.Conn, error)) *Dialer {
	return &Dialer{dial: dial, slots: make(chan struct{}, maxDials), now: time.Now, tokens: dialBurst, filled: time.Now()}
}

// DialerStats count what a Dialer has done.
type DialerStats struct {
	Made    uint64 // connections that the other end took
	Failed  uint64 // refused by dial, unreachable, or not the session's other end
	Limited uint64 // not tried, since there were too many
}

// Stats returns the present counts.
func (d *Dialer) Stats() DialerStats {
	return DialerStats{Made: d.made.Load(), Failed: d.failed.Load(), Limited: d.limited.Load()}
}

// Dial connects to the session's other end at address, host:port, and returns
// when that has taken the connection. end is which end we are. The error is
// ErrBusy, ErrStranger or what went wrong on the way, wrapped.
func (d *Dialer) Dial(ctx context.Context, address string, s Secret, end End) (*Conn, error) {
	if !d.admit() {
		d.limited.Add(1)
		return nil, ErrBusy
	}
	defer func() { <-d.slots }()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := d.connect(ctx, address, s, end)
	if err != nil {
		d.failed.Add(1)
		return nil, fmt.Errorf("direct: connect to %s: %w", address, err)
	}
	d.made.Add(1)
	return c, nil
}

// admit takes a slot and a token, if there is one of each.
func (d *Dialer) admit() bool {
	select {
	case d.slots <- struct{}{}:
	default:
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	d.tokens = min(d.tokens+max(0, now.Sub(d.filled).Seconds())*dialsPerSec, dialBurst)
	d.filled = now
	if d.tokens < 1 {
		<-d.slots
		return false
	}
	d.tokens--
	return true
}

func (d *Dialer) connect(ctx context.Context, address string, s Secret, end End) (*Conn, error) {
	b, err := newBadge(s, end)
	if err != nil {
		return nil, err
	}
	raw, err := d.dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(raw, b.config())
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	err = secured.HandshakeContext(ctx)
	if err == nil {
		err = taken(secured)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return newConn(raw, secured), nil
}

// taken waits for the listener's word that it has taken the connection.
func taken(c net.Conn) error {
	var word [header]byte
	_, err := io.ReadFull(c, word[:])
	if err == nil && word != [header]byte{} {
		err = ErrStranger
	}
	return err
}
