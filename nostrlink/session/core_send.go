package session

import (
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

const (
	// quantum is what a stream sends before the next one has its turn.
	quantum = 64 << 10
	// freshRun is how much fresh streams send in a row while bulk ones wait.
	freshRun = 4 * quantum
	// minPiece is the least room worth a frame.
	minPiece = 64
	// holdFor is how long small writes wait at most for the first hop to take
	// what it was sent last.
	holdFor = 5 * time.Millisecond
)

// next builds the packet that path p is to send now, in dst, or gives nil. A
// caller that gets one hands it to the carrier and then calls sent.
func (c *core) next(now time.Duration, p *pathState, dst []byte) []byte {
	if p.gone || p.busy {
		return nil
	}
	if c.err != nil {
		return c.goodbye(p, dst)
	}
	if len(p.copies) > 0 {
		return c.nextCopy(now, p, dst)
	}
	if !c.ready(now, p) {
		return nil
	}
	c.makeRoom()
	number := c.ring.next
	b := wire.AppendHeader(dst[:0], wire.Header{Direction: c.dir, Session: c.cfg.ID, Number: number})
	empty := len(b)
	if _, due := c.rx.due(0); due || c.rx.hasNews() {
		c.rx.report(now, &c.ackFrame)
		b = c.ackFrame.Append(b)
	}
	bare := len(b)
	k := c.newPacket()
	probe := p.probes > 0 || p.pingDue
	if c.mayCarry(now, p) || probe && p.carries {
		b = c.fill(p, k, b)
	}
	if len(b) > bare {
		c.usedAt = now
	} else if probe || c.ping && c.mayCarry(now, p) {
		b = wire.AppendPing(b)
	}
	if len(b) == empty {
		c.recycle(k)
		return nil
	}
	if len(b) > bare { // whatever it is, it asks for an answer
		c.ping = c.ping && !p.carries
		p.pingDue, p.probes = false, 0
	}
	k.twin = !probe && c.copy(now, p, b)
	c.commit(now, p, k, b, len(b) == bare)
	return b
}

// nextCopy gives a packet that another path has sent, too.
func (c *core) nextCopy(now time.Duration, p *pathState, dst []byte) []byte {
	b := append(dst[:0], p.copies[0]...)
	p.copies[0] = nil
	if p.copies = p.copies[1:]; len(p.copies) == 0 {
		p.copies = nil
	}
	c.stats.PacketsCopied++
	c.handOver(now, p, maxNumber, b)
	return b
}

// handOver notes that the bytes b go to the carrier of p, as packet number n.
func (c *core) handOver(now time.Duration, p *pathState, n uint64, b []byte) {
	c.stats.PacketsSent++
	c.stats.BytesSent += uint64(len(b))
	p.counts.sent++
	p.hop.sent(n)
	p.busy, p.slowSeen, p.sentAt = true, false, now
}

// commit notes that packet k, with the bytes b, is on its way.
func (c *core) commit(now time.Duration, p *pathState, k *sentPacket, b []byte, bare bool) {
	c.handOver(now, p, c.ring.next, b)
	if bare {
		c.stats.BareAcksSent++
		c.ring.push(nil)
		c.recycle(k)
	} else {
		k.number = c.ring.next
		k.cost = len(b) + packetCost
		c.ring.push(k)
		p.onSent(now, k, !c.hasWork())
	}
}

// sent says that the carrier of p has taken the packet next gave.
func (c *core) sent(now time.Duration, p *pathState) {
	p.taken(now)
	c.choose(now)
}

// accepted says that the first hop of p has taken the packet with this index.
func (c *core) accepted(p *pathState, index uint64) {
	p.hop.answers = true
	p.hop.settle(index)
}

// rejected says that the first hop of p has refused the packet with this index
// for its rate. What it carried goes again at once, and no loss is noted.
func (c *core) rejected(now time.Duration, p *pathState, index uint64) {
	p.hop.answers = true
	n, ok := p.hop.settle(index)
	if !ok || p.gone || c.err != nil {
		return
	}
	c.stats.PacketsRefused++
	p.counts.refused++
	p.throttle.refused(now, index, p.hop.next())
	c.choose(now)
	if k := c.ring.find(n); k != nil && !k.lost {
		p.settle(k)
		c.requeue(k)
		c.ring.drop(n)
		c.recycle(k)
	}
	if n != maxNumber { // it may have held an acknowledgement
		c.rx.repeat(now)
	}
}

// goodbye builds the last packet of a session on path p, once.
func (c *core) goodbye(p *pathState, dst []byte) []byte {
	if c.closing == nil || p.said {
		return nil
	}
	p.said = true
	b := wire.AppendHeader(dst[:0], wire.Header{Direction: c.dir, Session: c.cfg.ID, Number: c.ring.next})
	c.ring.next++ // no packet is looked up any more
	return c.closing.Append(b)
}

// ready reports whether path p has a packet to send now.
func (c *core) ready(now time.Duration, p *pathState) bool {
	if p.gone || p.busy {
		return false
	}
	if c.err != nil {
		return c.closing != nil && !p.said
	}
	if p.probes > 0 || p.pingDue || len(p.copies) > 0 {
		return true
	}
	if due, ok := c.rx.due(c.cfg.AckDelay); ok && due <= now && c.answers(now, p) {
		return true
	}
	if !c.mayCarry(now, p) || !c.hasWork() {
		return false
	}
	return c.fills(p.maxPacket) || p.holdUntil() <= now && c.preferred(now, p)
}

// holdUntil is until when small writes wait for company on p.
func (p *pathState) holdUntil() time.Duration {
	if !p.hop.answers || p.hop.waiting == 0 {
		return 0
	}
	return p.sentAt + holdFor
}

// fills reports whether there is enough to fill a packet of n bytes.
func (c *core) fills(n int) bool {
	if c.fresh.n+c.bulk.n > 64 {
		return true
	}
	session := c.txRoom()
	total := uint64(0)
	for _, l := range [...]*streamList{&c.fresh, &c.bulk} {
		for s := l.head; s != nil; s = s.next {
			if total += s.sendable(session); total >= uint64(n) {
				return true
			}
		}
	}
	return false
}

// fill appends what there is to send, the urgent first, and notes in k what
// that was.
func (c *core) fill(p *pathState, k *sentPacket, b []byte) []byte {
	if c.sendLimit && p.maxPacket-len(b) >= minPiece {
		f := wire.MaxData{Limit: c.rxLimit}
		b = f.Append(b)
		k.frames = append(k.frames, sentFrame{kind: sentMaxData, off: c.rxLimit})
		c.sendLimit = false
	}
	if c.sendGoAway && p.maxPacket-len(b) >= minPiece {
		b = wire.AppendGoAway(b)
		k.frames = append(k.frames, sentFrame{kind: sentGoAway})
		c.sendGoAway = false
	}
	for c.control.head != nil {
		var ok bool
		if b, ok = c.appendControl(c.control.head, k, b, p.maxPacket); !ok {
			return b
		}
		c.control.pop()
	}
	for s := c.pick(); s != nil && p.maxPacket-len(b) >= minPiece; s = c.pick() {
		before := len(b)
		var full bool
		if b, full = c.appendStream(s, k, b, p.maxPacket); full && len(b) == before {
			break
		}
		c.took(s, len(b)-before)
	}
	return b
}

// pick is the stream whose turn it is, or nil. It stays at the head of its
// list.
func (c *core) pick() *stream {
	if c.fresh.head != nil && (c.bulk.head == nil || c.freshSent < freshRun) {
		return c.fresh.head
	}
	return c.bulk.head
}

// took moves a stream on that has sent n bytes. One with nothing left goes; one
// that has had its share lines up with the bulk.
func (c *core) took(s *stream, n int) {
	l := &c.bulk
	if s.active == fresh {
		l = &c.fresh
		c.freshSent += n
	} else {
		c.freshSent = 0
	}
	s.deficit -= n
	switch {
	case !s.canSend(c.txRoom()):
		l.pop()
		s.active = inactive
	case s.deficit <= 0:
		l.pop()
		s.active = bulk
		s.deficit += quantum
		c.bulk.push(s)
	}
}
