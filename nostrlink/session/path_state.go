package session

import "time"

const (
	initialRTT  = time.Second            // before the first sample
	minReorder  = 10 * time.Millisecond  // the least reordering window
	maxReorder  = 300 * time.Millisecond // how far it widens, unless the round trip is longer
	calmReorder = 30 * time.Second       // it narrows after so long without a spurious loss
	lostMemory  = 10 * time.Second       // how long a lost packet may still prove spurious
)

// pathState is what the core knows of one carrier.
type pathState struct {
	maxPacket int
	preferred bool // see Session.AttachPreferred
	gone      bool // detached
	said      bool // the session's last packet was handed out

	// What is on its way.
	outstanding packetList
	inflight    int // cost of outstanding
	lost        packetList
	newest      uint64        // the largest number acknowledged, plus one
	lossAt      time.Duration // when the oldest packet will count as lost, or never
	copies      [][]byte      // of small packets that another path sends too

	// What the carrier does with it.
	busy      bool        // a packet was handed out and sent has not been called for it
	handed    *sentPacket // that packet, unless it is settled already
	sentAt    time.Duration
	slowSeen  bool // what it is slow to take goes by other paths too
	hop       firstHop
	throttle  throttle
	slowUntil time.Duration // it has been slow to take a packet

	// The round trip.
	hasRTT       bool
	srtt, rttvar time.Duration
	latest       time.Duration
	calm         time.Duration // smoothed over packets that found no queue of ours
	minRTT       time.Duration
	minAt        time.Duration
	drainUntil   time.Duration // or 0
	drainMin     time.Duration
	reorder      time.Duration // learned from spurious losses
	spuriousAt   time.Duration

	// The rate.
	delivered    int64
	deliveredAt  time.Duration
	firstAt      time.Duration
	rate         windowed[int64] // bytes per second
	window       int
	burst        burst
	limitedUntil int64 // samples before this much is delivered have seen a pause

	// Whether it lives.
	standing   standing
	carries    bool          // our packets go here
	soundSince time.Duration // when standing became sound
	proof      time.Duration // how long it must be sound before it is preferred again
	progressAt time.Duration // the last acknowledgement of something
	probedAt   time.Duration // the last probe
	timeouts   int           // probe timeouts since the last acknowledgement
	probes     int           // packets that may go whatever the state
	pingedAt   time.Duration
	pingDue    bool

	lossRate float64 // smoothed
	counts   struct{ sent, lost, refused, spurious uint64 }
	news     ackNews
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
	return &pathState{
		maxPacket: maxPacket, window: minWindow, lossAt: never,
		progressAt: now, deliveredAt: now, soundSince: now - maxProof, proof: minProof,
	}
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
	k.calm = p.inflight <= 2*p.maxPacket
	k.delivered, k.deliveredAt, k.firstAt = p.delivered, p.deliveredAt, p.firstAt
	k.limited = p.delivered < p.limitedUntil
	p.outstanding.push(k)
	p.inflight += k.cost
	p.handed = k
}

// settle takes k off the packets that are on their way.
func (p *pathState) settle(k *sentPacket) {
	if p.handed == k {
		p.handed = nil
	}
	if k.lost {
		p.lost.remove(k)
		return
	}
	p.outstanding.remove(k)
	p.inflight -= k.cost
}

// onAcked takes k off its list and notes what its arrival tells. The caller
// has seen to its frames.
func (p *pathState) onAcked(now time.Duration, k *sentPacket) {
	p.settle(k)
	if k.twin {
		return
	}
	rtt := now - k.at
	p.delivered += int64(k.cost)
	if k.lost {
		p.onSpurious(now, rtt)
	} else {
		since := (now - p.progressAt).Seconds() / lossFade.Seconds()
		p.lossRate -= p.lossRate * min(max(lossWeight, since), 1)
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

const (
	// lossWeight is what one packet counts in the smoothed rate of losses, and
	// lossFade how soon the rate of a path is forgotten that carries little.
	lossWeight = 1. / 64
	lossFade   = 2 * time.Minute
	// fewLosses do not make a path worse than another.
	fewLosses = 1. / 32
)

// onLost notes that a packet is thought lost while the path is alive.
func (p *pathState) onLost() {
	p.counts.lost++
	p.lossRate += (1 - p.lossRate) * lossWeight
}

// onSpurious widens the reordering window by what would have been needed.
func (p *pathState) onSpurious(now, rtt time.Duration) {
	p.counts.spurious++
	p.lossRate = max(0, p.lossRate-lossWeight)
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
		p.sampleRTT(now, n.sum/time.Duration(n.count)-delay, n.min-delay, n.newest.calm)
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

// lossDelay is how old a packet gets before a younger one's arrival proves it
// lost.
func (p *pathState) lossDelay() time.Duration {
	return max(p.srtt, p.latest) + max(p.reorder, p.srtt/8, minReorder)
}

// cost is how long the path is thought to take for what matters: its round
// trip without any queue of ours, and what repairing losses adds.
func (p *pathState) cost() time.Duration {
	if !p.hasRTT {
		return initialRTT
	}
	rtt := max(p.calm, p.minRTT)
	return rtt + time.Duration(4*max(0, p.lossRate-fewLosses)*float64(rtt+p.lossDelay()))
}
