package nostrlink

import (
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// toll asks strangers for work (NIP-13) when they greet faster than they can be
// listened to: what costs the exit a signature and a key agreement then costs
// them some thousands of hashes and more. It is safe for concurrent use.
type toll struct {
	busy  int // greetings a second that are no trouble
	least int // work that is always asked for
	// full is how much of the room for sessions, and for greetings that are
	// remembered, is taken: from 0 to 1. nil: none.
	full func() float64

	mu           sync.Mutex
	work         int // leading zero bits of the event's id
	since        time.Time
	paid, turned int
}

const (
	// defaultBusy is what zero Busy stands for: 200 handshakes take some 6 % of
	// one core.
	defaultBusy = 200
	// firstWork is asked for first, a few milliseconds of work, then more by
	// steps, up to some seconds.
	firstWork, workStep, mostWork = 12, 2, 22
	// maxTold is how many of those who did not work are told, in a second, what
	// it takes: which is work too, and how fast all clients come back to an exit
	// that was gone.
	maxTold = 100
)

// pass reports whether an event of a stranger is looked at. Some of those without
// the work are, to be told of it.
func (t *toll) pass(ev *envelope.Event, now time.Time) bool {
	t.mu.Lock()
	t.turn(now)
	t.mu.Unlock()
	work := t.asked()
	// What an id shows is nothing before it is known to be the event's.
	paid := work == 0 || envelope.Work(ev.ID) >= work && ev.CheckID() == nil
	t.mu.Lock()
	defer t.mu.Unlock()
	if paid {
		if t.paid++; t.paid > t.busy && t.work == 0 {
			t.work, t.paid = firstWork, 0 // a second is long enough to take all sessions
		}
		return true
	}
	t.turned++
	return t.turned <= maxTold
}

// turn adjusts the work once a second.
func (t *toll) turn(now time.Time) {
	passed := now.Sub(t.since)
	if passed >= 0 && passed < time.Second {
		return
	}
	switch calm := t.paid+t.turned <= t.busy/4 || passed >= time.Minute; {
	case t.paid > t.busy:
		t.work = min(t.work+workStep, mostWork)
	case calm && t.work <= firstWork:
		t.work = 0
	case calm:
		t.work -= workStep
	}
	t.since, t.paid, t.turned = now, 0, 0
}

// crowdWork is asked for when room runs short, however slowly that came about:
// who wants to take all of it shall pay for it.
func (t *toll) crowdWork() int {
	if t.full == nil {
		return 0
	}
	switch full := t.full(); {
	case full >= 0.9:
		return mostWork - workStep
	case full >= 0.75:
		return firstWork + 2*workStep
	case full >= 0.5:
		return firstWork
	}
	return 0
}

// asked is the work that is asked for now.
func (t *toll) asked() int {
	crowd := t.crowdWork()
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(t.work, t.least, crowd)
}

// effort is the work that an entry does for its greetings. It is safe for
// concurrent use.
type effort struct {
	mu    sync.Mutex
	work  int
	grown chan struct{} // closed and replaced when there is more to do
}

func newEffort() effort { return effort{grown: make(chan struct{})} }

// raise has at least so much work be done from now on.
func (e *effort) raise(work int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if work <= e.work {
		return
	}
	e.work = work
	close(e.grown)
	e.grown = make(chan struct{})
}

func (e *effort) bits() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.work
}

// more is closed when there is more to do than now.
func (e *effort) more() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.grown
}
