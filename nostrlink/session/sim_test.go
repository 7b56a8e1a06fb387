package session

import (
	"bytes"
	"container/heap"
	"encoding/binary"
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
	ok     time.Duration // the first hop reports what it took after this; 0: never

	free time.Duration // when the sender is idle again
	last time.Duration // newest delivery, for inOrder
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
	arrivals, ready := l.arrivals(s.now, len(packet), s.r)
	for _, at := range arrivals {
		s.at(at, func() { other.core.receive(s.now, other.paths[i], packet) })
	}
	if l.ok > 0 && !l.isCut(s.now) {
		s.at(ready+l.ok, func() { e.core.accepted(p, 1) })
	}
	if ready > s.now {
		s.at(ready, func() { e.core.sent(p) })
	} else {
		e.core.sent(p)
	}
}

// simStream is an application at one end of a stream: it writes total bytes of
// a pattern that both ends can compute, ends its direction, and checks what it
// reads.
type simStream struct {
	end   *simEnd
	st    *stream
	dirty bool

	total   uint64
	written uint64
	piece   int           // bytes a write; 0: as many as are taken
	every   time.Duration // between writes
	nextAt  time.Duration

	read     uint64
	readRate float64 // bytes per second; 0: at once
	readAt   time.Duration
	eof      bool
	err      error
	salt     byte // of what it writes
	peerSalt byte
	onRead   func(n int)
}

func (e *simEnd) app(st *stream, total uint64, salt, peerSalt byte) *simStream {
	x := &simStream{end: e, st: st, total: total, salt: salt, peerSalt: peerSalt}
	st.owner = x
	x.mark()
	return x
}

func (x *simStream) wakeReader() { x.mark() }
func (x *simStream) wakeWriter() { x.mark() }
func (x *simStream) mark() {
	if !x.dirty {
		x.dirty = true
		x.end.dirty = append(x.end.dirty, x)
	}
}

// patternSize is a prime, so that no offset looks like another cell's.
const patternSize = 65537

var patternTable = func() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	t := make([]byte, patternSize, 2*patternSize+cellSize)
	for i := range t {
		t[i] = byte(r.Uint32())
	}
	for len(t) < cap(t) {
		t = append(t, t[:min(patternSize, cap(t)-len(t))]...)
	}
	return t
}()

// patternBytes is n bytes from an offset on of the stream with this salt.
func patternBytes(salt byte, off uint64, n int) []byte {
	at := (off + 1009*uint64(salt)) % patternSize
	if n <= cellSize {
		return patternTable[at:][:n]
	}
	b := make([]byte, 0, n)
	for len(b) < n {
		b = append(b, patternBytes(salt, off+uint64(len(b)), min(cellSize, n-len(b)))...)
	}
	return b
}

func (x *simStream) step() {
	x.doWrite()
	x.doRead()
}

func (x *simStream) doWrite() {
	c, s := x.end.core, x.end.sim
	if x.st.phase != opened || x.st.err != nil {
		return
	}
	for x.written < x.total && s.now >= x.nextAt {
		n := 64 << 10
		if x.piece > 0 {
			n = x.piece
		}
		n = int(min(uint64(n), x.total-x.written))
		n = c.write(x.st, patternBytes(x.salt, x.written, n))
		x.written += uint64(n)
		if n == 0 {
			return
		}
		if x.every > 0 {
			x.nextAt = s.now + x.every
			s.at(x.nextAt, x.mark)
		}
	}
	if x.written == x.total {
		c.closeWrite(x.st)
	}
}

func (x *simStream) doRead() {
	c, s := x.end.core, x.end.sim
	for !x.eof && s.now >= x.readAt {
		limit := 64 << 10
		if x.readRate > 0 {
			limit = 8 << 10
		}
		b := c.readable(x.st, limit)
		if len(b) == 0 {
			break
		}
		if !bytes.Equal(b, patternBytes(x.peerSalt, x.read, len(b))) {
			s.fail = fmt.Sprintf("stream %d: wrong bytes from %d on", x.st.id, x.read)
			return
		}
		x.read += uint64(len(b))
		if x.readRate > 0 {
			x.readAt = s.now + time.Duration(float64(len(b))/x.readRate*float64(time.Second))
			s.at(x.readAt, x.mark)
		}
		n := len(b)
		c.consume(s.now, x.st, n)
		if x.onRead != nil {
			x.onRead(n)
		}
	}
	if x.st.in.atEnd() && !x.eof {
		x.eof, x.err = true, x.st.in.err
	}
}

// open dials a stream from the dialer; the listener's application gets its
// number in the destination.
func (s *sim) open(number int, total uint64) *simStream {
	return s.openWith(number, total, 0)
}

// openWith is open with so many of the bytes in the OPEN.
func (s *sim) openWith(number int, total uint64, first int) *simStream {
	data := patternBytes(byte(number), 0, first)
	st := s.dial(wire.NetworkTCP, number, data)
	if st == nil {
		return nil
	}
	x := s.ends[0].app(st, total, byte(number), ^byte(number))
	x.written = uint64(first)
	return x
}

func (s *sim) dial(network wire.Network, number int, first []byte) *stream {
	var dest [4]byte
	binary.BigEndian.PutUint32(dest[:], uint32(number))
	st, err := s.ends[0].core.dial(network, string(dest[:]), [16]byte{}, first)
	if err != nil {
		s.fail = fmt.Sprintf("dial: %v", err)
	}
	return st
}

// join adds a carrier.
func (s *sim) join(maxPacket int, l [2]*link) {
	for i, e := range s.ends {
		e.paths = append(e.paths, e.core.attach(s.now, maxPacket))
		e.links = append(e.links, l[i])
	}
}

// simFlow is an application at one end of a flow of datagrams: it sends some
// and checks those it gets.
type simFlow struct {
	end      *simEnd
	st       *stream
	salt     byte
	sent     int
	received int
	seen     map[int]bool
}

func (e *simEnd) flow(st *stream, salt byte) *simFlow {
	x := &simFlow{end: e, st: st, salt: salt, seen: map[int]bool{}}
	st.owner = x
	return x
}

func (x *simFlow) send(size int) {
	if x.st.err != nil || x.st.gone {
		return
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(x.sent))
	x.end.core.sendDatagram(x.st, append(b, patternBytes(x.salt, uint64(x.sent), size)...))
	x.sent++
}

func (x *simFlow) wakeWriter() {}
func (x *simFlow) wakeReader() {
	for d, ok := x.end.core.takeDatagram(x.st); ok; d, ok = x.end.core.takeDatagram(x.st) {
		n := int(binary.BigEndian.Uint32(d))
		if x.seen[n] || !bytes.Equal(d[4:], patternBytes(^x.salt, uint64(n), len(d)-4)) {
			x.end.sim.fail = fmt.Sprintf("flow %d: datagram %d came twice or wrong", x.st.id, n)
		}
		x.seen[n] = true
		x.received++
	}
}

func numberOf(st *stream) int { return int(binary.BigEndian.Uint32([]byte(st.dest))) }
