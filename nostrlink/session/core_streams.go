package session

import (
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// dial makes a stream and queues its OPEN with the first bytes of the stream, at
// most unsentFair, or for a flow with its first datagram.
func (c *core) dial(network wire.Network, dest string, uuid [16]byte, firstBytes []byte) (*stream, error) {
	switch {
	case c.err != nil:
		return nil, c.err
	case c.open >= c.cfg.Peer.MaxStreams:
		return nil, &wire.Error{Code: wire.CodeBusy, Text: "as many streams are open as the peer allows"}
	case len(dest) > wire.MaxDest || len(firstBytes) > unsentFair:
		return nil, &wire.Error{Code: wire.CodeUnsupported, Text: "destination or first bytes too long"}
	}
	s := c.newStream(network, dest, uuid)
	if s.dg != nil {
		if len(firstBytes) > 0 {
			s.dg.out.push(firstBytes)
		}
	} else {
		c.write(s, firstBytes)
	}
	c.want(s, needOpen)
	return s, nil
}

func (c *core) newStream(network wire.Network, dest string, uuid [16]byte) *stream {
	s := &stream{network: network, dest: dest, uuid: uuid}
	s.in.window = c.cfg.Local.StreamWindow
	s.in.limit = s.in.window
	if network == wire.NetworkUDP {
		s.dg = new(datagramQueues)
	}
	c.open++
	c.stats.StreamsOpened++
	return s
}

// onOpen makes the stream the dialer asks for and queues the request. An OPEN
// that comes again may hold more of the stream's first bytes. It reports false
// when those could not be kept.
func (c *core) onOpen(f *wire.Open) bool {
	if c.cfg.Role == Dialer {
		c.violation(wire.CodeProtocol, "OPEN from the listener")
		return true
	}
	if s := c.streams[f.ID]; s != nil && s.dg == nil && s.phase != refused {
		return c.onData(s, &wire.Data{ID: f.ID, Data: f.Data})
	}
	if !c.isNew(f.ID) {
		return true
	}
	s := c.newStream(f.Network, string(f.Destination), f.UUID)
	s.id = f.ID
	s.out.credit = f.Window
	c.streams[s.id] = s
	if s.dg != nil && len(f.Data) > 0 {
		c.onDatagram(s, f.Data)
	} else if s.dg == nil {
		c.onData(s, &wire.Data{ID: f.ID, Data: f.Data})
	}
	if c.open > 2*c.cfg.Local.MaxStreams {
		c.refuse(s, wire.CodeBusy, "too many streams")
	} else if c.err == nil {
		c.requests = append(c.requests, s)
	}
	return true
}

// nextRequest takes the oldest request that its dialer still wants, or nil.
func (c *core) nextRequest() *stream {
	for len(c.requests) > 0 {
		s := c.requests[0]
		c.requests[0] = nil
		if c.requests = c.requests[1:]; len(c.requests) == 0 {
			c.requests = nil
		}
		if s.err == nil {
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

// onEarlyReset answers a RESET that overtook its OPEN: the dialer waits for our
// RESET, and the OPEN will be ignored.
func (c *core) onEarlyReset(f *wire.Reset) {
	if !c.isNew(f.ID) {
		return
	}
	s := c.newStream(wire.NetworkTCP, "", [16]byte{})
	s.id = f.ID
	c.streams[s.id] = s
	c.onReset(s, f)
}

// accept answers an OPEN with yes.
func (c *core) accept(s *stream) error {
	switch {
	case s.err != nil:
		c.discard(s)
		return s.err
	case s.phase != opening:
		return errAnswered
	}
	s.phase = opened
	c.want(s, needOpened)
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
		if room < len(p) {
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
	for _, s := range c.starved {
		s.wakeWriter()
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
	if s.dg != nil || s.phase == opening {
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
	s.out.truncate()
	s.resetSent, s.code, s.text = true, code, text
	s.need = 0
	if s.dg != nil {
		s.dg.out = datagramQueue{}
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
		c.dgBytes -= s.dg.in.bytes
		s.dg.in = datagramQueue{}
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

// consume notes that n bytes have been read, and grants more credit when a
// quarter of it is used.
func (c *core) consume(now time.Duration, s *stream, n int) {
	h := &s.in
	if h.discard { // closed meanwhile: all of it is given back already
		return
	}
	h.read += uint64(n)
	if h.read == h.highest {
		h.buf.clear()
	} else {
		h.buf.release(h.read)
	}
	c.giveBack(uint64(n))
	if h.hasFinal || s.gone || s.resetSent || h.limit-h.read > c.share(h)/4*3 {
		return
	}
	if h.grantedAt == 0 || now-h.grantedAt < 4*c.roundTrip() {
		h.window = min(2*h.window, c.cfg.MaxStreamWindow)
	}
	h.grantedAt = max(now, 1)
	h.limit = max(h.limit, h.read+c.share(h))
	c.want(s, needMaxData)
}

// share is the credit a stream is to have: its window, but at most a quarter
// of what all streams have not left unread, so that a few slow readers cannot
// stop everybody.
func (c *core) share(h *recvHalf) uint64 {
	unread := min(c.rxHighest-c.rxRead, c.cfg.Local.Window)
	return min(h.window, max((c.cfg.Local.Window-unread)/4, minShare))
}

// minShare is the credit a stream gets however little there is.
const minShare = 64 << 10

// giveBack returns credit of the session to the peer.
func (c *core) giveBack(n uint64) {
	c.rxRead += n
	if c.rxLimit-c.rxRead <= c.cfg.Local.Window/4*3 {
		c.rxLimit = c.rxRead + c.cfg.Local.Window
		c.sendLimit = true
	}
}

// onSessionLimit takes more credit for all streams.
func (c *core) onSessionLimit(limit uint64) {
	blocked := c.txSent == c.txLimit
	c.txLimit = max(c.txLimit, limit)
	c.unblock(blocked)
}

// takeBack undoes the use of n bytes of credit.
func (c *core) takeBack(n uint64) {
	blocked := c.txSent == c.txLimit
	c.txSent -= n
	c.unblock(blocked)
}

// unblock lets streams send again that had no credit of the session left.
func (c *core) unblock(blocked bool) {
	if !blocked || c.txSent == c.txLimit {
		return
	}
	for _, s := range c.streams {
		c.activate(s)
	}
}

// roundTrip is the shortest smoothed round trip of all paths.
func (c *core) roundTrip() time.Duration {
	best := initialRTT
	for _, p := range c.paths {
		if p.hasRTT {
			best = min(best, p.srtt)
		}
	}
	return best
}

// sendDatagram queues a datagram of a flow.
func (c *core) sendDatagram(s *stream, p []byte) {
	c.stats.DatagramsDropped += uint64(s.dg.out.push(p))
	c.stats.DatagramsSent++
	c.activate(s)
}

// takeDatagram gives the oldest datagram received, or nil and false.
func (c *core) takeDatagram(s *stream) ([]byte, bool) {
	q := &s.dg.in
	if len(q.items) == 0 {
		return nil, false
	}
	p := q.pop()
	c.dgBytes -= len(p)
	return p, true
}
