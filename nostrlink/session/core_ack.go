package session

import (
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// frameKind says what a sent packet carried.
type frameKind uint8

const (
	sentData frameKind = iota
	sentOpen           // with the stream's first n bytes, or a datagram
	sentDatagrams
	sentOpened
	sentMaxData // off is the limit; of the session when stream is nil
	sentStop
	sentReset
	sentGoAway
)

// sentFrame is what must be sent again when its packet is lost.
type sentFrame struct {
	stream *stream
	off    uint64
	n      uint32
	kind   frameKind
	fin    bool
}

// onAck takes the peer's word on what has arrived.
func (c *core) onAck(now time.Duration, f *wire.Ack) {
	if f.Ranges[0].Largest >= c.ring.next {
		c.violation(wire.CodeProtocol, "packet %d acknowledged, %d were sent", f.Ranges[0].Largest, c.ring.next)
		return
	}
	for _, r := range f.Ranges {
		for n := max(r.Smallest, c.ring.base); n <= r.Largest; n++ {
			k := c.ring.get(n)
			if k == nil {
				continue
			}
			c.ring.slots[n&uint64(len(c.ring.slots)-1)] = nil
			if k.lost {
				c.stats.PacketsSpurious++
			}
			k.path.onAcked(now, k)
			c.onArrived(now, k)
			c.acked = append(c.acked, k)
		}
	}
	if len(c.acked) == 0 {
		return
	}
	c.ring.trim()
	c.progressAt = now
	delay := time.Duration(min(f.Delay, uint64(time.Minute/time.Microsecond))) * time.Microsecond
	for _, p := range c.paths {
		if p.news.count > 0 {
			p.afterAck(now, delay)
			c.detectLoss(now, p)
		}
	}
	c.choose(now)
	for i, k := range c.acked {
		c.recycle(k)
		c.acked[i] = nil
	}
	c.acked = c.acked[:0]
}

// onArrived notes that the frames of a packet have arrived.
func (c *core) onArrived(now time.Duration, k *sentPacket) {
	for i := range k.frames {
		f := &k.frames[i]
		s := f.stream
		if s == nil || s.gone {
			continue
		}
		if s.idle > 0 {
			s.idle = now
		}
		if f.kind == sentOpen {
			s.heard = true
			s.need &^= needOpen
		}
		switch {
		case s.dg != nil && (f.kind == sentOpen || f.kind == sentDatagrams):
			if !k.moved {
				c.landed(s)
			}
			continue
		case f.kind == sentData, f.kind == sentOpen:
			if !s.resetSent {
				c.arrived(s, f.off, uint64(f.n))
				s.out.finAcked = s.out.finAcked || f.fin
			}
		case f.kind == sentReset:
			s.resetDone = true
		default:
			continue
		}
		c.settle(s)
	}
}

// landed notes that a packet with datagrams of s has arrived or is lost.
func (c *core) landed(s *stream) {
	s.dg.flying--
	c.endFlow(s)
}

// detectLoss gives up the packets of p that are too old beside the newest
// arrival.
func (c *core) detectLoss(now time.Duration, p *pathState) {
	p.lossAt = never
	delay := p.lossDelay()
	for k := p.outstanding.head; k != nil && k.number < p.newest; k = p.outstanding.head {
		if now-k.at < delay {
			p.lossAt = k.at + delay
			return
		}
		p.onLost()
		c.lose(k)
	}
	c.forgetLost(now, p)
}

// lose gives a packet up: its frames go again. It is remembered for a while,
// so that a late acknowledgement shows the loss to be spurious.
func (c *core) lose(k *sentPacket) {
	k.path.settle(k)
	k.lost = true
	k.path.lost.push(k)
	c.stats.PacketsLost++
	c.requeue(k)
}

// requeue sends the frames of a packet again, once.
func (c *core) requeue(k *sentPacket) {
	if k.moved {
		return
	}
	k.moved = true
	for i := range k.frames {
		f := &k.frames[i]
		s := f.stream
		if s == nil { // of the session
			c.sendLimit = c.sendLimit || f.kind == sentMaxData && f.off == c.rxLimit
			c.sendGoAway = c.sendGoAway || f.kind == sentGoAway
			continue
		}
		if s.gone {
			continue
		}
		switch f.kind {
		case sentData:
			c.requeueData(s, f)
		case sentDatagrams:
			c.landed(s)
		case sentOpen:
			if !s.heard {
				c.want(s, needOpen)
			}
			if s.dg != nil {
				c.landed(s)
			} else {
				c.requeueData(s, f)
			}
		case sentOpened:
			c.want(s, needOpened)
		case sentMaxData:
			if !s.in.hasFinal && f.off == s.in.limit {
				c.want(s, needMaxData)
			}
		case sentStop:
			if !s.in.hasFinal {
				c.want(s, needStop)
			}
		case sentReset:
			if !s.resetDone {
				c.want(s, needReset)
			}
		}
	}
}

func (c *core) requeueData(s *stream, f *sentFrame) {
	if s.resetSent {
		return
	}
	s.out.again(f.off, uint64(f.n))
	if f.fin && !s.out.finAcked {
		s.out.finSent = false
	}
	c.activate(s)
}

// probe asks a path that has fallen silent for a sign of life, with what it
// has not acknowledged for longest. What a path carried that stays silent goes
// by the others.
func (c *core) probe(now time.Duration, p *pathState) {
	p.probedAt = now
	p.timeouts++
	p.probes = 1
	c.stats.Probes++
	c.choose(now)
	if p.standing != c.level && p.standing == silent {
		for k := p.outstanding.head; k != nil && k != p.handed; k = p.outstanding.head {
			c.lose(k)
		}
	}
	if k := p.outstanding.unmoved(); k != nil {
		c.requeue(k)
	}
}

// bypass sends by other paths what the carrier of p does not take.
func (c *core) bypass(now time.Duration, p *pathState) {
	p.slowSeen = true
	c.choose(now)
	if k := p.handed; k != nil && p.standing != c.level {
		c.requeue(k)
	}
}

// forgetLost drops the memory of packets lost long ago.
func (c *core) forgetLost(now time.Duration, p *pathState) {
	for k := p.lost.head; k != nil && now-k.at > lostMemory; k = p.lost.head {
		c.forget(k)
	}
}

func (c *core) forget(k *sentPacket) {
	k.path.lost.remove(k)
	c.ring.drop(k.number)
	c.recycle(k)
}

// makeRoom keeps the ring of sent packets within its bound: the oldest one is
// given up and forgotten.
func (c *core) makeRoom() {
	for c.ring.full() {
		k := c.ring.get(c.ring.base)
		if !k.lost {
			c.lose(k)
		}
		c.forget(k)
	}
}

// maxFree is how many packets are kept for use again.
const maxFree = 1024

func (c *core) recycle(k *sentPacket) {
	if len(c.free) == maxFree || cap(k.frames) > 64 {
		return
	}
	clear(k.frames)
	*k = sentPacket{frames: k.frames[:0]}
	c.free = append(c.free, k)
}

func (c *core) newPacket() *sentPacket {
	n := len(c.free)
	if n == 0 {
		return new(sentPacket)
	}
	k := c.free[n-1]
	c.free = c.free[:n-1]
	return k
}
