package session

import "time"

// The window of a path, in bytes of packets and what each costs beside.
const (
	minRTTExpiry = 10 * time.Second       // the shortest round trip is looked for again after this
	minDrain     = 200 * time.Millisecond // for so long with no queue of ours, at least
)

const (
	minWindow  = 1 << 20  // it starts here too: no slow start below
	maxWindow  = 24 << 20 // strfry drops a subscriber with 32 MiB unsent
	packetCost = 512      // what an event costs beside its bytes
)

// sampleRTT takes the round trips of one acknowledgement; calm says that the
// newest of its packets found no queue of ours.
func (p *pathState) sampleRTT(now, mean, least time.Duration, calm bool) {
	p.latest = mean
	if !p.hasRTT {
		p.hasRTT = true
		p.srtt, p.rttvar, p.minRTT, p.minAt = mean, mean/2, least, now
		p.calm = mean
		return
	}
	switch {
	case p.standing == silent: // it may be another one now
		p.calm = mean
	case calm && mean < p.calm:
		p.calm += (mean - p.calm) / 2
	case calm:
		p.calm += (mean - p.calm) / 8
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
	// The shortest round trip says little of a path that delays at random.
	holds := float64(rate) * max(p.minRTT, p.calm).Seconds()
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
