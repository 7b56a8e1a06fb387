package session

import "time"

// The window of a path, in bytes of packets and what each costs beside.
const (
	minWindow  = 1 << 20  // it starts here too: no slow start below
	maxWindow  = 24 << 20 // strfry drops a subscriber with 32 MiB unsent
	packetCost = 512      // what an event costs beside its bytes
)

const (
	initialRTT   = time.Second            // before the first sample
	minReorder   = 10 * time.Millisecond  // the least reordering window
	maxReorder   = 300 * time.Millisecond // how far it widens, unless the round trip is longer
	calmReorder  = 30 * time.Second       // it narrows after so long without a spurious loss
	maxBackoff   = 4 * time.Second        // between probes, unless the timeout is longer
	maxTimeout   = 10 * time.Second       // and then
	minRTTExpiry = 10 * time.Second       // the shortest round trip is looked for again after this
	minDrain     = 200 * time.Millisecond // for so long with no queue of ours, at least
	lostMemory   = 10 * time.Second       // how long a lost packet may still prove spurious
	limitedFor   = 3 * time.Second        // how long a refusal for the rate counts
)

// sentPacket is a packet on its way that asks for an acknowledgement. It is in
// one list of its path: outstanding, or lost.
type sentPacket struct {
	number uint64
	path   *pathState
	at     time.Duration
	cost   int
	lost   bool
	moved  bool // its frames were queued again: another packet answers for them
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

// pathState is what the core knows of one carrier.
type pathState struct {
	maxPacket int
	gone      bool // detached
	said      bool // the session's last packet was handed out
	busy      bool // a packet was handed out and sent has not been called for it

	outstanding packetList
	inflight    int // cost of outstanding
	lost        packetList

	hasRTT       bool
	srtt, rttvar time.Duration
	latest       time.Duration
	minRTT       time.Duration
	minAt        time.Duration
	drainUntil   time.Duration // or 0
	drainMin     time.Duration
	reorder      time.Duration // learned from spurious losses
	spuriousAt   time.Duration
	newest       uint64        // the largest number acknowledged, plus one
	lossAt       time.Duration // when the oldest packet will count as lost, or never
	progressAt   time.Duration // the last acknowledgement of something
	probedAt     time.Duration // the last probe
	timeouts     int           // probe timeouts since then
	probes       int           // packets that may go beyond the window
	delivered    int64
	deliveredAt  time.Duration
	firstAt      time.Duration
	rate         windowed[int64] // bytes per second
	window       int
	burst        burst
	limitedUntil int64 // samples before this much is delivered have seen a pause
	hop          firstHop
	refusedUntil time.Duration // the first hop has refused packets for their rate
	sentAt       time.Duration
	sent         uint64
	lostPackets  uint64
	refused      uint64
	spurious     uint64
	news         ackNews
}

// ackNews gathers what one acknowledgement says about a path.
type ackNews struct {
	count  int
	cost   int
	sum    time.Duration // of round trips
	min    time.Duration
	newest *sentPacket
}

const never = time.Duration(1<<63 - 1)

func newPathState(now time.Duration, maxPacket int) *pathState {
	return &pathState{maxPacket: maxPacket, window: minWindow, lossAt: never, progressAt: now, deliveredAt: now}
}

// onSent notes that packet k has left.
func (p *pathState) onSent(now time.Duration, k *sentPacket, limited bool) {
	if p.inflight == 0 {
		p.firstAt, p.deliveredAt = now, now
		p.progressAt = max(p.progressAt, now)
	}
	if limited {
		p.limitedUntil = p.delivered + int64(p.inflight+k.cost)
	}
	k.path, k.at = p, now
	k.delivered, k.deliveredAt, k.firstAt = p.delivered, p.deliveredAt, p.firstAt
	k.limited = p.delivered < p.limitedUntil
	p.outstanding.push(k)
	p.inflight += k.cost
	p.sent++
}

// onAcked takes k off its list and notes what its arrival tells. The caller
// has seen to its frames.
func (p *pathState) onAcked(now time.Duration, k *sentPacket) {
	rtt := now - k.at
	p.delivered += int64(k.cost)
	if k.lost {
		p.lost.remove(k)
		p.onSpurious(now, rtt)
	} else {
		p.outstanding.remove(k)
		p.inflight -= k.cost
	}
	p.newest = max(p.newest, k.number+1)
	n := &p.news
	if n.newest == nil || k.number > n.newest.number {
		n.newest = k
	}
	// An old packet may have arrived long ago: acknowledgements get lost.
	rtt = min(rtt, now-n.newest.at+p.lossDelay())
	if n.count == 0 || rtt < n.min {
		n.min = rtt
	}
	n.count++
	n.cost += k.cost
	n.sum += rtt
}

// onSpurious widens the reordering window by what would have been needed.
func (p *pathState) onSpurious(now, rtt time.Duration) {
	p.spurious++
	late := rtt - max(p.srtt, p.latest)
	p.reorder = min(max(p.reorder, late+late/4), max(maxReorder, p.srtt))
	p.spuriousAt = now
}

// afterAck draws the conclusions of the acknowledgement that onAcked was
// called for. delay is what the peer waited before it sent it.
func (p *pathState) afterAck(now, delay time.Duration) {
	n := p.news
	p.news = ackNews{}
	p.progressAt = now
	p.timeouts, p.probes = 0, 0
	if n.min > delay {
		p.sampleRTT(now, n.sum/time.Duration(n.count)-delay, n.min-delay)
	}
	p.sampleRate(now, n.newest)
	p.sampleBurst(now, n.cost)
	p.firstAt, p.deliveredAt = n.newest.at, now
	p.resize()
	if p.inflight == 0 {
		p.hop.forget()
	}
	if p.reorder > 0 && now-p.spuriousAt > calmReorder {
		p.reorder /= 2
		p.spuriousAt = now
	}
}

func (p *pathState) sampleRTT(now, mean, least time.Duration) {
	p.latest = mean
	if !p.hasRTT {
		p.hasRTT = true
		p.srtt, p.rttvar, p.minRTT, p.minAt = mean, mean/2, least, now
		return
	}
	p.rttvar += ((mean - p.srtt).Abs() - p.rttvar) / 4
	p.srtt += (mean - p.srtt) / 8
	if least <= p.minRTT {
		p.minRTT, p.minAt = least, now
	}
	switch {
	case p.drainUntil == 0 && now-p.minAt <= minRTTExpiry:
	case p.drainUntil == 0 && p.inflight < p.window/2:
		p.minRTT, p.minAt = least, now // there is no queue of ours
	case p.drainUntil == 0:
		p.drainUntil, p.drainMin = now+max(minDrain, p.srtt), least
	case p.drainUntil > now:
		p.drainMin = min(p.drainMin, least)
	default:
		p.minRTT, p.minAt = min(p.drainMin, least), now
		p.drainUntil = 0
	}
}

// sampleRate takes the delivery rate over k's flight: what arrived meanwhile,
// by the longer of the times it took to send and to hear of it.
func (p *pathState) sampleRate(now time.Duration, k *sentPacket) {
	took := max(k.at-k.firstAt, now-k.deliveredAt)
	if took <= 0 || took < p.minRTT {
		return
	}
	rate := int64(float64(p.delivered-k.delivered) / took.Seconds())
	if best, ok := p.rate.get(more); k.limited && ok && rate <= best {
		return
	}
	p.rate.add(now, min(max(5*p.srtt, time.Second/2), 5*time.Second), rate, more)
}

// resize sets the window to twice what the path holds: one share is on the
// way, the other keeps it busy while acknowledgements gather.
func (p *pathState) resize() {
	rate, ok := p.rate.get(more)
	if !ok {
		return
	}
	holds := float64(rate) * p.minRTT.Seconds()
	if p.drainUntil > 0 {
		p.window = max(4*(p.maxPacket+packetCost), min(int(holds*3/4), maxWindow))
		return
	}
	extra, _ := p.burst.most.get(more)
	p.window = int(min(max(2*holds+float64(extra), minWindow), maxWindow))
}

// burst measures how much more arrives at once than the rate would bring: a
// relay that delivers every 100 ms needs that much beyond the window of one
// that delivers evenly.
type burst struct {
	since time.Duration
	acked int64
	most  windowed[int64]
}

// maxBurst is the time whose worth of bytes a burst counts for at most.
const maxBurst = 300 * time.Millisecond

func (p *pathState) sampleBurst(now time.Duration, acked int) {
	rate, ok := p.rate.get(more)
	if !ok {
		return
	}
	b := &p.burst
	if due := int64(float64(rate) * (now - b.since).Seconds()); due >= b.acked {
		b.since, b.acked = now, 0
	}
	b.acked += int64(acked)
	extra := b.acked - int64(float64(rate)*(now-b.since).Seconds())
	b.most.add(now, min(max(5*p.srtt, time.Second/2), 5*time.Second), min(extra, int64(float64(rate)*maxBurst.Seconds())), more)
}

// lossDelay is how old a packet gets before a younger one's arrival proves it
// lost.
func (p *pathState) lossDelay() time.Duration {
	return max(p.srtt, p.latest) + max(p.reorder, p.srtt/8, minReorder)
}

// probeTimeout is how long the path may say nothing while packets are out.
func (p *pathState) probeTimeout(ackDelay time.Duration) time.Duration {
	if !p.hasRTT {
		return initialRTT << min(p.timeouts, 2)
	}
	d := max(p.srtt, p.latest) + max(4*p.rttvar, 2*minReorder) + p.reorder + ackDelay
	return min(d<<min(p.timeouts, 8), max(d, maxBackoff), maxTimeout)
}

// probeAt is when the path is probed next.
func (p *pathState) probeAt(ackDelay time.Duration) time.Duration {
	if p.outstanding.head == nil || p.busy || p.probes > 0 {
		return never
	}
	return max(p.progressAt, p.probedAt, p.outstanding.head.at) + p.probeTimeout(ackDelay)
}

// healthy paths carry data; the others only probes while there is one.
func (p *pathState) healthy() bool { return p.timeouts < 2 }

// backlog is how long a byte handed to the path now takes to arrive.
func (p *pathState) backlog() time.Duration {
	d := p.srtt / 2
	if !p.hasRTT {
		d = initialRTT / 2
	}
	if rate, ok := p.rate.get(more); ok && rate > 0 {
		d += time.Duration(float64(p.inflight) / float64(rate) * float64(time.Second))
	}
	return d
}
