package relay

import (
	"slices"
	"sync"
	"time"
)

// pending is the publishes that wait for the relay's OK, oldest first. The
// connection's window bounds it. It takes the same event twice.
type pending struct {
	mu     sync.Mutex
	list   []publish
	last   uint64 // number of the newest
	closed bool
}

type publish struct {
	number uint64
	id     [32]byte
	sent   time.Time
	onOK   func(accepted bool, reason string)
}

// add notes a publish and returns its number, or 0 when the connection has
// ended.
func (p *pending) add(e publish) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0
	}
	p.last++
	e.number = p.last
	p.list = append(p.list, e)
	return e.number
}

// take removes the oldest publish of that event.
func (p *pending) take(id [32]byte) (publish, bool) {
	return p.remove(func(e publish) bool { return e.id == id })
}

// withdraw removes the publish with that number, which was not sent.
func (p *pending) withdraw(number uint64) bool {
	_, found := p.remove(func(e publish) bool { return e.number == number })
	return found
}

func (p *pending) remove(is func(publish) bool) (publish, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.list, is)
	if i < 0 {
		return publish{}, false
	}
	e := p.list[i]
	p.list = slices.Delete(p.list, i, i+1)
	return e, true
}

// expired removes and returns what was sent before a point in time.
func (p *pending) expired(before time.Time) []publish {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.list) && p.list[n].sent.Before(before) {
		n++
	}
	gone := slices.Clone(p.list[:n])
	p.list = slices.Delete(p.list, 0, n)
	return gone
}

// oldest is when the oldest publish was sent.
func (p *pending) oldest() (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) == 0 {
		return time.Time{}, false
	}
	return p.list[0].sent, true
}

// close removes and returns everything; nothing is taken from then on.
func (p *pending) close() []publish {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	list := p.list
	p.list = nil
	return list
}
