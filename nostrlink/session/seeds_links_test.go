package session

import (
	"math/rand/v2"
	"time"
)

// randomLink is one direction of a carrier that may do anything.
func randomLink(r *rand.Rand) *link {
	l := &link{
		rate:   float64(r.IntN(20)) * 1e6, // 0: without limit
		queue:  time.Duration(r.IntN(100)) * time.Millisecond,
		delay:  time.Duration(r.ExpFloat64() * 100e6),
		jitter: time.Duration(r.IntN(2)) * time.Duration(r.ExpFloat64()*300e6),
		order:  order(r.IntN(3)),
		loss:   float64(r.IntN(2)) * r.Float64() * 0.2,
		dup:    float64(r.IntN(2)) * r.Float64() * 0.3,
		ok:     time.Duration(1+r.IntN(200)) * time.Millisecond,
	}
	l.delay, l.jitter = min(l.delay, 1500*time.Millisecond), min(l.jitter, 3*time.Second)
	for at := time.Duration(0); r.IntN(3) == 0; {
		c := randomCut(r, at)
		l.cuts = append(l.cuts, c)
		at = c.to
	}
	if r.IntN(6) == 0 { // bursts of losses
		for range r.IntN(20) {
			at := time.Duration(r.Int64N(int64(30 * second)))
			l.cuts = append(l.cuts, cut{at, at + time.Duration(r.IntN(400))*time.Millisecond})
		}
	}
	if r.IntN(8) == 0 {
		l.stuck = []cut{randomCut(r, 0)}
	}
	if r.IntN(4) == 0 {
		l.limit, l.paced = 5+float64(r.IntN(100)), r.IntN(2) == 0
	}
	return l
}

func randomCut(r *rand.Rand, after time.Duration) cut {
	from := after + time.Duration(r.Int64N(int64(20*second)))
	return cut{from, from + time.Duration(r.Int64N(int64(60*second)))}
}

// randomLinks is one to four carriers, sometimes all cut off at once. Perfect
// ones are as fast and as far, but nothing goes wrong on them.
func randomLinks(r *rand.Rand, perfect bool) (links [][2]*link) {
	for range 1 + r.IntN(4) {
		links = append(links, [2]*link{randomLink(r), randomLink(r)})
	}
	all := randomCut(r, 0)
	blackout, mute := r.IntN(6) == 0, r.IntN(3) == 0
	for n := range links {
		for i, l := range links[n] {
			if blackout {
				l.cuts = append(l.cuts, all)
			}
			if mute {
				l.ok = 0
			}
			if perfect {
				links[n][i] = &link{rate: l.rate, queue: l.queue, delay: l.delay, ok: l.ok}
			}
		}
	}
	return links
}
