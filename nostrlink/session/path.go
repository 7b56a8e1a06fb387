package session

import (
	"slices"
	"sync"
)

// Carrier takes packets to the other end, best effort: it may drop, delay,
// repeat and reorder them. A session calls Send from one goroutine only.
type Carrier interface {
	// Send hands over one packet and blocks while the carrier is busy: that is
	// the back-pressure. The packet is borrowed until Send returns. nil does not
	// mean delivered; an error means that the carrier is closed for good.
	Send(packet []byte) error
	// MaxPacket is the largest packet the carrier takes, at least
	// wire.MinMaxPacket. It does not change.
	MaxPacket() int
	// Close makes Send return. It may be called at any time and more than once.
	Close() error
}

// Path is a carrier in use by a session.
type Path struct {
	s       *Session
	carrier Carrier
	state   *pathState
	buf     []byte
	wake    sync.Cond
	idle    bool          // its sender waits for wake
	done    chan struct{} // closed when its sender has ended
}

// Attach gives the session a carrier and starts the goroutine that feeds it.
// The session owns the carrier from now on and closes it when the path is
// detached, when Send fails and when the session ends.
func (s *Session) Attach(c Carrier) *Path { return s.attach(c, false) }

// AttachPreferred is Attach for a carrier that burdens nobody else, such as a
// connection to the peer: while it is sound the others only stand by,
// whatever Config.Spread says, and nothing is sent twice.
func (s *Session) AttachPreferred(c Carrier) *Path { return s.attach(c, true) }

func (s *Session) attach(c Carrier, preferred bool) *Path {
	p := &Path{s: s, carrier: c, done: make(chan struct{})}
	p.wake.L = &s.mu
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.core.err != nil {
		close(p.done)
		c.Close()
		p.state = &pathState{gone: true}
		return p
	}
	now := s.now()
	p.state = s.core.attach(now, c.MaxPacket())
	p.state.preferred = preferred
	p.buf = make([]byte, 0, p.state.maxPacket)
	s.paths = append(s.paths, p)
	s.wg.Go(p.run)
	s.after(now)
	return p
}

// run sends packets until the path or the session ends.
func (p *Path) run() {
	defer close(p.done)
	for packet := p.next(); packet != nil; packet = p.next() {
		err := p.carrier.Send(packet)
		if !p.sent(err) {
			break
		}
	}
	p.carrier.Close()
	p.leave()
}

// next waits for the next packet to send; nil says that there will be none.
func (p *Path) next() []byte {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for !p.state.gone {
		now := s.now()
		packet := s.core.next(now, p.state, p.buf)
		s.after(now)
		if packet != nil {
			return packet
		}
		if s.core.err != nil {
			return nil
		}
		p.idle = true
		p.wake.Wait()
		p.idle = false
	}
	return nil
}

// sent notes that Send has returned, and reports whether the path goes on.
func (p *Path) sent(err error) bool {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.core.sent(now, p.state)
	if err != nil {
		s.core.cfg.Log.Debug("carrier closed", "err", err)
		s.core.detach(now, p.state)
	}
	s.after(now)
	return err == nil
}

// leave takes the path off the session's list.
func (p *Path) leave() {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.core.detach(s.now(), p.state)
	s.paths = slices.DeleteFunc(s.paths, func(q *Path) bool { return q == p })
	if s.ended && len(s.paths) == 0 {
		close(s.left)
	}
	s.after(s.now())
}

// Receive hands in a packet that the carrier brought, decrypted. It copies what
// it keeps, does not wait for readers, and is safe for concurrent use.
func (p *Path) Receive(packet []byte) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.core.receive(now, p.state, packet)
	s.after(now)
}

// Accepted reports that the first hop took the packet of the Send with this
// index, counted from 0 (a relay's OK). It lets waiting small writes go. Answers
// may come in any order, for any part of the packets, also while Send has not
// returned. A carrier whose first hop says nothing of the kind never calls it.
func (p *Path) Accepted(index uint64) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.core.accepted(p.state, index)
	s.after(s.now())
}

// Rejected reports that the first hop refused the packet of the Send with this
// index because of its rate, which is no sign of a loss: what the packet carried
// goes again at once, by another path if there is one, and this one counts as
// limited for a while. To send slower is up to the carrier.
func (p *Path) Rejected(index uint64) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.core.rejected(now, p.state, index)
	s.after(now)
}

// Stats says how the path is.
func (p *Path) Stats() PathStats {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.snapshotPath(s.now(), p.state)
}

// Done is closed when the path is out of use: detached, its carrier closed, or
// the session ended.
func (p *Path) Done() <-chan struct{} { return p.done }

// Detach takes the carrier out of use and closes it; what it still carried is
// sent again over the others. It returns when the last Send has, so it must not
// be called from within Send. It may be called more than once.
func (p *Path) Detach() {
	s := p.s
	s.mu.Lock()
	s.core.detach(s.now(), p.state)
	p.wake.Signal()
	s.after(s.now())
	s.mu.Unlock()
	p.carrier.Close()
	<-p.done
}
