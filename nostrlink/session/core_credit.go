package session

import (
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// charge counts bytes of a stream up to end against the credit we granted.
func (c *core) charge(s *stream, end uint64) bool {
	h := &s.in
	if end <= h.highest {
		return true
	}
	more := end - h.highest
	if end > h.limit || more > c.rxLimit-c.rxHighest {
		c.violation(wire.CodeFlowControl, "stream %d goes beyond its credit", s.id)
		return false
	}
	h.highest = end
	c.rxHighest += more
	return true
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

// share is the credit a stream is to have: its window, but at most half
// of what all streams have not left unread, so that a few slow readers cannot
// stop everybody.
func (c *core) share(h *recvHalf) uint64 {
	unread := min(c.rxHighest-c.rxRead, c.cfg.Local.Window)
	return min(h.window, max((c.cfg.Local.Window-unread)/2, minShare))
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

// maxHeld bounds what all streams together keep until its arrival is known,
// whatever credit the peer grants: it may acknowledge everything but the first
// byte.
const maxHeld = 64 << 20

// txRoom is how much all streams together may send for the first time.
func (c *core) txRoom() uint64 {
	return min(c.txLimit-c.txSent, maxHeld-min(c.txHeld, maxHeld))
}

// arrived notes that n bytes of s from off on have arrived.
func (c *core) arrived(s *stream, off, n uint64) {
	before := s.out.acked
	s.out.arrived(off, n)
	c.letGo(s.out.acked - before)
}

// truncate gives up what s has sent and does not know to have arrived.
func (c *core) truncate(s *stream) {
	before := s.out.acked
	s.out.truncate()
	c.letGo(s.out.acked - before)
}

func (c *core) letGo(n uint64) {
	blocked := c.txRoom() == 0
	c.txHeld -= n
	c.unblock(blocked)
}

// onSessionLimit takes more credit for all streams.
func (c *core) onSessionLimit(limit uint64) {
	blocked := c.txRoom() == 0
	c.txLimit = max(c.txLimit, limit)
	c.unblock(blocked)
}

// takeBack undoes the use of n bytes of credit.
func (c *core) takeBack(n uint64) {
	blocked := c.txRoom() == 0
	c.txSent -= n
	c.unblock(blocked)
}

// unblock lets streams send again that had no credit of the session left.
func (c *core) unblock(blocked bool) {
	if !blocked || c.txRoom() == 0 {
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
