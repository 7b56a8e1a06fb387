package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/platform"
)

// followNetwork has the connections to relays checked when the machine's network
// changes or the machine wakes up.
func (t *tunnel) followNetwork(log *slog.Logger) {
	t.background(func(ctx context.Context) error { return roam(ctx, log, t.hub.NetworkChanged) })
}

// roam calls moved, from two goroutines, when the machine's network has changed
// and when it was asleep: connections may be dead without knowing. It ends with
// ctx.
func roam(ctx context.Context, log *slog.Logger, moved func()) error {
	var clock sync.WaitGroup
	clock.Go(func() { followClock(ctx, log, moved) })
	defer clock.Wait()
	err := platform.Watch(ctx, func() {
		log.Debug("the network has changed")
		moved()
	})
	if err != nil && ctx.Err() == nil {
		log.Warn("changes of the network are not noticed", "err", err)
	}
	return err
}

func followClock(ctx context.Context, log *slog.Logger, woken func()) {
	tick := time.NewTicker(clockCheck)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if gone := slept(last, now); gone > 0 {
			log.Info("the machine was asleep, or this process was stopped", "for", gone.Round(time.Second))
			woken()
		}
		last = now
	}
}

// How often the clocks are looked at, and how much later than expected is a
// sleep.
const (
	clockCheck = time.Second
	leastSleep = 3 * time.Second
)

// slept is for how long the machine was asleep, or the process stopped, between
// two looks that should be clockCheck apart; 0 for not at all. The wall clock
// goes on when the machine sleeps, and the monotonic one when the process does
// not run. A wall clock that is set forward looks the same, and does no harm.
func slept(last, now time.Time) time.Duration {
	wall := now.Round(0).Sub(last.Round(0))
	gone := max(wall, now.Sub(last)) - clockCheck
	if gone < leastSleep {
		return 0
	}
	return gone
}
