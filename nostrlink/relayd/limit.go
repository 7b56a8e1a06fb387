package relayd

import "time"

// Rate bounds what one connection may publish. What goes beyond is answered with
// OK false and rate-limited:, costs nothing further and is no fault; the relay
// does not announce these bounds. The zero value bounds nothing.
type Rate struct {
	// Events a second, and how many at once; a burst of zero is one second's.
	Events     float64
	EventBurst int
	// Bytes of events' JSON a second, and how many at once; a burst of zero is
	// one second's. An event of Limits.MaxEvent bytes always fits a full burst.
	Bytes     float64
	ByteBurst int
}

func (r Rate) limiter(maxEvent int, now time.Time) limiter {
	return limiter{
		events: newBucket(r.Events, r.EventBurst, 1, now),
		bytes:  newBucket(r.Bytes, r.ByteBurst, maxEvent, now),
	}
}

// limiter applies a Rate to one connection. It belongs to its reader.
type limiter struct{ events, bytes bucket }

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
