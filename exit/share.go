package exit

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// share divides a rate among clients: those who want more than there is get the
// same, however many flows each has and however much each asks for at a time.
// What one does not use is the others'. It is deficit round robin over a token
// bucket: whoever's turn it is gets credit, and needs no turn until that is
// spent. It is safe for concurrent use.
type share struct {
	mu      sync.Mutex
	rate    float64 // bytes a second
	burst   float64
	quantum int     // bytes of credit for a turn
	tokens  float64 // may be in debt, by one turn
	filled  time.Time
	ring    *list.List // of *shareOf that have somebody waiting
	timer   *time.Timer
}

// shareOf is one client's place.
type shareOf struct {
	waiting list.List // of *shareTurn
	place   *list.Element
	credit  int
}

type shareTurn struct {
	n       int
	granted chan struct{}
}

const (
	// leastQuantum and mostQuantum bound a turn; between them it is a 64th of a
	// second.
	leastQuantum, mostQuantum = 4 << 10, 64 << 10
	// leastBurst lets a datagram or a full buffer of any flow pass at once.
	leastBurst = 128 << 10
)

// newShare divides rate, in bytes a second, above zero.
func newShare(rate int64) *share {
	return &share{
		rate: float64(rate), burst: max(float64(rate)/8, leastBurst),
		quantum: int(min(max(rate/64, leastQuantum), mostQuantum)),
		tokens:  leastBurst, filled: time.Now(), ring: list.New(),
	}
}

// take waits until n bytes of c may pass, or until ctx ends; then they do not.
func (s *share) take(ctx context.Context, c *shareOf, n int) error {
	s.mu.Lock()
	s.fill()
	switch {
	case c.credit >= n && c.place == nil:
		c.credit -= n
		s.mu.Unlock()
		return nil
	case s.ring.Len() == 0 && s.tokens > 0:
		s.tokens -= float64(n - c.credit)
		c.credit = 0
		s.mu.Unlock()
		return nil
	}
	turn := &shareTurn{n, make(chan struct{})}
	at := c.waiting.PushBack(turn)
	if c.place == nil {
		c.place = s.ring.PushBack(c)
	}
	s.arm()
	s.mu.Unlock()
	select {
	case <-turn.granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-turn.granted: // what was granted is spent, used or not
	default:
		c.waiting.Remove(at)
		s.leave(c)
	}
	return ctx.Err()
}

// leave takes a client out of the ring that has nobody waiting.
func (s *share) leave(c *shareOf) {
	if c.waiting.Len() == 0 && c.place != nil {
		s.ring.Remove(c.place)
		c.place, c.credit = nil, min(c.credit, s.quantum)
	}
}

func (s *share) fill() {
	now := time.Now()
	s.tokens = min(s.burst, s.tokens+s.rate*now.Sub(s.filled).Seconds())
	s.filled = now
}

// arm has grant called when there are tokens again.
func (s *share) arm() {
	if s.timer != nil {
		return
	}
	wait := time.Duration((1 - s.tokens) / s.rate * float64(time.Second))
	s.timer = time.AfterFunc(max(wait, time.Millisecond), s.grant)
}

// grant gives turns while there are tokens.
func (s *share) grant() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = nil
	s.fill()
	for s.tokens > 0 && s.ring.Len() > 0 {
		c := s.ring.Front().Value.(*shareOf)
		s.tokens -= float64(s.quantum)
		c.credit += s.quantum
		for first := c.waiting.Front(); first != nil && first.Value.(*shareTurn).n <= c.credit; first = c.waiting.Front() {
			turn := c.waiting.Remove(first).(*shareTurn)
			c.credit -= turn.n
			close(turn.granted)
		}
		s.ring.MoveToBack(c.place)
		s.leave(c)
	}
	if s.ring.Len() > 0 {
		s.arm()
	}
}
