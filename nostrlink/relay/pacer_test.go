package relay

import (
	"testing"
	"time"
)

// limitedRelay takes a number of events a second, as a bucket that holds burst.
type limitedRelay struct {
	rate, burst, tokens float64
	filled              time.Time
}

func (r *limitedRelay) take(now time.Time) bool {
	r.tokens = min(r.burst, r.tokens+now.Sub(r.filled).Seconds()*r.rate)
	r.filled = now
	if r.tokens < 1 {
		return false
	}
	r.tokens--
	return true
}

// publishFor has a publisher that always has more send to the relay for a time.
// Its OKs take the given delay.
func publishFor(p *pacer, r *limitedRelay, start time.Time, length, delay time.Duration) (took, refused int) {
	type verdict struct {
		at time.Time
		ok bool
	}
	var verdicts []verdict
	for now := start; now.Before(start.Add(length)); {
		for len(verdicts) > 0 && !verdicts[0].at.After(now) {
			if verdicts[0].ok {
				p.accepted(now)
			} else {
				p.refused(now)
			}
			verdicts = verdicts[1:]
		}
		wait := p.next(now)
		if wait == 0 {
			p.sent()
			ok := r.take(now)
			if ok {
				took++
			} else {
				refused++
			}
			verdicts = append(verdicts, verdict{now.Add(delay), ok})
			continue
		}
		if len(verdicts) > 0 {
			wait = min(wait, verdicts[0].at.Sub(now))
		}
		now = now.Add(wait)
	}
	for _, v := range verdicts {
		if v.ok {
			p.accepted(v.at)
		} else {
			p.refused(v.at)
		}
	}
	return took, refused
}

func TestThePaceFollowsTheRelaysLimit(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	for _, test := range []struct {
		name        string
		rate, burst float64
		delay, run  time.Duration
	}{
		{"200 a second", 200, 200, 50 * time.Millisecond, 2 * time.Minute},
		{"200 a second, far away", 200, 200, 300 * time.Millisecond, 2 * time.Minute},
		{"20 a second, no burst", 20, 1, 20 * time.Millisecond, 2 * time.Minute},
		{"60 a minute", 1, 60, 50 * time.Millisecond, 20 * time.Minute},
		{"6 a minute", 0.1, 6, 50 * time.Millisecond, 2 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPacer(64)
			r := &limitedRelay{rate: test.rate, burst: test.burst, tokens: test.burst, filled: start}
			publishFor(&p, r, start, test.run/4, test.delay) // it learns
			took, refused := publishFor(&p, r, start.Add(test.run/4), test.run, test.delay)
			possible := test.rate * test.run.Seconds()
			if float64(took) < 0.8*possible {
				t.Errorf("the relay took %d events of %.0f", took, possible)
			}
			if float64(refused) > 0.15*float64(took) {
				t.Errorf("%d events were too many, beside %d taken", refused, took)
			}
		})
	}
}

// A limit that is lifted is noticed, one that is tightened too.
func TestThePaceFollowsChanges(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	p := newPacer(64)
	r := &limitedRelay{rate: 100, burst: 100, filled: now}
	for _, test := range []struct {
		rate float64
		run  time.Duration
	}{{100, 30 * time.Second}, {400, 3 * time.Minute}, {50, 30 * time.Second}} {
		r.rate, r.burst = test.rate, test.rate
		publishFor(&p, r, now, test.run, 50*time.Millisecond)
		now = now.Add(test.run)
		took, refused := publishFor(&p, r, now, 30*time.Second, 50*time.Millisecond)
		now = now.Add(30 * time.Second)
		if float64(took) < 0.75*30*test.rate || float64(refused) > 0.2*float64(took) {
			t.Errorf("at %.0f a second: %d taken and %d refused in 30 s", test.rate, took, refused)
		}
	}
}

func TestARelayWithoutLimitsIsNotPaced(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	p := newPacer(64)
	for range 48 {
		if wait := p.next(now); wait != 0 {
			t.Fatalf("a publish waits for %v", wait)
		}
		p.sent()
		p.accepted(now)
	}
	n := 0
	for ; p.next(now) == 0; n++ {
		p.sent()
	}
	if n != 64 {
		t.Errorf("%d publishes may be without OK, want the whole window of 64", n)
	}
	if p.next(now.Add(time.Hour)) != waitForOK {
		t.Error("a full window opens without an OK")
	}
	p.failed()
	if p.next(now) != 0 {
		t.Error("a publish without verdict blocks the next one")
	}
}

// TestPacerBelievesTheFirstBurst has a relay object to a burst that was over in
// no time, after a while with nearly nothing to send.
func TestPacerBelievesTheFirstBurst(t *testing.T) {
	p := newPacer(64)
	now := time.Unix(1_000_000, 0)
	for range 40 { // five a second
		p.sent()
		p.accepted(now)
		now = now.Add(200 * time.Millisecond)
	}
	relay := &limitedRelay{rate: 150, burst: 150, tokens: 150, filled: now}
	took, refused := publishFor(&p, relay, now, 10*time.Second, 2*time.Millisecond)
	if most := 150 + 150*10; took < most*7/10 || refused > 150 {
		t.Errorf("%d events taken of %d possible, %d refused", took, most, refused)
	}
}
