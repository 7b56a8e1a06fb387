package session

import (
	"fmt"
	"slices"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// maxIDGaps bounds how oddly a dialer may number its streams.
const maxIDGaps = 1024

// core is the session without I/O and without a clock: calls bring packets,
// the application's wishes and the time; next, deadline and the wakers of the
// streams are what comes out. It is not safe for concurrent use.
//
// The order of a caller's work: call anything, then for every path that is not
// busy call next until it gives nothing, then sleep until deadline and call
// tick.
type core struct {
	cfg     Config
	dir     wire.Direction // of the packets we send
	paths   []*pathState
	ring    sentRing
	rx      received
	heardOn *pathState // where the newest packet came from that asks for an answer

	level     standing   // the best of all paths
	alone     bool       // preferred paths carry; the others stand by
	primary   *pathState // with Primary
	electedAt time.Duration
	usedAt    time.Duration // when something other than a PING was last sent

	streams map[uint64]*stream // by id, until they are gone
	lastID  uint64             // dialer: the newest stream id
	ids     spans              // listener: the stream ids seen
	open    int                // streams that are not gone, with or without an id

	requests  []*stream // listener: opened by the peer and not yet taken
	control   controlList
	fresh     streamList
	bulk      streamList
	freshSent int       // bytes of fresh streams since a bulk one had its turn
	starved   []*stream // writers that wait for the session's buffer

	txLimit, txSent    uint64 // credit of all streams: granted to us, used
	txHeld             uint64 // bytes kept because their arrival is not known
	rxLimit, rxHighest uint64 // granted by us, used
	rxRead             uint64 // given back
	sendLimit          bool   // MAX_DATA of the session is to be sent
	unsent             int    // bytes all streams have written and not sent
	dgIn, dgOut        datagramTotal
	ping               bool // a PING is to be sent
	sendGoAway         bool // listener: a GOAWAY is to be sent
	toldToGo           bool // GOAWAY was sent, or has come

	waiting    bool          // the peer owes us an acknowledgement
	progressAt time.Duration // since then, or since the last one
	receivedAt time.Duration
	dataAt     time.Duration // when data of a stream or a datagram came last
	sweptAt    time.Duration

	inFrame  wire.Frame    // scratch of receive
	ackFrame wire.Ack      // scratch of next
	acked    []*sentPacket // scratch of onAck
	free     []*sentPacket

	err     error
	closing *wire.Close // to be sent, or nil
	stats   Stats
}

func newCore(cfg Config, now time.Duration) *core {
	cfg = cfg.withDefaults()
	c := &core{
		cfg:        cfg,
		dir:        wire.FromDialer,
		streams:    make(map[uint64]*stream),
		txLimit:    cfg.Peer.Window,
		rxLimit:    cfg.Local.Window,
		progressAt: now,
		receivedAt: now,
	}
	if cfg.Role == Listener {
		c.dir = wire.FromListener
	}
	return c
}

// attach adds a path for a carrier that takes packets of up to maxPacket bytes.
func (c *core) attach(now time.Duration, maxPacket int) *pathState {
	p := newPathState(now, max(wire.MinMaxPacket, min(maxPacket, c.cfg.Peer.MaxPacket)))
	c.paths = append(c.paths, p)
	c.choose(now)
	return p
}

// detach takes a path out of use; what it carried is sent again elsewhere.
func (c *core) detach(now time.Duration, p *pathState) {
	if p.gone {
		return
	}
	p.gone = true
	for k := p.outstanding.head; k != nil; k = p.outstanding.head {
		c.lose(k)
	}
	for k := p.lost.head; k != nil; k = p.lost.head {
		c.forget(k)
	}
	c.paths = slices.DeleteFunc(slices.Clone(c.paths), func(q *pathState) bool { return q == p })
	c.choose(now)
}

// fail ends the session with err. When tell is set the peer is told why.
func (c *core) fail(err error, tell *wire.Close) {
	if c.err != nil {
		return
	}
	c.err, c.closing = err, tell
	for _, s := range c.streams {
		c.kill(s, err)
	}
	for s := c.control.head; s != nil; s = s.nextCtl {
		c.kill(s, err) // those that have no id yet
	}
	clear(c.streams)
	c.control, c.fresh, c.bulk, c.starved, c.requests = controlList{}, streamList{}, streamList{}, nil, nil
}

// violation ends the session because the peer broke the protocol.
func (c *core) violation(code wire.Code, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.fail(fmt.Errorf("session: peer broke the protocol: %w", &wire.Error{Code: code, Text: text}),
		&wire.Close{Code: code, Text: []byte(text)})
}

// kill ends a stream at this end, without a word to the peer.
func (c *core) kill(s *stream, err error) {
	if s.err == nil {
		s.err = err
	}
	if !s.in.ended() {
		s.in.err = err
		s.in.final, s.in.hasFinal = s.in.ready(), true
	}
	c.dropUnsent(s)
	c.truncate(s)
	c.leave(s)
	s.wake()
}

// leave ends the bookkeeping for a stream.
func (c *core) leave(s *stream) {
	if s.gone {
		return
	}
	s.gone = true
	s.need = 0
	if s.dg != nil {
		c.dgOut.drop(&s.dg.out)
	}
	c.open--
	delete(c.streams, s.id)
}

// settle lets a stream go once both of its directions have ended.
func (c *core) settle(s *stream) {
	if s.gone {
		return
	}
	received := s.in.ended() || s.dg != nil && s.in.hasFinal || s.phase == refused
	sent := s.resetDone || !s.resetSent && s.dg == nil && s.out.ended()
	if received && sent {
		c.leave(s)
	}
}

func (s *stream) wake() {
	if s.owner != nil {
		s.owner.wakeReader()
		s.owner.wakeWriter()
	}
}

func (s *stream) wakeReader() {
	if s.owner != nil {
		s.owner.wakeReader()
	}
}

func (s *stream) wakeWriter() {
	if s.owner != nil {
		s.owner.wakeWriter()
	}
}

// want queues control frames of a stream.
func (c *core) want(s *stream, n need) {
	if s.gone || s.resetSent && n != needReset {
		return
	}
	s.need |= n
	c.control.push(s)
}

// activate gives a stream that may have something to send its place in the
// scheduler.
func (c *core) activate(s *stream) {
	if s.active == inactive && s.canSend(c.txRoom()) {
		s.active, s.deficit = fresh, quantum
		c.fresh.push(s)
	}
}

// outstanding reports whether the peer owes us an acknowledgement, or would if
// there were a path.
func (c *core) outstanding() bool {
	for _, p := range c.paths {
		if p.inflight > 0 {
			return true
		}
	}
	return c.hasWork()
}

// hasWork reports whether there is something to send beside acknowledgements.
func (c *core) hasWork() bool {
	return c.control.head != nil || c.fresh.n > 0 || c.bulk.n > 0 || c.sendLimit || c.sendGoAway || c.ping
}

// deadline is when tick is due, or never.
func (c *core) deadline(now time.Duration) time.Duration {
	if c.err != nil {
		return never
	}
	at := now + time.Minute // sweep
	if waits := c.outstanding(); waits != c.waiting {
		c.waiting, c.progressAt = waits, now
	}
	switch {
	case c.waiting:
		at = min(at, c.progressAt+c.cfg.DeadAfter)
	case c.cfg.Role == Dialer:
		at = min(at, c.receivedAt+c.keepAlive())
	}
	at = min(at, c.receivedAt+c.silence())
	due, owed := c.rx.due(c.cfg.AckDelay)
	if owed && due > now {
		at = min(at, due)
	}
	work := c.hasWork() || owed
	for _, p := range c.paths {
		at = min(at, p.lossAt, c.probeAt(now, p), c.pingAt(now, p), c.slowAt(p), c.overdueAt(p))
		for _, until := range [...]time.Duration{p.holdUntil(), p.throttle.restUntil} {
			if work && until > now {
				at = min(at, until)
			}
		}
	}
	return at
}

// keepAlive is how long the dialer hears nothing before it asks for a sign of
// life. It is less while something is being received, as whoever reads would
// otherwise wait that long for a peer that is gone.
func (c *core) keepAlive() time.Duration {
	const (
		reading = 4 * time.Second
		lately  = 30 * time.Second
	)
	if c.open > 0 && c.dataAt > 0 && c.receivedAt-c.dataAt < lately {
		return min(reading, c.cfg.KeepAlive)
	}
	return c.cfg.KeepAlive
}

// silence is how long the peer may send nothing at all. The dialer asks for a
// sign of life after KeepAlive, so a listener may wait for that.
func (c *core) silence() time.Duration { return 2*c.cfg.KeepAlive + c.cfg.DeadAfter }

// tick does what has become due.
func (c *core) tick(now time.Duration) {
	if c.err != nil {
		return
	}
	switch {
	case c.waiting && now-c.progressAt >= c.cfg.DeadAfter:
		c.giveUp("nothing acknowledged", c.cfg.DeadAfter)
		return
	case now-c.receivedAt >= c.silence():
		c.giveUp("nothing received", c.silence())
		return
	}
	if c.cfg.Role == Dialer && !c.waiting && now-c.receivedAt >= c.keepAlive() {
		c.ping = true
	}
	for _, p := range c.paths {
		if now >= p.lossAt {
			c.detectLoss(now, p)
		}
		if now >= c.probeAt(now, p) {
			c.probe(now, p)
		}
		if now >= c.pingAt(now, p) {
			p.pingDue, p.pingedAt = true, now
		}
		if now >= c.slowAt(p) {
			c.bypass(now, p)
		}
		for now >= c.overdueAt(p) {
			c.requeue(p.outstanding.unmoved())
		}
		c.forgetLost(now, p)
	}
	c.choose(now)
	if now-c.sweptAt >= time.Minute {
		c.sweep(now)
	}
}

// giveUp ends the session because the peer is gone, or cannot be reached.
func (c *core) giveUp(what string, after time.Duration) {
	c.fail(fmt.Errorf("%w: %s for %v", ErrPeerSilent, what, after),
		&wire.Close{Code: wire.CodeTimedOut, Text: []byte(what)})
}

// orphanAfter is how long a closed stream may take to bring its last bytes
// across.
const orphanAfter = 2 * time.Minute

// sweep resets streams that nobody uses any more and whose peer does not take
// what they still hold.
func (c *core) sweep(now time.Duration) {
	c.sweptAt = now
	for _, s := range c.streams {
		if s.idle > 0 && now-s.idle >= orphanAfter {
			c.reset(s, wire.CodeTimedOut, "")
		}
	}
}
