package exit

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// greedy has flows of one client take all they get until ctx ends, and returns
// how many bytes that was.
func greedy(ctx context.Context, s *share, flows int, size func() int) *atomic.Int64 {
	var c shareOf
	var got atomic.Int64
	for range flows {
		go func() {
			for {
				n := size()
				if s.take(ctx, &c, n) != nil {
					return
				}
				got.Add(int64(n))
			}
		}()
	}
	return &got
}

// In fake time: whatever the number of their flows and the size of what they
// send, clients get the same, and together what there is.
//
// leak check 52: clients share what there is, whatever the number of their flows
func TestShareIsFair(t *testing.T) {
	full := func() int { return mostQuantum }
	small := func() int { return 1200 }
	mixed := func() int { return 1 + rand.IntN(mostQuantum) }
	for name, sizes := range map[string][2]func() int{
		"alike": {full, full}, "small and large": {small, full}, "mixed": {mixed, small},
	} {
		for _, flows := range [][2]int{{1, 1}, {1, 50}, {7, 3}} {
			synctest.Test(t, func(t *testing.T) {
				const rate, seconds = 4 << 20, 20
				s := newShare(rate)
				ctx, cancel := context.WithCancel(t.Context())
				a, b := greedy(ctx, s, flows[0], sizes[0]), greedy(ctx, s, flows[1], sizes[1])
				time.Sleep(seconds * time.Second)
				cancel()
				synctest.Wait()
				x, y := float64(a.Load()), float64(b.Load())
				if ratio := x / y; ratio < 0.95 || ratio > 1.05 {
					t.Errorf("%s, %v flows: %.0f and %.0f bytes", name, flows, x, y)
				}
				if all := (x + y) / (rate * seconds); all < 0.95 || all > 1.05 {
					t.Errorf("%s, %v flows: %.2f of the rate", name, flows, all)
				}
			})
		}
	}
}

// What one does not use is the other's, and nobody waits without need.
func TestShareIsNotWasted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		s := newShare(rate)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var modest shareOf
		got := greedy(ctx, s, 4, func() int { return 32 << 10 })
		var waited time.Duration
		start := time.Now()
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			began := time.Now()
			if err := s.take(ctx, &modest, 1000); err != nil {
				t.Fatal(err)
			}
			waited = max(waited, time.Since(began))
		}
		cancel()
		synctest.Wait()
		if all := float64(got.Load()+100*1000) / time.Since(start).Seconds() / rate; all < 0.9 || all > 1.1 {
			t.Errorf("%.2f of the rate is used", all)
		}
		// Some turns, of a 64th of a second each.
		if most := 100 * time.Millisecond; waited > most {
			t.Errorf("who wants little waits %v", waited)
		}
	})
}

func TestShareLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShare(1000)
		var a, b shareOf
		ctx, cancel := context.WithCancel(t.Context())
		if err := s.take(ctx, &a, leastBurst+1000); err != nil {
			t.Fatal(err)
		}
		failed := make(chan error)
		go func() { failed <- s.take(ctx, &a, 1000) }()
		synctest.Wait()
		cancel()
		if err := <-failed; err == nil {
			t.Error("who gave up was served")
		}
		if s.ring.Len() != 0 || a.place != nil {
			t.Error("who gave up is still in the ring")
		}
		if err := s.take(t.Context(), &b, 10); err != nil { // after the debt is paid
			t.Error(err)
		}
	})
}
