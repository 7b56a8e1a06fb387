package session

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// TestSpansModel compares spans with a bitmap under random operations.
func TestSpansModel(t *testing.T) {
	const size = 200
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		var s spans
		var model [size]bool
		for range 200 {
			lo := r.IntN(size)
			hi := lo + r.IntN(min(30, size-lo)+1)
			set := r.IntN(3) > 0
			if set {
				s.add(uint64(lo), uint64(hi))
			} else {
				s.remove(uint64(lo), uint64(hi))
			}
			for i := lo; i < hi; i++ {
				model[i] = set
			}
			checkSpans(t, s, model[:])
			lo = r.IntN(size)
			checkGap(t, s, model[:], lo, lo+r.IntN(size-lo+1))
		}
	}
}

func checkSpans(t *testing.T, s spans, model []bool) {
	t.Helper()
	total := 0
	for i, want := range model {
		if s.has(uint64(i)) != want {
			t.Fatalf("%v: has(%d) is %v", s, i, !want)
		}
		if want {
			total++
		}
	}
	if s.total() != uint64(total) {
		t.Fatalf("%v: total %d, want %d", s, s.total(), total)
	}
	for i, x := range s {
		if x.lo >= x.hi || i > 0 && s[i-1].hi >= x.lo {
			t.Fatalf("%v is not in order", s)
		}
	}
}

func checkGap(t *testing.T, s spans, model []bool, lo, hi int) {
	t.Helper()
	from := lo
	for from < hi && model[from] {
		from++
	}
	to := from
	for to < hi && !model[to] {
		to++
	}
	g := s.gap(uint64(lo), uint64(hi))
	if from < to && (g != span{uint64(from), uint64(to)}) || from == to && g.lo != g.hi {
		t.Fatalf("%v: gap(%d, %d) is %v, want %d … %d", s, lo, hi, g, from, to)
	}
	touches := false
	for i := max(0, lo-1); i < min(hi+1, len(model)); i++ {
		touches = touches || model[i]
	}
	if lo < hi && s.touches(uint64(lo), uint64(hi)) != touches {
		t.Fatalf("%v: touches(%d, %d) is %v", s, lo, hi, !touches)
	}
}

// TestBufferModel compares a buffer with a slice of bytes: pieces are put in
// random order, read and released.
func TestBufferModel(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 0))
		const size = 5 * cellSize
		base := r.Uint64N(3 * cellSize)
		var b buffer
		var got spans
		read := base
		for read < base+size {
			if r.IntN(20) == 0 {
				b.pinned = !b.pinned
			}
			lo := read + r.Uint64N(base+size-read)
			n := r.Uint64N(min(base+size-lo, 1<<r.IntN(18)) + 1)
			for hi := lo + n; ; { // only what is new, as the owner does
				g := got.gap(lo, hi)
				if g.lo == g.hi {
					break
				}
				b.put(g.lo, patternBytes(1, g.lo, int(g.hi-g.lo)))
				got.add(g.lo, g.hi)
			}
			for got.has(read) && r.IntN(4) > 0 {
				g := got.gap(read, base+size)
				n := int(min(g.lo-read, 1+r.Uint64N(100000)))
				if !bytes.Equal(b.appendTo(nil, read, n), patternBytes(1, read, n)) {
					t.Fatalf("seed %d: wrong bytes at %d", seed, read)
				}
				piece := b.slice(read, n)
				if !bytes.Equal(piece, patternBytes(1, read, len(piece))) {
					t.Fatalf("seed %d: wrong slice at %d", seed, read)
				}
				read += uint64(len(piece))
				b.release(read)
			}
			if b.held() > size+2*cellSize {
				t.Fatalf("seed %d: %d bytes held", seed, b.held())
			}
		}
		b.clear()
		if b.held() != 0 {
			t.Fatalf("seed %d: %d bytes held by an empty buffer", seed, b.held())
		}
	}
}

// model is what a stream must do, as simply as it can be said: one list of
// bytes each way, with an end.
type model struct {
	written [2]uint64 // by end
	read    [2]uint64 // by end
	closed  [2]bool   // no more will be written
	aborted bool      // by anybody: then only what is read is checked
	eof     [2]bool
}

// modelRun is two cores, the packets between them in a bag, and a stream with
// its model.
type modelRun struct {
	t     *testing.T
	seed  uint64
	r     *rand.Rand
	now   time.Duration
	ends  [2]*core
	paths [2]*pathState
	st    [2]*stream
	bag   [][2]any // to which end, packet
	m     model
	buf   [1 << 16]byte
}

// TestStreamModel drives one stream at random, packets delivered in any order,
// lost and repeated, and compares every step with the model.
func TestStreamModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		m := &modelRun{t: t, seed: seed, r: r}
		limits := Limits{Window: 1 << 20, StreamWindow: 64<<10 + r.Uint64N(1<<17)}
		for i, role := range []Role{Dialer, Listener} {
			m.ends[i] = newCore(Config{Role: role, Local: limits, Peer: limits, DeadAfter: time.Hour}, 0)
			m.paths[i] = m.ends[i].attach(0, 1024+r.IntN(20000))
		}
		first := patternBytes(0, 0, r.IntN(3)*r.IntN(2000))
		st, err := m.ends[0].dial(wire.NetworkTCP, "a:1", [16]byte{}, first)
		if err != nil {
			t.Fatal(err)
		}
		m.st[0], m.m.written[0] = st, uint64(len(first))
		for range 600 {
			m.step()
			if t.Failed() {
				return
			}
		}
		m.finish()
		if t.Failed() {
			return
		}
	}
}

