package session

import (
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// FuzzReceive throws arbitrary frames at a listener and a dialer with streams
// open: nothing may panic, and what is kept stays bounded.
func FuzzReceive(f *testing.F) {
	seed := func(frames ...wire.Frame) {
		var b []byte
		for _, x := range frames {
			b = x.Append(b)
		}
		f.Add(b)
	}
	seed(openFrame(2), dataFrame(1, 0, "hello"), finFrame(1, 5, ""))
	seed(resetFrame(1, 4), resetFrame(3, 0), ackFrame(wire.AckRange{}))
	seed(dataFrame(1, 3, "x"), resetFrame(2, 0), dataFrame(2, 0, "late"))
	seed(wire.Frame{Type: wire.FrameStop, Stop: wire.Stop{ID: 1}}, wire.Frame{Type: wire.FrameMaxData, MaxData: wire.MaxData{Limit: 1 << 40}})
	seed(wire.Frame{Type: wire.FrameMaxData, MaxData: wire.MaxData{ID: 1, Limit: 1 << 40}}, wire.Frame{Type: wire.FrameOpened, Opened: wire.Opened{ID: 2, Window: 9}})
	seed(wire.Frame{Type: wire.FrameRefuse, Refuse: wire.Refuse{ID: 2}}, wire.Frame{Type: wire.FrameDatagram, Datagram: wire.Datagram{ID: 3, Data: []byte("x")}})
	seed(wire.Frame{Type: wire.FramePing}, wire.Frame{Type: wire.FrameClose, Close: wire.Close{Code: 3}})
	f.Fuzz(func(t *testing.T, frames []byte) {
		l := openedPeer(t)
		d := newPeer(t, Config{})
		d.core.dial(wire.NetworkTCP, "a:1", [16]byte{}, []byte("first"))
		d.core.dial(wire.NetworkTCP, "b:1", [16]byte{}, nil)
		d.core.dial(wire.NetworkUDP, "c:1", [16]byte{}, []byte("first"))
		d.flush()
		for _, p := range []*peer{l, d} {
			for i, c := range []int{0, len(frames) / 2} { // whole, then its halves
				if i == 0 {
					p.sendRaw(frames)
				}
				p.sendRaw(frames[:c])
				p.sendRaw(frames[c:])
			}
			p.write()
			for range 50 {
				p.now += 100 * time.Millisecond
				p.flush()
				if p.core.deadline(p.now) <= p.now {
					p.core.tick(p.now)
				}
			}
			p.checkBounds()
		}
	})
}

// write lets the applications of all streams write, read and close.
func (p *peer) write() {
	for _, s := range p.core.streams {
		if s.dg == nil && s.phase == opened {
			p.core.write(s, []byte("hello"))
			if b := p.core.readable(s, 100); len(b) > 0 {
				p.core.consume(p.now, s, len(b))
			}
		}
	}
	for r := p.core.nextRequest(); r != nil; r = p.core.nextRequest() {
		p.core.accept(r)
	}
	p.flush()
	for _, s := range p.core.streams {
		p.core.close(p.now, s)
	}
}

func (p *peer) checkBounds() {
	c := p.core
	held := 0
	for _, s := range c.streams {
		held += s.in.buf.held()
	}
	if most := int(c.cfg.Local.Window) + (1+len(c.streams))*2*cellSize; held > most {
		p.t.Errorf("%d bytes held", held)
	}
	if c.rxRead > c.rxHighest || c.rxHighest > c.rxLimit || c.unsent < 0 || c.dgIn.bytes < 0 || c.dgOut.bytes < 0 {
		p.t.Errorf("credit: read %d, highest %d, limit %d; unsent %d, datagrams %d", c.rxRead, c.rxHighest, c.rxLimit, c.unsent, c.dgIn.bytes)
	}
}
