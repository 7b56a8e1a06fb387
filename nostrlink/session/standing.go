package session

import "time"

// standing is what a path is worth, best first.
type standing uint8

const (
	sound    standing = iota // acknowledges what it gets
	doubtful                 // one probe is unanswered, or its carrier is slow to take a packet
	silent                   // more are: it gets nothing but probes
)

const (
	maxBackoff = 2 * time.Second  // between probes while no path is alive, unless the timeout is longer
	maxTimeout = 10 * time.Second // and then
	// quiet is the least time without any news before a path is probed.
	quiet = 200 * time.Millisecond
	// standbyProbe and idleProbe are the longest pauses between probes of a
	// silent path while another one carries, and while nothing is to be carried.
	standbyProbe = 15 * time.Second
	idleProbe    = time.Minute
	// standbyPing and idlePing are how long a path that is one of several may
	// have nothing to acknowledge before it gets a PING: a relay counts events.
	standbyPing = 20 * time.Second
	firstPing   = 5 * time.Second // while its round trip is unknown
	idlePing    = 2 * time.Minute
	// idleAfter is how long there must be nothing to carry for that.
	idleAfter = time.Minute
)

const (
	// slowAfter is how long a carrier may take for a packet before what that
	// carries goes by another path too.
	slowAfter = 700 * time.Millisecond
	// minSlow and maxSlow bound for how long such a path is avoided.
	minSlow = 2 * time.Second
	maxSlow = 10 * time.Second
	// minProof and maxProof bound how long a path that fell silent must be sound
	// before it is preferred again; it doubles with each time.
	minProof = 2 * time.Second
	maxProof = 2 * time.Minute
)

// assess updates the standing of p.
func (p *pathState) assess(now time.Duration) {
	is := sound
	switch {
	case p.timeouts >= 2:
		is = silent
	case p.timeouts == 1, p.slow(now):
		is = doubtful
	}
	switch {
	case is == sound && p.standing != sound:
		p.soundSince = now
	case is == silent && p.standing != silent:
		p.distrust(now)
	}
	p.standing = is
}

// distrust notes that p has failed, or was given up for a better path.
func (p *pathState) distrust(now time.Duration) {
	if now-p.soundSince > 5*maxProof {
		p.proof = minProof
	} else {
		p.proof = min(2*p.proof, maxProof)
	}
	p.soundSince = now
}

// proven reports whether p has been sound for long enough to be relied on.
func (p *pathState) proven(now time.Duration) bool {
	return p.standing == sound && now-p.soundSince >= p.proof
}

// slow reports whether the carrier is slow to take a packet, or was just now.
func (p *pathState) slow(now time.Duration) bool {
	return now < p.slowUntil || p.busy && now-p.sentAt >= slowAfter
}

// taken notes that the carrier has taken the packet it was handed.
func (p *pathState) taken(now time.Duration) {
	p.busy = false
	if took := now - p.sentAt; took >= slowAfter {
		p.slowUntil = now + min(max(took, minSlow), maxSlow)
	}
	if p.handed != nil { // its way begins now
		p.handed.at = now
		p.handed = nil
	}
}

// probeTimeout is how long the path may say nothing while packets are out.
func (p *pathState) probeTimeout(ackDelay time.Duration) time.Duration {
	if !p.hasRTT {
		return initialRTT
	}
	d := max(p.srtt, p.latest) + max(4*p.rttvar, 2*minReorder) + p.reorder + ackDelay
	return min(d, maxTimeout)
}

// probeAt is when the path is probed next; a silent one is for ever. most is
// the longest pause between probes.
func (p *pathState) probeAt(ackDelay, most time.Duration) time.Duration {
	d := p.probeTimeout(ackDelay)
	switch head := p.outstanding.head; {
	case p.probes > 0 && !p.busy:
		return never // it goes at once
	case p.timeouts > 1:
		return p.probedAt + min(d<<min(p.timeouts-1, 8), max(d, most))
	case p.timeouts == 1:
		return p.probedAt + d
	case head == nil || head == p.handed:
		return never
	default:
		return max(head.at+d, p.probedAt+d, p.progressAt+quiet)
	}
}

// overdueAt is when the oldest packet that no other path carries, too, is overdue.
func (p *pathState) overdueAt(ackDelay time.Duration) time.Duration {
	k := p.outstanding.unmoved()
	if k == nil || k == p.handed {
		return never
	}
	return k.at + p.probeTimeout(ackDelay)
}

// throttle keeps the core from sending to a first hop that refuses most packets
// for their rate. Pacing is the carrier's; this only bounds the waste.
type throttle struct {
	limitedUntil time.Duration // refused lately
	restUntil    time.Duration // nothing goes before
	rest         time.Duration // doubles when there was no peace since the last
	since        uint64        // the first index handed over after the last rest began
}

const (
	limitedFor = 3 * time.Second
	minRest    = 50 * time.Millisecond
	maxRest    = 2 * time.Second
)

// refused notes that the packet with this index was refused; next is the index
// of the next packet.
func (t *throttle) refused(now time.Duration, index, next uint64) {
	t.limitedUntil = now + limitedFor
	if index < t.since {
		return // as another one of the same burst
	}
	if now-t.restUntil > max(time.Second, t.rest) {
		t.rest = 0
	}
	t.rest = min(max(2*t.rest, minRest), maxRest)
	t.restUntil = now + t.rest
	t.since = next
}
