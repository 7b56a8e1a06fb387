package relayd

import "time"

// Rate bounds what somebody may do. An event beyond it is answered with OK false
// and rate-limited:, costs nothing further and is no fault; a request beyond it
// waits for its turn, and what the connection sends next behind it. The relay does
// not announce these bounds. The zero value bounds nothing.
type Rate struct {
	// Events a second, and how many at once; a burst of zero is one second's.
	Events     float64
	EventBurst int
	// Bytes of events' JSON a second, and how many at once; a burst of zero is
	// one second's. An event of Limits.MaxEvent bytes always fits a full burst.
	Bytes     float64
	ByteBurst int
	// Requests are REQ and COUNT a second, and how many at once; a burst of zero
	// is ten seconds'. An AUTH counts as an event.
	Requests     float64
	RequestBurst int
}

func (r Rate) unlimited() bool { return r.Events <= 0 && r.Bytes <= 0 && r.Requests <= 0 }

func (r Rate) limiter(maxEvent int, now time.Time) limiter {
	return limiter{
		events:   newBucket(r.Events, r.EventBurst, 1, now),
		bytes:    newBucket(r.Bytes, r.ByteBurst, maxEvent, now),
		requests: newBucket(r.Requests, r.RequestBurst, int(10*r.Requests), now),
	}
}

// limiter applies a Rate. It is not for concurrent use.
type limiter struct{ events, bytes, requests bucket }

const (
	tooManyEvents refusal = "rate-limited: too many events, slow down"
	tooManyBytes  refusal = "rate-limited: too many bytes, slow down"
)

// take admits an event of size bytes, or says why not. What is not admitted
// costs nothing, so that a client that tries too often still gets its rate.
func (l *limiter) take(size int, now time.Time) error {
	l.events.fill(now)
	l.bytes.fill(now)
	switch {
	case !l.events.has(1):
		return tooManyEvents
	case !l.bytes.has(size):
		return tooManyBytes
	}
	l.events.tokens--
	l.bytes.tokens -= float64(size)
	return nil
}

// request returns how long a request has to wait for its turn.
func (l *limiter) request(now time.Time) time.Duration {
	b := &l.requests
	if b.rate <= 0 {
		return 0
	}
	b.fill(now)
	b.tokens--
	return time.Duration(max(0, -b.tokens/b.rate) * float64(time.Second))
}

// full reports whether nothing is left of what was taken.
func (l *limiter) full(now time.Time) bool {
	for _, b := range []*bucket{&l.events, &l.bytes, &l.requests} {
		if b.fill(now); b.rate > 0 && b.tokens < b.burst {
			return false
		}
	}
	return true
}

// bucket is a token bucket; with a rate of zero it never runs out.
type bucket struct {
	rate, burst, tokens float64
	filled              time.Time
}

func newBucket(rate float64, burst, least int, now time.Time) bucket {
	most := float64(burst)
	if burst <= 0 {
		most = rate
	}
	most = max(most, float64(least))
	return bucket{rate: rate, burst: most, tokens: most, filled: now}
}

func (b *bucket) fill(now time.Time) {
	if passed := now.Sub(b.filled); passed > 0 {
		b.tokens = min(b.burst, b.tokens+b.rate*passed.Seconds())
		b.filled = now
	}
}

func (b *bucket) has(n int) bool { return b.rate <= 0 || b.tokens >= float64(n) }
