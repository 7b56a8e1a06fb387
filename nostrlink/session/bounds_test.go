package session

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// TestWriterBounds holds that writers cannot make the session buffer more than
// it may, and that each of many gets something in.
func TestWriterBounds(t *testing.T) {
	c := newCore(Config{SendBuffer: 1 << 20}, 0)
	big := make([]byte, 1<<20)
	for i := range 100 {
		s, err := c.dial(wire.NetworkTCP, "a:1", [16]byte{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.phase = opened
		n := c.write(s, big)
		if n < unsentFair || n > unsentLimit {
			t.Errorf("writer %d got %d bytes in", i, n)
		}
	}
	if c.unsent > 1<<20+100*unsentFair {
		t.Errorf("%d bytes buffered", c.unsent)
	}
	c.fail(errors.New("over"), nil)
	if c.unsent != 0 || c.open != 0 {
		t.Errorf("after the end %d bytes are buffered, %d streams open", c.unsent, c.open)
	}
}

// greedy is a listener whose only stream always has more to write, and whose
// peer grants all the credit there is.
func greedy(t *testing.T) (*peer, *stream) {
	p := openedPeer(t)
	const all = 1<<62 - 1
	p.send(wire.Frame{Type: wire.FrameMaxData, MaxData: wire.MaxData{Limit: all}},
		wire.Frame{Type: wire.FrameMaxData, MaxData: wire.MaxData{ID: 1, Limit: all}})
	return p, p.core.streams[1]
}

// play writes and sends for a while; answer is called with each packet.
func (p *peer) play(s *stream, steps int, answer func(number uint64)) (held int) {
	data := make([]byte, 256<<10)
	for range steps {
		p.core.write(s, data)
		p.now += 10 * time.Millisecond
		if p.core.deadline(p.now) <= p.now {
			p.core.tick(p.now)
		}
		p.flush()
		for _, b := range p.out {
			if h, _, err := wire.ParseHeader(b); err == nil {
				answer(h.Number)
			}
		}
		p.out = p.out[:0]
		held = max(held, s.out.buf.held())
	}
	return held
}

// TestHeld holds that a peer which acknowledges everything but the first byte
// does not make us keep what it has without end.
func TestHeld(t *testing.T) {
	p, s := greedy(t)
	held := p.play(s, 3000, func(n uint64) {
		k := p.core.ring.find(n)
		for k != nil && len(k.frames) > 0 && k.frames[0].off > 0 {
			p.send(ackFrame(wire.AckRange{Smallest: n, Largest: n}))
			return
		}
	})
	if most := maxHeld + unsentLimit + 2*cellSize; held > most || held < maxHeld/2 {
		t.Errorf("%d bytes held, at most %d are allowed", held, most)
	}
	if p.core.err != nil {
		t.Error(p.core.err)
	}
}

// TestNeverAcknowledged holds that a peer which acknowledges nothing gets few
// packets, and is given up.
func TestNeverAcknowledged(t *testing.T) {
	p, s := greedy(t)
	packets := 0
	held := p.play(s, int((DefaultDeadAfter+2*time.Second)/(10*time.Millisecond)), func(uint64) { packets++ })
	if !errors.Is(p.core.err, ErrPeerSilent) {
		t.Errorf("after %v: %v", p.now, p.core.err)
	}
	if packets > 200 || held > 4<<20 {
		t.Errorf("%d packets sent, %d bytes held", packets, held)
	}
}

// TestPingFlood holds that a flood of packets that ask for answers gets few.
func TestPingFlood(t *testing.T) {
	p := openedPeer(t)
	const n = 20000
	r := rand.New(rand.NewPCG(1, 1))
	p.out = p.out[:0]
	for range n {
		p.next += r.Uint64N(3) // with gaps
		p.send(wire.Frame{Type: wire.FramePing})
		p.now += 100 * time.Microsecond
		p.core.deadline(p.now)
		p.flush()
	}
	if len(p.out) > n/10 || len(p.core.rx.runs) > maxReceived || p.core.err != nil {
		t.Errorf("%d packets answered %d, %d runs kept, %v", len(p.out), n, len(p.core.rx.runs), p.core.err)
	}
}

// TestFirstHopLies holds that what a relay says about packets it never got, or
// has answered before, is ignored.
func TestFirstHopLies(t *testing.T) {
	p, s := greedy(t)
	r := rand.New(rand.NewPCG(1, 1))
	p.play(s, 200, func(n uint64) {
		for range 4 {
			switch index := p.path.hop.next() - 20 + r.Uint64N(40); r.IntN(3) {
			case 0:
				p.core.accepted(p.path, index)
			case 1:
				p.core.rejected(p.now, p.path, index)
			default:
				p.core.rejected(p.now, p.path, r.Uint64())
			}
		}
	})
	if p.path.hop.waiting < 0 || p.path.inflight < 0 || p.core.err != nil {
		t.Errorf("%d packets wait for an answer, %d bytes in flight, %v", p.path.hop.waiting, p.path.inflight, p.core.err)
	}
	for range 3 * maxUnanswered { // one that says nothing is not remembered for ever
		p.path.hop.sent(1)
	}
	if n := len(p.path.hop.numbers); n > maxUnanswered || p.path.hop.waiting > n {
		t.Errorf("%d packets kept, %d wait", n, p.path.hop.waiting)
	}
}
