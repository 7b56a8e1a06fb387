package session

import (
	"bytes"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// peer is a core and a hand that writes the other end's packets.
type peer struct {
	t    testing.TB
	core *core
	path *pathState
	next uint64
	now  time.Duration
	out  [][]byte // what the core has sent
}

func newPeer(t testing.TB, cfg Config) *peer {
	p := &peer{t: t, core: newCore(cfg, 0)}
	p.path = p.core.attach(0, 40960)
	return p
}

// send hands the core one packet with these frames.
func (p *peer) send(frames ...wire.Frame) {
	var b []byte
	for _, f := range frames {
		b = f.Append(b)
	}
	p.sendRaw(b)
}

func (p *peer) header(number uint64) []byte {
	return wire.AppendHeader(nil, wire.Header{Direction: 1 - p.core.dir, Session: p.core.cfg.ID, Number: number})
}

func (p *peer) sendRaw(frames []byte) {
	p.core.receive(p.now, p.path, append(p.header(p.next), frames...))
	p.next++
}

// flush takes what the core has to send.
func (p *peer) flush() {
	for {
		b := p.core.next(p.now, p.path, make([]byte, 0, 65536))
		if b == nil {
			return
		}
		p.core.sent(p.now, p.path)
		p.out = append(p.out, b)
	}
}

// sent finds the frames of one type in what the core has sent.
func (p *peer) sent(t wire.FrameType) (found []wire.Frame) {
	p.flush()
	for _, b := range p.out {
		_, frames, err := wire.ParseHeader(b)
		for err == nil && len(frames) > 0 {
			var f wire.Frame
			frames, err = wire.ParseFrame(&f, frames)
			if f.Type == t {
				found = append(found, f)
			}
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	return found
}

// opened is a listener with stream 1 open.
func openedPeer(t testing.TB) *peer {
	p := newPeer(t, Config{Role: Listener, Local: Limits{Window: 1 << 20, StreamWindow: 1 << 18}})
	p.send(openFrame(1))
	p.core.accept(p.core.nextRequest())
	p.flush()
	return p
}

func openFrame(id uint64) wire.Frame {
	return wire.Frame{Type: wire.FrameOpen, Open: wire.Open{ID: id, Network: wire.NetworkTCP, Window: 1 << 20, Destination: []byte("a:1")}}
}

func dataFrame(id, off uint64, data string) wire.Frame {
	return wire.Frame{Type: wire.FrameData, Data: wire.Data{ID: id, Offset: off, Data: []byte(data)}}
}

func finFrame(id, off uint64, data string) wire.Frame {
	f := dataFrame(id, off, data)
	f.Type, f.Data.Fin = wire.FrameDataFin, true
	return f
}

func ackFrame(ranges ...wire.AckRange) wire.Frame {
	return wire.Frame{Type: wire.FrameAck, Ack: wire.Ack{Ranges: ranges}}
}

func resetFrame(id, final uint64) wire.Frame {
	return wire.Frame{Type: wire.FrameReset, Reset: wire.Reset{ID: id, Final: final, Code: wire.CodeReset}}
}

// TestViolations holds that a peer which breaks the protocol loses the session
// and is told why.
func TestViolations(t *testing.T) {
	big := string(make([]byte, 1<<15))
	for _, test := range []struct {
		name string
		code wire.Code
		do   func(p *peer)
	}{
		{"acknowledges what was not sent", wire.CodeProtocol, func(p *peer) { p.send(ackFrame(wire.AckRange{Smallest: 0, Largest: 1000})) }},
		{"two ACKs in a packet", wire.CodeProtocol, func(p *peer) { p.send(ackFrame(wire.AckRange{}), ackFrame(wire.AckRange{})) }},
		{"unknown frame", wire.CodeProtocol, func(p *peer) { p.sendRaw([]byte{0xff}) }},
		{"cut off frame", wire.CodeProtocol, func(p *peer) { p.sendRaw([]byte{byte(wire.FrameData), 1}) }},
		{"opened by the dialer", wire.CodeProtocol, func(p *peer) {
			p.send(wire.Frame{Type: wire.FrameOpened, Opened: wire.Opened{ID: 1}})
		}},
		{"refused by the dialer", wire.CodeProtocol, func(p *peer) {
			p.send(wire.Frame{Type: wire.FrameRefuse, Refuse: wire.Refuse{ID: 1}})
		}},
		{"going away as the dialer", wire.CodeProtocol, func(p *peer) { p.send(wire.Frame{Type: wire.FrameGoAway}) }},
		{"beyond the stream's credit", wire.CodeFlowControl, func(p *peer) { p.send(dataFrame(1, 1<<18, "x")) }},
		{"beyond the stream's credit by an end", wire.CodeFlowControl, func(p *peer) { p.send(finFrame(1, 1<<20, "")) }},
		{"beyond the stream's credit by a reset", wire.CodeFlowControl, func(p *peer) { p.send(resetFrame(1, 1<<20)) }},
		{"beyond the session's credit", wire.CodeFlowControl, func(p *peer) {
			for id := uint64(2); p.core.err == nil && id < 10; id++ {
				p.send(openFrame(id))
				p.core.accept(p.core.nextRequest())
				p.send(dataFrame(id, 1<<18-1<<15, big))
			}
		}},
		{"data beyond the end", wire.CodeProtocol, func(p *peer) { p.send(finFrame(1, 5, ""), dataFrame(1, 5, "x")) }},
		{"an end before data", wire.CodeProtocol, func(p *peer) { p.send(dataFrame(1, 5, "xyz"), finFrame(1, 6, "")) }},
		{"two ends", wire.CodeProtocol, func(p *peer) { p.send(finFrame(1, 5, ""), finFrame(1, 6, "")) }},
		{"a reset before data", wire.CodeProtocol, func(p *peer) { p.send(dataFrame(1, 5, "xyz"), resetFrame(1, 2)) }},
		{"a reset at another end", wire.CodeProtocol, func(p *peer) { p.send(finFrame(1, 5, ""), resetFrame(1, 6)) }},
		{"datagrams on a stream", wire.CodeProtocol, func(p *peer) {
			p.send(wire.Frame{Type: wire.FrameDatagram, Datagram: wire.Datagram{ID: 1, Data: []byte("x")}})
		}},
		{"scattered stream ids", wire.CodeProtocol, func(p *peer) {
			for id := uint64(0); p.core.err == nil && id < 1e5; id++ {
				p.send(openFrame(1000 + 2*id))
			}
		}},
		{"data beyond credit before its OPEN", wire.CodeFlowControl, func(p *peer) { p.send(dataFrame(2, 1<<18, "x")) }},
		{"an offset beyond everything", wire.CodeFlowControl, func(p *peer) { p.send(finFrame(1, 1<<62-2, "x")) }},
		{"a flow that turns out a stream", wire.CodeProtocol, func(p *peer) {
			p.send(wire.Frame{Type: wire.FrameDatagram, Datagram: wire.Datagram{ID: 2, Data: []byte("x")}}, openFrame(2))
		}},
		{"100,000 streams without OPEN", wire.CodeProtocol, func(p *peer) {
			for id := uint64(2); p.core.err == nil && id < 1e5; id++ {
				p.send(dataFrame(id, 0, "x"))
			}
		}},
		{"100,000 streams", wire.CodeProtocol, func(p *peer) {
			for id := uint64(2); p.core.err == nil && id < 1e5; id++ {
				p.send(openFrame(id))
				if len(p.core.requests) > 2*p.core.cfg.Local.MaxStreams {
					t.Fatal("too many requests kept")
				}
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := openedPeer(t)
			test.do(p)
			if got := wire.CodeOf(p.core.err); p.core.err == nil || got != test.code {
				t.Fatalf("session ended with %v, want code %v", p.core.err, test.code)
			}
			if c := p.sent(wire.FrameClose); len(c) != 1 || c[0].Close.Code != test.code {
				t.Errorf("the peer was told %+v", c)
			}
			p.send(openFrame(77)) // and nothing happens any more
		})
	}
}

func TestDialerViolations(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame wire.Frame
	}{
		{"open by the listener", openFrame(1)},
		{"data of a stream never opened", dataFrame(7, 0, "x")},
		{"reset of a stream never opened", resetFrame(7, 0)},
		{"refusal of an open stream", wire.Frame{Type: wire.FrameRefuse, Refuse: wire.Refuse{ID: 1}}},
		{"stop for a flow", wire.Frame{Type: wire.FrameStop, Stop: wire.Stop{ID: 2}}},
		{"data for a flow", dataFrame(2, 0, "x")},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPeer(t, Config{})
			p.core.dial(wire.NetworkTCP, "a:1", [16]byte{}, nil)
			p.core.dial(wire.NetworkUDP, "a:1", [16]byte{}, nil)
			p.flush()
			p.send(wire.Frame{Type: wire.FrameOpened, Opened: wire.Opened{ID: 1}}, wire.Frame{Type: wire.FrameOpened, Opened: wire.Opened{ID: 2}})
			p.send(test.frame)
			if wire.CodeOf(p.core.err) != wire.CodeProtocol {
				t.Errorf("session ended with %v", p.core.err)
			}
		})
	}
}

// TestIgnored holds that what a slow or repeating network makes of an honest
// peer's packets does no harm.
func TestIgnored(t *testing.T) {
	p := openedPeer(t)
	s := p.core.streams[1]
	p.send(dataFrame(1, 0, "hello"))
	p.send(dataFrame(1, 0, "HELLO")) // contradiction: the first word counts
	p.send(dataFrame(1, 3, "LO, world"))
	p.send(openFrame(1)) // again
	p.send(dataFrame(9, 0, "before its OPEN"))
	if r := p.core.nextRequest(); r != nil {
		t.Errorf("a stream is offered before its OPEN came: %d", r.id)
	}
	p.send(openFrame(9))
	early := p.core.nextRequest()
	if got := p.core.readable(early, 100); string(got) != "before its OPEN" {
		t.Errorf("read %q of a stream that is not answered yet", got)
	}
	p.core.refuse(early, wire.CodeRefused, "")
	p.send(dataFrame(9, 15, "more"), finFrame(9, 19, ""))
	if r := p.sent(wire.FrameRefuse); len(r) != 1 || r[0].Refuse.Received != 15 {
		t.Errorf("answered with %+v", r)
	}
	if got := p.core.readable(s, 100); string(got) != "hello, world" {
		t.Errorf("read %q", got)
	}
	p.send(resetFrame(5, 0)) // of a stream whose OPEN comes later
	p.send(openFrame(5))
	if r := p.core.nextRequest(); r != nil {
		t.Errorf("a stream that was reset before is offered: %d", r.id)
	}
	if r := p.sent(wire.FrameReset); len(r) != 1 || r[0].Reset.ID != 5 {
		t.Errorf("answered with %+v", r)
	}
	p.send(resetFrame(1, 100), resetFrame(1, 100), dataFrame(1, 12, "late"))
	if p.core.err != nil {
		t.Error(p.core.err)
	}
	if got := p.core.readable(s, 100); string(got) != "hello, world" {
		t.Errorf("read %q after a reset", got)
	}
	p.core.consume(0, s, 12)
	if !s.in.atEnd() || wire.CodeOf(s.in.err) != wire.CodeReset {
		t.Errorf("at end %v, %v", s.in.atEnd(), s.in.err)
	}
	if p.core.rxRead != p.core.rxHighest {
		t.Errorf("credit: %d used, %d given back", p.core.rxHighest, p.core.rxRead)
	}
}

// TestBindings holds that a relay can neither reflect, replay nor transplant
// packets, nor invent any.
func TestBindings(t *testing.T) {
	p := openedPeer(t)
	good := append(p.header(p.next), dataBytes(1, 0, "hello")...)
	change := func(i int, c byte) []byte { b := bytes.Clone(good); b[i] ^= c; return b }
	own := wire.AppendHeader(nil, wire.Header{Direction: p.core.dir, Session: p.core.cfg.ID, Number: 99})
	p.flush()
	for _, test := range []struct {
		name   string
		packet []byte
		count  func(r Rejected) uint64
	}{
		{"json", []byte(`{"type":"DATA"}`), func(r Rejected) uint64 { return r.Magic }},
		{"empty", nil, func(r Rejected) uint64 { return r.Magic }},
		{"another version", change(1, 3), func(r Rejected) uint64 { return r.Version }},
		{"a flag", change(2, 0x80), func(r Rejected) uint64 { return r.Header }},
		{"reflected", append(own, dataBytes(1, 0, "hello")...), func(r Rejected) uint64 { return r.Direction }},
		{"one of its own, reflected", p.out[0], func(r Rejected) uint64 { return r.Direction }},
		{"another session", change(3, 1), func(r Rejected) uint64 { return r.Session }},
		{"taken", good, func(r Rejected) uint64 { return 1 - r.Replay }},
		{"replayed", good, func(r Rejected) uint64 { return r.Replay }},
	} {
		before := p.core.stats.Rejected
		p.core.receive(0, p.path, test.packet)
		after := p.core.stats.Rejected
		if test.name != "taken" && after.Total() != before.Total()+1 {
			t.Errorf("%s: %+v", test.name, after)
		}
		if test.count(after) == 0 {
			t.Errorf("%s: counted as %+v", test.name, after)
		}
	}
	if got := p.core.readable(p.core.streams[1], 100); string(got) != "hello" {
		t.Errorf("read %q", got)
	}
	// Numbers below the replay window count as replayed.
	for n := uint64(0); n < 3*maxReceived; n++ {
		p.core.receive(0, p.path, append(p.header(1000+2*n), byte(wire.FramePing)))
	}
	if n := len(p.core.rx.runs); n > maxReceived {
		t.Errorf("%d runs kept", n)
	}
	before := p.core.stats.Rejected.Replay
	p.core.receive(0, p.path, append(p.header(1001), byte(wire.FramePing)))
	if p.core.stats.Rejected.Replay != before+1 {
		t.Error("a packet older than the window was taken")
	}
}

func dataBytes(id, off uint64, data string) []byte {
	f := dataFrame(id, off, data)
	return f.Append(nil)
}

// TestHoles holds that a peer that tears a stream into holes does not make us
// keep them without end, and that honest data still gets through.
func TestHoles(t *testing.T) {
	p := openedPeer(t)
	s := p.core.streams[1]
	for off := uint64(1); off < 1<<18-1; off += 2 {
		p.send(dataFrame(1, off, "x"))
		if len(s.in.got) > maxGaps+1 {
			t.Fatalf("%d holes", len(s.in.got))
		}
	}
	if most := 1<<18 + cellSize; s.in.buf.held() > most {
		t.Errorf("%d bytes held", s.in.buf.held())
	}
	for off := uint64(0); off < 1<<18; off += 1 << 15 {
		p.send(dataFrame(1, off, string(bytes.Repeat([]byte("x"), 1<<15))))
	}
	if p.core.err != nil || s.in.ready() != 1<<18 || len(s.in.got) != 1 {
		t.Errorf("%d bytes ready, %d holes, %v", s.in.ready(), len(s.in.got), p.core.err)
	}
}

// TestAckOverflow holds that every packet is reported in time although one
// acknowledgement cannot name them all.
func TestAckOverflow(t *testing.T) {
	p := newPeer(t, Config{Role: Listener})
	told := map[uint64]bool{}
	for n := range uint64(500) {
		p.core.receive(p.now, p.path, append(p.header(2*n), byte(wire.FramePing)))
	}
	for range 40 {
		p.now += 20 * time.Millisecond
		p.core.deadline(p.now)
		p.core.tick(p.now)
	}
	for range 60 {
		p.now += 20 * time.Millisecond
		p.flush()
	}
	for _, f := range p.sent(wire.FrameAck) {
		for _, r := range f.Ack.Ranges {
			for n := r.Smallest; n <= r.Largest; n++ {
				told[n] = true
			}
		}
	}
	for n := range uint64(1000) {
		if told[n] != (n%2 == 0) {
			t.Fatalf("packet %d: reported %v", n, told[n])
		}
	}
}
