package session

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// order is how a simulated relay treats the order of packets.
type order int

const (
	inOrder  order = iota
	shuffled       // every packet on its own: late by up to jitter
	batched        // delivered together every 100 ms, in no order
)

// link is one direction of a simulated carrier.
type link struct {
	rate   float64       // bytes per second; 0 is without limit
	queue  time.Duration // how much it buffers before Send blocks
	delay  time.Duration
	jitter time.Duration
	order  order
	loss   float64
	dup    float64
	cuts   []cut
	stuck  []cut         // Send returns only at the end of these
	limit  float64       // packets per second that the first hop takes; 0: any
	paced  bool          // and the carrier keeps to it
	ok     time.Duration // the first hop reports what it took after this; 0: never

	free   time.Duration // when the sender is idle again
	last   time.Duration // newest delivery, for inOrder
	tokens float64       // up to a second's worth
	filled time.Duration // when tokens was right

	lost, refused uint64 // packets
}

// cut is a time in which nothing gets through.
type cut struct{ from, to time.Duration }

func (l *link) isCut(at time.Duration) bool {
	for _, c := range l.cuts {
		if at >= c.from && at < c.to {
			return true
		}
	}
	return false
}

// admit reports whether the first hop takes another packet now, by its limit.
func (l *link) admit(now time.Duration) bool {
	if l.limit == 0 {
		return true
	}
	if l.filled == 0 {
		l.tokens = l.limit
	}
	l.tokens = min(l.tokens+l.limit*(now-l.filled).Seconds(), l.limit)
	l.filled = max(now, 1)
	if l.tokens < 1 && !l.paced {
		return false
	}
	l.tokens--
	return true
}

// release is when Send returns that would at ready.
func (l *link) release(now, ready time.Duration) time.Duration {
	if l.paced && l.tokens < 0 {
		ready = max(ready, now+time.Duration(-l.tokens/l.limit*float64(time.Second)))
	}
	for _, c := range l.stuck {
		if now >= c.from && now < c.to {
			ready = max(ready, c.to)
		}
	}
	return ready
}

// arrivals says when a packet of n bytes handed over now arrives, possibly
// never, possibly more than once, and when Send returns.
func (l *link) arrivals(now time.Duration, n int, r *rand.Rand) (at []time.Duration, ready time.Duration) {
	start := max(now, l.free)
	if l.rate > 0 {
		l.free = start + time.Duration(float64(n+300)/l.rate*float64(time.Second))
	} else {
		l.free = start
	}
	ready = max(now, l.free-l.queue)
	copies := 1
	if r.Float64() < l.dup {
		copies = 2
	}
	for range copies {
		if r.Float64() < l.loss || l.isCut(start) {
			l.lost++
			continue
		}
		t := l.free + l.delay
		if l.jitter > 0 {
			t += time.Duration(r.Int64N(int64(l.jitter)))
		}
		switch l.order {
		case inOrder:
			t = max(t, l.last)
			l.last = t
		case batched:
			const every = 100 * time.Millisecond
			t = (t+every-1)/every*every + time.Duration(r.IntN(1000))
		}
		at = append(at, t)
	}
	return at, ready
}

