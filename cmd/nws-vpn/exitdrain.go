package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// drain is the end of an exit that waits for its flows.
type drain struct {
	since    time.Time // zero while it does not drain
	deadline time.Time // or zero
}

const (
	// drainCheck is between looks at what is left.
	drainCheck = 250 * time.Millisecond
	// drainRest is for how long at least a draining exit lets those go on who have
	// greeted it just before.
	drainRest = 2 * time.Second
	// passOnTimeout bounds how long the successor may take to note something.
	passOnTimeout = 5 * time.Second
)

// drain has the exit take no new sessions, and end when its flows have ended, or
// after timeout if that is not zero. With a successor it hands over to that.
func (r *exitRun) drain(timeout time.Duration, next *successor) error {
	now := time.Now()
	if next != nil {
		if err := r.mayTakeOver(next); err != nil {
			return err
		}
	}
	first, err := r.beginDrain(now, timeout, next)
	if err != nil {
		return err
	}
	if first {
		r.log.Info("draining: no new sessions; the exit ends when its flows have ended", "flows", r.server.Stats().OpenFlows, "timeout", timeout)
		for _, n := range r.names {
			n.listener.Drain()
		}
	}
	if next == nil {
		if first {
			r.leave()
			r.withdraw()
		}
		return nil
	}
	r.replacing.Do(func() { r.handOver() })
	return nil
}

// beginDrain notes that the exit drains, unless the successor has to be refused, or
// another one takes over, which is to be asked then. It reports whether the exit did not
// drain before.
func (r *exitRun) beginDrain(now time.Time, timeout time.Duration, next *successor) (first bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.heir != nil:
		if next == nil || r.heir.pid != next.pid {
			return false, fmt.Errorf("process %d takes over in this moment: try again", r.heir.pid)
		}
	case next == nil:
	case r.noSuccessor, !next.until.IsZero() && now.After(next.until):
		return false, errors.New("the new process took too long: the old one stays")
	default:
		r.heir = next
	}
	first = r.draining.since.IsZero()
	if first {
		r.draining.since = now
	}
	if timeout > 0 {
		r.draining.deadline = now.Add(timeout)
	}
	return first, nil
}

// withdraw takes the announcements back, which takes at most two seconds: nobody
// answers those who would come.
func (r *exitRun) withdraw() {
	var withdrawing sync.WaitGroup
	for _, n := range r.names {
		if n.withdraw != nil {
			withdrawing.Go(func() { n.withdraw(nil) })
		}
	}
	withdrawing.Wait()
}

// handOver lets go of all that only one process can have.
func (r *exitRun) handOver() {
	defer close(r.replaced)
	r.mu.Lock()
	socket, closeMetrics := r.socket, r.closeMetrics
	r.mu.Unlock()
	if closeMetrics != nil {
		closeMetrics() // its address is free when that returns
	}
	if socket != nil {
		socket.LetGo()
	}
	for _, n := range r.names {
		n.closePaths() // sessions that came that way go on over relays
		n.stopTelling(true)
	}
	if err := r.server.HandOverUsage(); err != nil {
		r.log.Error("exit", "err", err)
	}
	r.showReplaced()
}

// passOnUsage tells the process that keeps the clients' usage, if that is another
// one, what they use of this one: the one that has taken over, or whose place this
// one has yet to take.
func (r *exitRun) passOnUsage(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, passOnTimeout)
	defer cancel()
	return r.server.PassOnUsage(func(usage []byte) error {
		return control.Post(ctx, r.state, "/usage", usage)
	})
}

func (r *exitRun) isReplaced() bool {
	select {
	case <-r.replaced:
		return true
	default:
		return false
	}
}

// isDrained reports whether the exit has drained, and ends the sessions that have
// no flow meanwhile: their entries greet whoever takes new ones.
func (r *exitRun) isDrained(now time.Time) bool {
	r.mu.Lock()
	d, handsOver := r.draining, r.heir != nil && !r.isReplaced()
	r.mu.Unlock()
	switch {
	case d.since.IsZero() || now.Sub(d.since) < drainRest || handsOver:
		return false
	case !d.deadline.IsZero() && now.After(d.deadline):
		r.log.Warn("draining took too long: the flows that are left are cut", "flows", r.server.Stats().OpenFlows)
		return true
	case r.server.Stats().OpenFlows == 0:
		r.log.Info("drained")
		return true
	}
	for _, n := range r.names {
		endIdle(n.listener)
	}
	return false
}

// endIdle ends the sessions of clients none of which has a flow open.
func endIdle(l *nostrlink.Listener) {
	busy := make(map[nostrlink.Client]bool)
	for _, g := range l.Guests() {
		busy[g.Client] = busy[g.Client] || g.Stats.Streams > 0
	}
	l.TurnOut(func(c nostrlink.Client) error {
		if hasFlows, known := busy[c]; hasFlows || !known {
			return nil
		}
		return &wire.Error{Code: wire.CodeGoingAway, Text: "another process of this exit takes over"}
	})
}