func (m *modelRun) errorf(format string, args ...any) {
	m.t.Helper()
	m.t.Errorf("seed %d at %v: %s", m.seed, m.now, fmt.Sprintf(format, args...))
}

// step does one thing at random.
func (m *modelRun) step() {
	e := m.r.IntN(2)
	c, st := m.ends[e], m.st[e]
	switch k := m.r.IntN(100); {
	case k < 40:
		m.deliver(0.1)
	case k < 55:
		m.now += time.Duration(m.r.IntN(50)) * time.Millisecond
		m.turn()
	case st == nil:
		if r := c.nextRequest(); r != nil {
			m.st[e] = r
			if c.accept(r) != nil {
				m.errorf("accept failed")
			}
		}
	case k < 75:
		m.write(e)
	case k < 96:
		m.readSome(e)
	case k < 98:
		if st.phase == opened || e == 0 {
			c.closeWrite(st)
			m.m.closed[e] = true
		}
	default:
		if m.r.IntN(20) == 0 {
			c.reset(st, wire.CodeReset, "")
			m.m.aborted = true
		}
	}
	m.turn()
}

// turn lets both cores send and keep time.
func (m *modelRun) turn() {
	for e, c := range m.ends {
		if c.deadline(m.now) <= m.now {
			c.tick(m.now)
		}
		for b := c.next(m.now, m.paths[e], m.buf[:]); b != nil; b = c.next(m.now, m.paths[e], m.buf[:]) {
			c.sent(m.now, m.paths[e])
			m.bag = append(m.bag, [2]any{1 - e, bytes.Clone(b)})
		}
		if c.err != nil {
			m.errorf("end %d: %v", e, c.err)
		}
	}
}

// deliver takes a packet out of the bag, or leaves it there to come again, or
// loses it.
func (m *modelRun) deliver(loss float64) {
	if len(m.bag) == 0 {
		return
	}
	i := m.r.IntN(len(m.bag))
	x := m.bag[i]
	if m.r.IntN(10) > 0 {
		m.bag[i] = m.bag[len(m.bag)-1]
		m.bag = m.bag[:len(m.bag)-1]
	}
	if m.r.Float64() < loss {
		return
	}
	e := x[0].(int)
	m.ends[e].receive(m.now, m.paths[e], x[1].([]byte))
}

func (m *modelRun) write(e int) {
	c, st := m.ends[e], m.st[e]
	if st.phase != opened && e != 0 {
		return
	}
	n := c.write(st, patternBytes(byte(e), m.m.written[e], m.r.IntN(1<<m.r.IntN(17))))
	if n > 0 && (m.m.closed[e] || st.err != nil) {
		m.errorf("end %d wrote %d bytes to a closed stream", e, n)
	}
	m.m.written[e] += uint64(n)
}

func (m *modelRun) readSome(e int) {
	c, st, other := m.ends[e], m.st[e], 1-e
	b := c.readable(st, 1+m.r.IntN(1<<m.r.IntN(18)))
	if len(b) > 0 {
		if !bytes.Equal(b, patternBytes(byte(other), m.m.read[e], len(b))) {
			m.errorf("end %d read wrong bytes at %d", e, m.m.read[e])
		}
		m.m.read[e] += uint64(len(b))
		c.consume(m.now, st, len(b))
	}
	if m.m.read[e] > m.m.written[other] {
		m.errorf("end %d read %d bytes, %d were written", e, m.m.read[e], m.m.written[other])
	}
	if st.in.atEnd() && st.in.err == nil && !st.in.discard {
		m.m.eof[e] = true
		if !m.m.closed[other] || m.m.read[e] != m.m.written[other] {
			m.errorf("end %d is at the end after %d of %d bytes (closed: %v)", e, m.m.read[e], m.m.written[other], m.m.closed[other])
		}
	}
}

// finish ends both directions and delivers until nothing is left.
func (m *modelRun) finish() {
	for range 5000 {
		for e, c := range m.ends {
			if m.st[e] == nil {
				if r := c.nextRequest(); r != nil {
					m.st[e] = r
					c.accept(r)
				}
				continue
			}
			if m.st[e].phase == opened && !m.m.closed[e] {
				c.closeWrite(m.st[e])
				m.m.closed[e] = true
			}
			m.readSome(e)
		}
		m.now += 20 * time.Millisecond
		m.turn()
		for range 20 {
			m.deliver(0)
		}
		if m.ends[0].open+m.ends[1].open == 0 && m.m.read[0]+m.m.read[1] == m.m.written[0]+m.m.written[1] {
			break
		}
	}
	if n := m.ends[0].open + m.ends[1].open; n > 0 {
		m.errorf("%d ends of streams are left", n)
	}
	if !m.m.aborted && (m.m.read[0] != m.m.written[1] || m.m.read[1] != m.m.written[0] || !m.m.eof[0] || !m.m.eof[1]) {
		m.errorf("read %v of %v, ends seen: %v", m.m.read, m.m.written, m.m.eof)
	}
	for e, c := range m.ends {
		if st := m.st[e]; st != nil {
			c.close(m.now, st)
		}
		if o := m.ends[1-e]; c.txSent != o.rxHighest || o.rxRead != o.rxHighest {
			m.errorf("end %d: credit: sent %d, counted %d, given back %d", e, c.txSent, o.rxHighest, o.rxRead)
		}
	}
}