// event is something that happens at a time.
type event struct {
	at  time.Duration
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// sim is two cores over simulated carriers in simulated time.
type sim struct {
	t      testing.TB
	r      *rand.Rand
	now    time.Duration
	seq    int
	events events
	ends   [2]*simEnd // dialer, listener
	spins  int        // events without time passing
	onOpen func(*stream)
	fail   string
}

type simEnd struct {
	sim   *sim
	core  *core
	paths []*pathState
	links []*link
	dirty []*simStream
	buf   []byte
	sends []uint64 // by path
}

// newSim joins two cores by carriers; links[i] is the pair of directions of
// the i-th: to the listener, and back.
func newSim(t testing.TB, seed uint64, cfg Config, maxPacket int, links ...[2]*link) *sim {
	s := &sim{t: t, r: rand.New(rand.NewPCG(seed, 1))}
	for i, role := range []Role{Dialer, Listener} {
		cfg := cfg
		cfg.Role = role
		e := &simEnd{sim: s, core: newCore(cfg, 0), buf: make([]byte, wire.MaxMessage)}
		for _, l := range links {
			e.paths = append(e.paths, e.core.attach(0, maxPacket))
			e.links = append(e.links, l[i])
		}
		s.ends[i] = e
	}
	return s
}

func (s *sim) at(t time.Duration, do func()) {
	s.seq++
	heap.Push(&s.events, event{max(t, s.now), s.seq, do})
}

// run plays until done says so or the time is up; it reports whether it was
// done.
func (s *sim) run(limit time.Duration, done func() bool) bool {
	for {
		s.settle()
		if s.fail != "" || done() {
			return s.fail == ""
		}
		at := never
		if len(s.events) > 0 {
			at = s.events[0].at
		}
		for _, e := range s.ends {
			at = min(at, e.core.deadline(s.now))
		}
		if at > limit {
			s.now = limit
			return false
		}
		if at <= s.now {
			if s.spins++; s.spins > 200000 {
				s.fail = fmt.Sprintf("livelock at %v", s.now)
				return false
			}
		} else {
			s.spins = 0
		}
		s.now = max(s.now, at)
		for _, e := range s.ends {
			if e.core.deadline(s.now) <= s.now {
				e.core.tick(s.now)
			}
		}
		for len(s.events) > 0 && s.events[0].at <= s.now {
			heap.Pop(&s.events).(event).do()
		}
	}
}

// settle lets applications and cores act until nothing more happens now.
func (s *sim) settle() {
	for again := true; again; {
		again = false
		for _, e := range s.ends {
			for len(e.core.requests) > 0 {
				st := e.core.requests[0]
				e.core.requests = e.core.requests[1:]
				s.onOpen(st)
				again = true
			}
			for len(e.dirty) > 0 {
				d := e.dirty
				e.dirty = nil
				for _, x := range d {
					x.dirty = false
					x.step()
				}
				again = true
			}
			if e.pump() {
				again = true
			}
		}
	}
}

// pump sends what the core has, and reports whether that was anything.
func (e *simEnd) pump() (any bool) {
	s := e.sim
	for i, p := range e.paths {
		for {
			b := e.core.next(s.now, p, e.buf)
			if b == nil {
				break
			}
			if len(b) > p.maxPacket {
				s.fail = fmt.Sprintf("packet of %d bytes, at most %d are allowed", len(b), p.maxPacket)
			}
			any = true
			e.transmit(i, p, append([]byte(nil), b...))
		}
	}
	return any
}

func (e *simEnd) transmit(i int, p *pathState, packet []byte) {
	s, l := e.sim, e.links[i]
	other := s.ends[1-int(e.core.cfg.Role)]
	admitted := l.admit(s.now)
	var arrivals []time.Duration
	ready := s.now
	if admitted {
		arrivals, ready = l.arrivals(s.now, len(packet), s.r)
	} else {
		l.refused++
	}
	ready = l.release(s.now, ready)
	for _, at := range arrivals {
		s.at(at, func() { other.core.receive(s.now, other.paths[i], packet) })
	}
	for len(e.sends) <= i {
		e.sends = append(e.sends, 0)
	}
	index := e.sends[i]
	e.sends[i]++
	switch {
	case !admitted:
		s.at(ready+max(l.ok, time.Millisecond), func() { e.core.rejected(s.now, p, index) })
	case l.ok > 0 && !l.isCut(s.now):
		s.at(ready+l.ok, func() { e.core.accepted(p, index) })
	}
	if ready > s.now {
		s.at(ready, func() { e.core.sent(s.now, p) })
	} else {
		e.core.sent(s.now, p)
	}
}
