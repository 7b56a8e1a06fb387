package session

import (
	"fmt"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// receive takes a packet that came by path p. What is not of this session, or
// came before, is counted and ignored; what breaks the protocol ends the
// session.
func (c *core) receive(now time.Duration, p *pathState, packet []byte) {
	if c.err != nil {
		return
	}
	h, frames, err := wire.ParseHeader(packet)
	if !c.belongs(h, err) {
		return
	}
	if c.rx.seen(h.Number) {
		c.stats.Rejected.Replay++
		return
	}
	c.stats.PacketsReceived++
	c.stats.BytesReceived += uint64(len(packet))
	c.receivedAt = now
	elicits, keep := false, true
	acks := 0
	for len(frames) > 0 {
		f := &c.inFrame
		if frames, err = wire.ParseFrame(f, frames); err != nil {
			c.violation(wire.CodeProtocol, "%v", err)
			return
		}
		if f.Type == wire.FrameAck {
			if acks++; acks > 1 {
				c.violation(wire.CodeProtocol, "more than one ACK in a packet")
				return
			}
		} else {
			elicits = true
		}
		switch f.Type {
		case wire.FrameData, wire.FrameDataFin, wire.FrameDatagram:
			c.dataAt = max(now, 1) // 0 is never
		}
		keep = c.onFrame(now, f) && keep
		if c.err != nil {
			return
		}
	}
	if keep {
		c.rx.add(now, h.Number, elicits, len(packet))
		if elicits || c.heardOn == nil {
			c.heardOn = p
		}
	}
	if !elicits {
		c.stats.BareAcksReceived++
	}
}

// belongs checks the four bindings: a packet is taken when its magic and
// version, its direction and its session are right; its number is checked by
// the caller.
func (c *core) belongs(h wire.Header, err error) bool {
	r := &c.stats.Rejected
	switch {
	case err == wire.ErrMagic:
		r.Magic++
	case err == wire.ErrVersion:
		r.Version++
	case err != nil:
		r.Header++
	case h.Direction == c.dir:
		r.Direction++
	case h.Session != c.cfg.ID:
		r.Session++
	default:
		return true
	}
	return false
}

// onFrame acts on a frame. It reports false when the packet must not be
// acknowledged because the frame could not be taken yet. Every frame may come
// again: acting twice is as acting once.
func (c *core) onFrame(now time.Duration, f *wire.Frame) bool {
	switch f.Type {
	case wire.FrameAck:
		c.onAck(now, &f.Ack)
	case wire.FramePing:
	case wire.FrameOpen:
		return c.onOpen(&f.Open)
	case wire.FrameGoAway:
		c.onGoAway()
	case wire.FrameClose:
		c.fail(closeError(&f.Close), nil)
	default:
		if f.Type == wire.FrameMaxData && f.MaxData.ID == 0 {
			c.onSessionLimit(f.MaxData.Limit)
			return true
		}
		return c.onStreamFrame(f)
	}
	return true
}

// goAway asks the dialer for another session.
func (c *core) goAway() {
	if c.cfg.Role == Listener && c.err == nil && !c.toldToGo {
		c.toldToGo, c.sendGoAway = true, true
	}
}

func (c *core) onGoAway() {
	if c.cfg.Role == Listener {
		c.violation(wire.CodeProtocol, "GOAWAY from the dialer")
		return
	}
	c.toldToGo = true
}

// onStreamFrame acts on the frames that belong to one stream.
func (c *core) onStreamFrame(f *wire.Frame) bool {
	id := f.Stream()
	s, later := c.find(id)
	if later {
		s = c.await(id, f.Type == wire.FrameDatagram)
	}
	if s == nil || s.over() {
		return !later
	}
	switch f.Type {
	case wire.FrameMaxData:
		c.markOpened(s)
		s.out.credit = max(s.out.credit, f.MaxData.Limit)
		c.activate(s)
	case wire.FrameRefuse:
		c.onRefuse(s, &f.Refuse)
	case wire.FrameOpened:
		c.onOpened(s, &f.Opened)
	case wire.FrameData, wire.FrameDataFin:
		return c.onData(s, &f.Data)
	case wire.FrameReset:
		c.onReset(s, &f.Reset)
	case wire.FrameStop:
		c.onStop(s, &f.Stop)
	case wire.FrameDatagram:
		c.onDatagram(s, f.Datagram.Data)
	}
	return true
}

// find gives the live stream with this id. Without one, later says that its
// OPEN may still be on the way.
func (c *core) find(id uint64) (s *stream, later bool) {
	if s := c.streams[id]; s != nil {
		return s, false
	}
	if c.cfg.Role == Dialer {
		if id > c.lastID {
			c.violation(wire.CodeProtocol, "stream %d was never opened", id)
		}
		return nil, false
	}
	return nil, !c.ids.has(id)
}

func (c *core) onOpened(s *stream, f *wire.Opened) {
	if c.cfg.Role == Listener {
		c.violation(wire.CodeProtocol, "OPENED from the dialer")
		return
	}
	s.out.credit = max(s.out.credit, f.Window)
	c.markOpened(s)
	c.activate(s)
}

// markOpened notes at the dialer that the listener took the stream: OPENED says
// so, and so does any frame that may overtake it.
func (c *core) markOpened(s *stream) {
	if c.cfg.Role == Listener || s.phase != opening {
		return
	}
	s.phase, s.heard = opened, true
	s.need &^= needOpen
	if s.dg != nil {
		c.endFlow(s)
	}
	s.wakeWriter()
}

func (c *core) onData(s *stream, f *wire.Data) bool {
	if s.dg != nil {
		c.violation(wire.CodeProtocol, "DATA for flow %d", s.id)
		return true
	}
	c.markOpened(s)
	h := &s.in
	end := f.Offset + uint64(len(f.Data))
	switch {
	case h.err != nil:
		return true // late, after a reset
	case h.hasFinal && (end > h.final || f.Fin && end != h.final), f.Fin && end < h.highest:
		c.violation(wire.CodeProtocol, "stream %d has two ends", s.id)
		return true
	case !c.charge(s, end):
		return true
	}
	if f.Fin {
		h.final, h.hasFinal = end, true
	}
	switch {
	case h.discard:
		c.discard(s) // what came just now, too
	case len(f.Data) > 0 && !h.store(f.Offset, f.Data):
		return false
	default:
		s.wakeReader()
	}
	c.settle(s)
	return true
}

// onRefuse ends a stream at the dialer: the listener never opened it.
func (c *core) onRefuse(s *stream, f *wire.Refuse) {
	if c.cfg.Role == Listener || s.phase == opened || f.Received > s.out.next {
		c.violation(wire.CodeProtocol, "REFUSE for stream %d", s.id)
		return
	}
	c.takeBack(s.out.next - f.Received)
	no := &wire.Error{Code: f.Code, Text: string(f.Text)}
	if c.cfg.Refused != nil && s.phase != refused {
		c.cfg.Refused(no)
	}
	s.phase = refused
	if s.err == nil {
		s.err = no
	}
	c.dropUnsent(s)
	c.truncate(s)
	c.endReading(s, s.err)
	c.leave(s)
	s.wake()
}

// onReset ends both directions of a stream. What arrived in order before it
// can still be read.
func (c *core) onReset(s *stream, f *wire.Reset) {
	h := &s.in
	switch {
	case h.err != nil, s.phase == refused:
		return // again, or crossing our own end
	case h.hasFinal && f.Final != h.final, f.Final < h.highest:
		c.violation(wire.CodeProtocol, "stream %d has two ends", s.id)
		return
	case !c.charge(s, f.Final):
		return
	}
	if s.err == nil {
		s.err = &wire.Error{Code: f.Code, Text: string(f.Text)}
	}
	if s.phase == awaited { // it will not be offered any more
		c.discard(s)
	}
	c.endReading(s, s.err)
	if !s.resetSent && (s.dg != nil || !s.out.ended()) {
		c.sendReset(s, wire.CodeReset, "")
	}
	s.wake()
	c.settle(s)
}

// endReading fixes the end of what can be read at what has arrived in order;
// the rest of the credit is given back.
func (c *core) endReading(s *stream, err error) {
	h := &s.in
	if h.ended() {
		return
	}
	keep := h.ready()
	if h.discard {
		keep = h.read
	}
	c.giveBack(h.highest - keep)
	h.highest, h.final, h.hasFinal, h.err = keep, keep, true, err
}

func (c *core) onStop(s *stream, f *wire.Stop) {
	if s.dg != nil {
		c.violation(wire.CodeProtocol, "STOP for flow %d", s.id)
		return
	}
	c.markOpened(s)
	if s.out.err == nil {
		s.out.err = &wire.Error{Code: f.Code, Text: "the other end reads no more"}
	}
	c.dropUnsent(s)
	c.truncate(s)
	c.activate(s)
	s.wakeWriter()
	c.settle(s)
}

func (c *core) onDatagram(s *stream, p []byte) {
	if s.dg == nil {
		c.violation(wire.CodeProtocol, "DATAGRAM for stream %d", s.id)
		return
	}
	c.markOpened(s)
	c.stats.DatagramsReceived++
	if s.in.discard {
		return
	}
	c.stats.DatagramsDropped += c.dgIn.push(&s.dg.in, p)
	s.wakeReader()
}

func closeError(f *wire.Close) error {
	return fmt.Errorf("session: closed by the other end: %w", &wire.Error{Code: f.Code, Text: string(f.Text)})
}
