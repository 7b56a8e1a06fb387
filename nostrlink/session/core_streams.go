package session

import (
	"fmt"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// dial makes a stream and queues its OPEN with the first bytes of the stream, at
// most unsentFair, or for a flow with its first datagram.
func (c *core) dial(network wire.Network, dest string, uuid [16]byte, firstBytes []byte) (*stream, error) {
	switch {
	case c.err != nil:
		return nil, fmt.Errorf("%w: %w", ErrEnded, c.err)
	case c.open >= c.cfg.Peer.MaxStreams:
		return nil, &wire.Error{Code: wire.CodeBusy, Text: "as many streams are open as the peer allows"}
	case len(dest) > wire.MaxDest || len(firstBytes) > unsentFair:
		return nil, &wire.Error{Code: wire.CodeUnsupported, Text: "destination or first bytes too long"}
	}
	s := c.newStream(0, isFlow(network))
	s.network, s.dest, s.uuid = network, dest, uuid
	if s.dg == nil {
		c.write(s, firstBytes)
		c.ask(s)
	} else if len(firstBytes) > 0 {
		c.sendDatagram(s, firstBytes)
	}
	return s, nil
}

// ask queues the OPEN of a stream and reports true, unless that was done. That
// of a flow waits for the first datagram, or for a reader.
func (c *core) ask(s *stream) bool {
	if c.cfg.Role != Dialer || s.phase != opening || s.asked || s.need&needOpen != 0 {
		return false
	}
	c.want(s, needOpen)
	return true
}

// isFlow reports whether a network carries datagrams.
func isFlow(n wire.Network) bool { return n == wire.NetworkUDP || n == wire.NetworkPing }

func (c *core) newStream(id uint64, flow bool) *stream {
	s := &stream{id: id}
	s.in.window = c.cfg.Local.StreamWindow
	s.in.limit = s.in.window
	if flow {
		s.dg = new(datagramQueues)
	}
	if id > 0 {
		c.streams[id] = s
	}
	c.open++
	c.stats.StreamsOpened++
	return s
}

// onOpen makes the stream the dialer asks for and queues the request. An OPEN
// that comes again may hold more of the stream's first bytes. It reports false
// when the packet must come again.
func (c *core) onOpen(f *wire.Open) bool {
	if c.cfg.Role == Dialer {
		c.violation(wire.CodeProtocol, "OPEN from the listener")
		return true
	}
	s, later := c.find(f.ID)
	if later {
		s = c.await(f.ID, isFlow(f.Network))
	}
	switch {
	case s == nil, s.over():
		return !later
	case isFlow(f.Network) != (s.dg != nil):
		c.violation(wire.CodeProtocol, "stream %d is of two kinds", f.ID)
		return true
	}
	first := s.phase == awaited
	if first {
		s.network, s.dest, s.uuid = f.Network, string(f.Destination), f.UUID
		s.out.credit = max(s.out.credit, f.Window)
		s.phase = opening
	}
	taken := true
	if s.dg == nil {
		taken = c.onData(s, &wire.Data{ID: f.ID, Data: f.Data})
	} else if len(f.Data) > 0 {
		c.onDatagram(s, f.Data)
	}
	if most := 2 * c.cfg.Local.MaxStreams; first && c.err == nil && s.err == nil {
		if c.open > most || len(c.requests) >= most {
			c.refuse(s, wire.CodeBusy, "too many streams")
		} else {
			c.requests = append(c.requests, s)
		}
	}
	return taken
}

// await makes a stream whose OPEN has not come yet, for what has overtaken that
// or for the OPEN itself. It gives nil when there are too many: then what came
// must come again.
func (c *core) await(id uint64, flow bool) *stream {
	if !c.isNew(id) {
		return nil
	}
	s := c.newStream(id, flow)
	s.phase = awaited
	return s
}

// nextRequest takes the oldest request that its dialer still wants, or nil.
func (c *core) nextRequest() *stream {
	for len(c.requests) > 0 {
		s := c.requests[0]
		c.requests[0] = nil
		if c.requests = c.requests[1:]; len(c.requests) == 0 {
			c.requests = nil
		}
		if s.err == nil || s.left() {
			return s
		}
		c.discard(s)
	}
	return nil
}

// isNew notes the id of a stream at the listener. It reports false when the id
// has been used, and ends the session when there are too many.
//
// An honest dialer may be a little above its limit here: it counts a stream as
// ended when it knows that we have all of it, we only when our own user is
// done. Twice the limit is refused politely, anything more is an attack.
func (c *core) isNew(id uint64) bool {
	if c.ids.has(id) {
		return false
	}
	c.ids.add(id, id+1)
	if len(c.ids) > maxIDGaps || c.open > 2*c.cfg.Local.MaxStreams+maxIDGaps {
		c.violation(wire.CodeProtocol, "too many streams")
		return false
	}
	return true
}

// accept answers an OPEN with yes.
func (c *core) accept(s *stream) error {
	switch {
	case s.err != nil && !s.left():
		c.discard(s)
		return s.err
	case s.phase != opening:
		return errAnswered
	}
	s.phase = opened
	c.want(s, needOpened)
	c.activate(s)
	return nil
}

// refuse answers an OPEN with no.
func (c *core) refuse(s *stream, code wire.Code, text string) {
	if s.phase != opening {
		return
	}
	c.discard(s)
	if s.err != nil {
		return
	}
	s.phase = refused
	s.err = errAnswered
	c.sendReset(s, code, text)
}

// write buffers what there is room for and says how much that was.
func (c *core) write(s *stream, p []byte) int {
	h := &s.out
	if h.fin || s.resetSent || s.gone {
		return 0
	}
	room := max(0, unsentLimit-int(h.unsent()))
	if c.unsent+len(p) > c.cfg.SendBuffer {
		room = min(room, max(unsentFair-int(h.unsent()), c.cfg.SendBuffer-c.unsent, 0))
		if room < len(p) && !s.starved {
			s.starved = true
			c.starved = append(c.starved, s)
		}
	}
	n := min(len(p), room)
	h.buf.put(h.end, p[:n])
	h.end += uint64(n)
	c.unsent += n
	c.activate(s)
	return n
}

// written notes that a stream has sent n of its bytes for the first time.
func (c *core) written(s *stream, n uint64) {
	if n == 0 {
		return
	}
	s.out.next += n
	c.txSent += n
	c.txHeld += n
	c.shrinkUnsent(int(n))
	if s.out.unsent() <= unsentLimit/2 {
		s.wakeWriter()
	}
}

// shrinkUnsent lets writers go on that waited for the session's buffer.
func (c *core) shrinkUnsent(n int) {
	c.unsent -= n
	if c.unsent > c.cfg.SendBuffer/4*3 || len(c.starved) == 0 {
		return
	}
	for i, s := range c.starved {
		s.starved = false
		s.wakeWriter()
		c.starved[i] = nil
	}
	c.starved = c.starved[:0]
}

// dropUnsent forgets what a stream has not sent; its end is where it is.
func (c *core) dropUnsent(s *stream) {
	n := s.out.unsent()
	s.out.end = s.out.next
	c.shrinkUnsent(int(n))
}

// closeWrite ends the direction we write.
func (c *core) closeWrite(s *stream) {
	if !s.out.fin && !s.resetSent && !s.gone {
		s.out.fin = true
		c.activate(s)
	}
}

// close is for a user who is done: what was written still goes out, what would
// be read is unwanted.
func (c *core) close(now time.Duration, s *stream) {
	if s.idle > 0 || s.gone {
		c.discard(s)
		return
	}
	s.idle = max(now, 1)
	switch {
	case s.dg != nil:
		s.dg.closing = true
		c.discard(s)
		c.endFlow(s)
		return
	case s.phase == opening && s.out.end == 0: // nobody has seen anything of it
		c.reset(s, wire.CodeNone, "")
		return
	}
	c.closeWrite(s)
	if !s.in.hasFinal {
		s.stopCode = wire.CodeCancelled
		c.want(s, needStop)
	}
	c.discard(s)
	c.settle(s)
}

// endFlow resets a flow that its user has closed, when what that wrote before
// has got as far as it will.
func (c *core) endFlow(s *stream) {
	if q := s.dg; q.closing && q.flying == 0 && len(q.out.items) == 0 && s.heard == s.asked {
		c.reset(s, wire.CodeNone, "")
	}
}

// reset abandons a stream in both directions.
func (c *core) reset(s *stream, code wire.Code, text string) {
	if s.gone || s.resetSent {
		c.discard(s)
		return
	}
	if s.err == nil {
		s.err = &wire.Error{Code: code, Text: text}
	}
	c.discard(s)
	c.sendReset(s, code, text)
	s.wake()
	c.settle(s)
}

// sendReset queues the RESET, or REFUSE, that ends our direction.
func (c *core) sendReset(s *stream, code wire.Code, text string) {
	c.dropUnsent(s)
	c.truncate(s)
	s.resetSent, s.code, s.text = true, code, text
	s.need = 0
	if s.dg != nil {
		c.dgOut.drop(&s.dg.out)
	}
	if s.id == 0 { // the peer has never heard of it
		c.leave(s)
		return
	}
	c.want(s, needReset)
}

// discard says that nobody reads the stream any more.
func (c *core) discard(s *stream) {
	h := &s.in
	h.discard = true
	if n := h.highest - h.read; n > 0 {
		h.read = h.highest
		c.giveBack(n)
	}
	h.buf.clear()
	h.got = nil
	if s.dg != nil {
		c.dgIn.drop(&s.dg.in)
	}
}

// readable lends the bytes that can be read now, as many as lie together.
func (c *core) readable(s *stream, limit int) []byte {
	h := &s.in
	n := h.ready()
	if h.discard || n <= h.read {
		return nil
	}
	return h.buf.slice(h.read, int(min(n-h.read, uint64(limit))))
}

// sendDatagram queues a datagram of a flow.
func (c *core) sendDatagram(s *stream, p []byte) {
	c.stats.DatagramsSent++
	c.stats.DatagramsDropped += c.dgOut.push(&s.dg.out, p)
	c.ask(s)
	c.activate(s)
}

// takeDatagram gives the oldest datagram received, or nil and false.
func (c *core) takeDatagram(s *stream) ([]byte, bool) {
	return c.dgIn.pop(&s.dg.in)
}
