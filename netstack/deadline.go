package netstack

import (
	"sync"
	"time"
)

// deadline is a point in time that can be waited for and moved meanwhile.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	moves  int           // how often it was set: a late timer is not the current one
	passed chan struct{} // closed when the deadline has passed
}

func newDeadline() deadline { return deadline{passed: make(chan struct{})} }

// set moves the deadline; the zero time means none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.moves++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.isPassed() {
		d.passed = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	if left := time.Until(t); left > 0 {
		move := d.moves
		d.timer = time.AfterFunc(left, func() { d.expire(move) })
		return
	}
	close(d.passed)
}

// expire is the timer of one set.
func (d *deadline) expire(move int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moves == move {
		close(d.passed)
	}
}

func (d *deadline) isPassed() bool {
	select {
	case <-d.passed:
		return true
	default:
		return false
	}
}

// done is closed when the deadline, as it is now, has passed.
func (d *deadline) done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}

// stop releases the timer.
func (d *deadline) stop() { d.set(time.Time{}) }

// deadlines are a connection's two: what it embeds for these methods of net.Conn.
type deadlines struct{ read, write deadline }

func newDeadlines() deadlines { return deadlines{newDeadline(), newDeadline()} }

// SetDeadline sets both deadlines; the zero time is none.
func (d *deadlines) SetDeadline(t time.Time) error {
	d.read.set(t)
	d.write.set(t)
	return nil
}

// SetReadDeadline makes reads fail after t.
func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.read.set(t)
	return nil
}

// SetWriteDeadline makes writes fail after t.
func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.write.set(t)
	return nil
}

// stop releases the timers.
func (d *deadlines) stop() {
	d.read.stop()
	d.write.stop()
}
