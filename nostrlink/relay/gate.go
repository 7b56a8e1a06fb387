package relay

import (
	"context"
	"sync"
	"time"
)

// gate lets publishes pass at the pace of one relay, in the order they came. It
// outlives connections, as what the relay takes does. Its methods may be called
// concurrently.
type gate struct {
	turn chan struct{} // held by the publish that is next
	news chan struct{} // something may have changed for it

	mu sync.Mutex
	pacer
	latency time.Duration // smoothed, from a publish to its OK
}

func newGate(window int) *gate {
	return &gate{turn: make(chan struct{}, 1), news: make(chan struct{}, 1), pacer: newPacer(window)}
}

// enter waits until one event may be sent. It returns false when ctx or the
// connection ends first. Every entry ends in one call of leave or withdraw.
func (g *gate) enter(ctx context.Context, ended <-chan struct{}) bool {
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	case <-ended:
		return false
	}
	defer func() { <-g.turn }()
	for {
		wait := g.try()
		if wait == 0 {
			return true
		}
		if !g.pause(ctx, ended, wait) {
			return false
		}
	}
}

func (g *gate) try() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	wait := g.next(time.Now())
	if wait == 0 {
		g.sent()
	}
	return wait
}

func (g *gate) pause(ctx context.Context, ended <-chan struct{}, wait time.Duration) bool {
	var alarm <-chan time.Time
	if wait != waitForOK {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-g.news:
	case <-alarm:
	case <-ctx.Done():
		return false
	case <-ended:
		return false
	}
	return true
}

// leave notes the verdict on an event that was sent at a time.
func (g *gate) leave(sent time.Time, accepted bool, reason string) {
	now := time.Now()
	g.mu.Lock()
	switch prefix := Prefix(reason); {
	case !accepted && prefix == "rate-limited":
		g.refused(now)
	case !accepted && (prefix == ReasonTimeout || prefix == ReasonDisconnected):
		g.failed()
	default: // also a refusal for other reasons costs the relay its time
		g.accepted(now)
		g.sample(now.Sub(sent))
	}
	g.mu.Unlock()
	g.wake()
}

func (g *gate) sample(latency time.Duration) {
	if g.latency == 0 {
		g.latency = latency
	}
	g.latency += (latency - g.latency) / 8
}

// withdraw notes that an event was not sent after all.
func (g *gate) withdraw() {
	g.mu.Lock()
	g.withdrawn()
	g.mu.Unlock()
	g.wake()
}

func (g *gate) wake() {
	select {
	case g.news <- struct{}{}:
	default:
	}
}

// pace is what a user may be shown.
func (g *gate) pace() Pace {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Pace{Rate: g.rate, Limited: g.limited, Latency: g.latency}
}
