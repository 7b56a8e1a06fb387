package session

import "time"

// sentPacket is a packet on its way that asks for an acknowledgement. It is in
// one list of its path: outstanding, or lost.
type sentPacket struct {
	number uint64
	path   *pathState
	at     time.Duration // when the carrier took it
	cost   int
	lost   bool
	moved  bool // its frames were queued again: another packet answers for them
	twin   bool // another path has a copy: its arrival says nothing of this one
	calm   bool // little was ahead of it
	frames []sentFrame

	// What the path had delivered when it left, for the delivery rate.
	delivered   int64
	deliveredAt time.Duration
	firstAt     time.Duration
	limited     bool // there was no more to send

	prev, next *sentPacket
}

// packetList is a list of packets in the order they were sent.
type packetList struct{ head, tail *sentPacket }

func (l *packetList) push(p *sentPacket) {
	p.prev, p.next = l.tail, nil
	if l.tail == nil {
		l.head = p
	} else {
		l.tail.next = p
	}
	l.tail = p
}

func (l *packetList) remove(p *sentPacket) {
	if p.prev == nil {
		l.head = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
}

// unmoved is the oldest packet whose frames were not queued again, or nil.
func (l *packetList) unmoved() *sentPacket {
	k := l.head
	for k != nil && k.moved {
		k = k.next
	}
	return k
}

// sentRing finds sent packets by number. It spans the numbers from base up to,
// but not including, next; most of them are nil: acknowledged, forgotten, or
// never tracked.
type sentRing struct {
	slots []*sentPacket // a power of two, or none yet
	base  uint64
	next  uint64
}

// maxNumber is above every packet number.
const maxNumber = 1 << 62

// maxTracked is how many packet numbers the ring spans at most.
const maxTracked = 1 << 15

func (r *sentRing) get(n uint64) *sentPacket {
	return r.slots[n&uint64(len(r.slots)-1)]
}

// find gives the packet with number n, or nil when that has been settled.
func (r *sentRing) find(n uint64) *sentPacket {
	if n < r.base || n >= r.next {
		return nil
	}
	return r.get(n)
}

// push enters the packet with the number next, or nil to skip it.
func (r *sentRing) push(p *sentPacket) {
	if r.next-r.base == uint64(len(r.slots)) {
		r.grow()
	}
	r.slots[r.next&uint64(len(r.slots)-1)] = p
	r.next++
	r.trim()
}

// drop forgets a packet.
func (r *sentRing) drop(n uint64) {
	r.slots[n&uint64(len(r.slots)-1)] = nil
	r.trim()
}

func (r *sentRing) trim() {
	for r.base < r.next && r.get(r.base) == nil {
		r.base++
	}
}

func (r *sentRing) grow() {
	slots := make([]*sentPacket, max(64, 2*len(r.slots)))
	for n := r.base; n < r.next; n++ {
		slots[n&uint64(len(slots)-1)] = r.get(n)
	}
	r.slots = slots
}

// full reports that the ring can take no more without forgetting.
func (r *sentRing) full() bool { return r.next-r.base >= maxTracked }
