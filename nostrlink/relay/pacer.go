package relay

import "time"

// pacer decides when the next event may go to a relay. It has no clock and is
// not safe for concurrent use.
//
// Nobody tells what a relay takes. So the number of publishes without OK begins
// small and grows by one with each OK, as TCP's window does. When the relay says
// rate-limited, a bucket of tokens comes in: its rate is cut to a part of what
// the relay took until then and grows from there, quickly to where the relay
// objected last and slowly beyond.
type pacer struct {
	most   int     // publishes without OK, at most
	window float64 // now
	open   int     // publishes without OK

	rate    float64   // events a second; zero while the relay has not objected
	ceiling float64   // the rate at which it did last
	tokens  float64   // may be below zero
	filled  time.Time // when tokens were counted
	cutAt   time.Time

	countedAt time.Time // events taken since then
	counted   int
	taken     float64 // events a second that the relay took before that

	limited uint64 // how often the relay objected
}

const (
	firstWindow = 16 // publishes without OK to a relay that is new to us

	minPace   = 0.05 // events a second: the strictest relays want a few a minute
	firstPace = 4    // after an objection to the very first ones
	maxPace   = 50e3 // no limit is meant
	cutTo     = 0.75 // of what the relay took
	nearLimit = 0.95 // of the ceiling, up to which the rate grows fast
	growFast  = 0.25 // a second, from growEvents a second on
	growSlow  = 0.02 // and twice that after growLater or growLaterEvents, and so on

	growEvents      = 5
	growLater       = 15 * time.Second
	growLaterEvents = 300
	cutPause        = time.Second            // at least, after a cut
	countFor        = time.Second            // at least, the relay's rate is counted,
	countLeast      = 8                      // and over as many events
	maxBurst        = 250 * time.Millisecond // worth of tokens that may gather

	waitForOK = time.Duration(1<<63 - 1)
)

func newPacer(most int) pacer {
	return pacer{most: most, window: float64(min(firstWindow, most))}
}

// next returns how long the next publish has to wait: nothing, a time, or
// waitForOK until done has been called.
func (p *pacer) next(now time.Time) time.Duration {
	if p.open > 0 && p.open >= int(p.window) {
		return waitForOK
	}
	if p.rate == 0 {
		return 0
	}
	p.fill(now)
	if p.tokens >= 1 {
		return 0
	}
	return max(time.Duration((1-p.tokens)/p.rate*float64(time.Second)), time.Millisecond)
}

func (p *pacer) fill(now time.Time) {
	passed := max(0, now.Sub(p.filled).Seconds())
	p.filled = now
	p.tokens = min(p.tokens+passed*p.rate, max(1, p.rate*maxBurst.Seconds()))
}

// sent notes a publish.
func (p *pacer) sent() {
	p.open++
	if p.rate > 0 {
		p.tokens--
	}
}

// withdrawn notes that a publish was not made after all.
func (p *pacer) withdrawn() { p.open-- }

// accepted notes an OK.
func (p *pacer) accepted(now time.Time) {
	p.open--
	p.window = min(p.window+1, float64(p.most))
	p.count(now)
	if p.rate > 0 {
		p.grow(now)
	}
}

// failed notes a verdict that says nothing of the rate.
func (p *pacer) failed() { p.open-- }

// count measures what the relay takes.
func (p *pacer) count(now time.Time) {
	if p.counted == 0 {
		p.countedAt = now
	}
	p.counted++
	if passed := now.Sub(p.countedAt); passed >= countFor && p.counted >= countLeast {
		p.taken = float64(p.counted) / passed.Seconds()
		p.counted = 0
	}
}

// grow raises the rate with each event that the relay takes, so that at the full
// rate it grows by a part of itself each second, and one that is not used stays.
func (p *pacer) grow(now time.Time) {
	since := now.Sub(p.cutAt)
	if since < p.pause() {
		return
	}
	by := max(growSlow, growFast*min(p.rate/growEvents, 1))
	if p.rate >= nearLimit*p.ceiling {
		later := max(growLater.Seconds(), growLaterEvents/p.rate)
		by = min(by, growSlow*(1+since.Seconds()/later))
	}
	p.rate += by * min(p.rate, 1)
	if p.rate > maxPace {
		p.rate = 0
	}
}

// refused notes that the relay objected to the rate.
func (p *pacer) refused(now time.Time) {
	p.open--
	p.limited++
	p.window = max(p.window/2, 1)
	p.tokens = min(p.tokens, 0)
	if p.rate > 0 && now.Sub(p.cutAt) < p.pause() {
		return // the same excess
	}
	switch took := p.took(now); {
	case took > 0 && p.rate > 0:
		p.ceiling = min(took, p.rate)
	case took > 0:
		p.ceiling = took
	case p.rate > 0:
		p.ceiling = p.rate
	default: // it has taken next to nothing yet: nothing is known
		p.ceiling = maxPace
	}
	p.rate = max(cutTo*p.ceiling, minPace)
	if p.ceiling == maxPace {
		p.rate = firstPace
	}
	p.tokens, p.filled, p.cutAt = 0, now, now
	p.counted, p.taken = 0, 0
}

// pause is for how long after a cut objections are about what was sent before,
// and the rate does not grow.
func (p *pacer) pause() time.Duration {
	return max(cutPause, time.Duration(2/p.rate*float64(time.Second)))
}

// took is the rate at which the relay has taken events of late, or zero if
// those were too few to tell. Of a first burst that was over at once it believes
// that so many pass in a second, as most relays allow a second's or more at once:
// what was taken before says how little there was to send.
func (p *pacer) took(now time.Time) float64 {
	passed := now.Sub(p.countedAt)
	switch {
	case p.counted >= countLeast && passed >= countFor/4:
		return float64(p.counted) / passed.Seconds()
	case p.rate == 0 && p.counted >= countLeast:
		return max(p.taken, float64(p.counted)/countFor.Seconds())
	}
	return p.taken
}
