package session

import "time"

const (
	// dwell is how long the primary path stays, unless it fails.
	dwell = 2 * time.Second
	// A path is preferred to the primary when it costs less than betterBy of
	// that, or hardly more and it was attached earlier.
	betterBy = 0.7
	sameBy   = 10 * time.Millisecond
	// Striping uses paths that cost at most reachBy of the best and reachPast
	// beyond that: data of a slower one would only hold up the rest.
	reachBy   = 2
	reachPast = 250 * time.Millisecond
	// maxTwin is the largest packet that is sent twice, and maxCopies how many
	// copies may wait for a path.
	maxTwin   = 1200
	maxCopies = 16
)

// choose decides which paths carry what we send. It is called after everything
// that may change the answer.
func (c *core) choose(now time.Duration) {
	c.level = silent
	for _, p := range c.paths {
		p.assess(now)
		c.level = min(c.level, p.standing)
	}
	if len(c.paths) == 0 {
		c.primary = nil
		return
	}
	c.alone = c.prefers(now)
	best := c.cheapest(nil)
	if c.cfg.Spread == Stripe {
		reach := reachBy*best.cost() + reachPast
		for _, p := range c.paths {
			p.carries = p.standing == c.level && p.cost() <= reach && !c.yields(p)
		}
		return
	}
	c.elect(now, best)
	spill := now < c.primary.throttle.limitedUntil
	second := c.cheapest(c.primary)
	for _, p := range c.paths {
		p.carries = p == c.primary || spill && p == second
	}
}

// prefers reports whether there is a preferred path that can be relied on. Then
// the others only stand by.
func (c *core) prefers(now time.Duration) bool {
	for _, p := range c.paths {
		if p.preferred && p.hasRTT && p.proven(now) {
			return true
		}
	}
	return false
}

// yields reports whether p stands by for a preferred path.
func (c *core) yields(p *pathState) bool { return c.alone && !p.preferred }

// elect makes best the primary path if there is none, if that has failed, or if
// it is worth the change.
func (c *core) elect(now time.Duration, best *pathState) {
	old := c.primary
	switch {
	case old == nil, old.gone, old.standing != c.level, c.yields(old):
		c.primary, c.electedAt = best, now
		return
	case now-c.electedAt < dwell:
		return
	}
	same := old.cost() + max(sameBy, old.cost()/8)
	less := time.Duration(betterBy*float64(old.cost())) - sameBy
	for _, p := range c.paths {
		if p != old && !c.yields(p) && p.proven(now) && (p.cost() < less || p.cost() <= same && c.earlier(p, old)) {
			old.distrust(now)
			c.primary, c.electedAt = p, now
			return
		}
	}
}

// earlier reports whether p was attached before q.
func (c *core) earlier(p, q *pathState) bool {
	for _, x := range c.paths {
		if x == p || x == q {
			return x == p
		}
	}
	return false
}

// cheapest is the path of the best standing that costs least, other than not and
// those that stand by for a preferred one; nil when there is none.
func (c *core) cheapest(not *pathState) (best *pathState) {
	for _, p := range c.paths {
		if p == not || p.standing != c.level || c.yields(p) {
			continue
		}
		if best == nil || p.cost() < best.cost() {
			best = p
		}
	}
	return best
}

// mayCarry reports whether p may take more than acknowledgements and probes.
func (c *core) mayCarry(now time.Duration, p *pathState) bool {
	return p.carries && p.standing != silent && p.inflight < p.window && now >= p.throttle.restUntil
}

// preferred reports whether p is where a packet arrives first. Full packets
// need not ask: they go wherever there is room.
func (c *core) preferred(now time.Duration, p *pathState) bool {
	able := c.mayCarry(now, p)
	for _, q := range c.paths {
		if q != p && !q.busy && c.mayCarry(now, q) && (!able || q.backlog() < p.backlog()) {
			return false
		}
	}
	return true
}

// answers reports whether p is where an acknowledgement goes when nothing else
// does: where the packet it speaks of came from, unless others are better off.
func (c *core) answers(now time.Duration, p *pathState) bool {
	if now < p.throttle.restUntil {
		return false
	}
	h := c.heardOn
	if h == nil || h.gone || h.standing != c.level || now < h.throttle.restUntil {
		return p.standing == c.level && c.preferred(now, p)
	}
	return p == h || h.busy && c.preferred(now, p)
}

// copy hands a small packet of p to a second path too, and reports whether it
// did.
func (c *core) copy(now time.Duration, p *pathState, packet []byte) bool {
	if !c.cfg.Duplicate || len(packet) > maxTwin {
		return false
	}
	q := c.cheapest(p)
	if q == nil || now < q.throttle.restUntil || len(q.copies) >= maxCopies {
		return false
	}
	q.copies = append(q.copies, append([]byte(nil), packet...))
	return true
}

// pingAt is when p, as one of several paths, is to get a PING because nothing
// else says whether it lives; at once when its round trip is unknown.
func (c *core) pingAt(now time.Duration, p *pathState) time.Duration {
	every := standbyPing
	switch {
	case c.idle(now):
		every = idlePing
	case !p.hasRTT:
		every = firstPing
	}
	switch {
	case len(c.paths) == 1, p.pingDue, p.inflight > 0, p.timeouts > 0:
		return never
	case !p.hasRTT && p.pingedAt == 0:
		return now
	}
	return max(p.progressAt, p.pingedAt) + every
}

// idle reports that nothing was to be carried for a while.
func (c *core) idle(now time.Duration) bool { return now-c.usedAt >= idleAfter }

// probeAt is when p is to be probed.
func (c *core) probeAt(now time.Duration, p *pathState) time.Duration {
	most := maxBackoff
	switch {
	case c.level == silent: // streams wait for the first one that lives
	case c.idle(now):
		most = idleProbe
	default:
		most = standbyProbe
	}
	return p.probeAt(c.cfg.AckDelay, most) // the peer is thought to be as patient
}

// overdueAt is when something that p has not acknowledged in time is to go by
// another path.
func (c *core) overdueAt(p *pathState) time.Duration {
	if p.timeouts == 0 || p.standing == c.level {
		return never
	}
	return p.overdueAt(c.cfg.AckDelay)
}

// slowAt is when the carrier of p will count as slow, or was found to be.
func (c *core) slowAt(p *pathState) time.Duration {
	if !p.busy || p.slowSeen || len(c.paths) == 1 {
		return never
	}
	return p.sentAt + slowAfter
}
