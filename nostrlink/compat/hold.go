package compat

import (
	"slices"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// holdTime is how long a message waits for the CONNECT it has overtaken.
const holdTime = 5 * time.Second

// Bounds of what is held.
const (
	maxHeld       = 256       // streams
	maxHeldStream = 256 << 10 // bytes of one
	maxHeldBytes  = 4 << 20   // bytes of all
	maxSpoilt     = 4096      // streams remembered of which something was dropped
)

// holdKey is a stream that does not exist yet: nobody can put data into
// another's.
type holdKey struct {
	from envelope.PublicKey
	id   wire.UUID
}

// holder keeps messages that have overtaken their CONNECT. When it drops one,
// the stream is spoilt: it would begin with a hole. The zero value works.
type holder struct {
	held   map[holdKey]*heldStream
	order  []holdKey // of held, oldest first
	bytes  int
	spoilt map[holdKey]struct{}
	ring   []holdKey // the keys of spoilt, at most maxSpoilt
	next   int
}

type heldStream struct {
	messages []Incoming
	bytes    int
	seen     seen
	until    time.Time
}

// hold keeps a message. e.mu is held.
func (e *Exit) hold(id wire.UUID, in Incoming) {
	now := e.now()
	if now.Sub(time.Unix(in.CreatedAt, 0)).Abs() > maxSkew {
		e.stale.Add(1)
		return
	}
	key := holdKey{in.From, id}
	e.spoilt.Add(uint64(e.early.expire(now)))
	switch {
	case e.early.isSpoilt(key):
		e.unknown.Add(1)
	case e.early.add(key, in, now):
		e.held.Add(1)
	default:
		e.spoilt.Add(1)
	}
}

// add keeps a message, or spoils its stream.
func (h *holder) add(key holdKey, in Incoming, now time.Time) bool {
	s := h.held[key]
	cost := len(in.Message.Data) + len(in.Message.Destination) + 4*bufferCost
	if s == nil && len(h.held) >= maxHeld || s != nil && s.bytes+cost > maxHeldStream || h.bytes+cost > maxHeldBytes {
		h.take(key)
		h.spoil(key)
		return false
	}
	if s == nil {
		s = &heldStream{until: now.Add(holdTime)}
		if h.held == nil {
			h.held = make(map[holdKey]*heldStream)
		}
		h.held[key] = s
		h.order = append(h.order, key)
	}
	if s.seen.add(in.ID, in.CreatedAt) {
		s.messages = append(s.messages, in)
		s.bytes += cost
		h.bytes += cost
	}
	return true
}

// take returns what was held for a stream, in the order of arrival, and holds it
// no more.
func (h *holder) take(key holdKey) []Incoming {
	s := h.held[key]
	if s == nil {
		return nil
	}
	delete(h.held, key)
	h.order = slices.DeleteFunc(h.order, func(k holdKey) bool { return k == key })
	h.bytes -= s.bytes
	return s.messages
}

// expire drops what has waited for too long, and returns of how many streams.
func (h *holder) expire(now time.Time) (dropped int) {
	for len(h.order) > 0 && !now.Before(h.held[h.order[0]].until) {
		key := h.order[0]
		h.take(key)
		h.spoil(key)
		dropped++
	}
	return dropped
}

// spoil remembers that a message of the stream was dropped. The oldest such
// memory makes room for the newest.
func (h *holder) spoil(key holdKey) {
	if h.isSpoilt(key) {
		return
	}
	if h.spoilt == nil {
		h.spoilt = make(map[holdKey]struct{})
	}
	h.spoilt[key] = struct{}{}
	if len(h.ring) < maxSpoilt {
		h.ring = append(h.ring, key)
		return
	}
	delete(h.spoilt, h.ring[h.next])
	h.ring[h.next] = key
	h.next = (h.next + 1) % maxSpoilt
}

func (h *holder) isSpoilt(key holdKey) bool {
	_, spoilt := h.spoilt[key]
	return spoilt
}

// expiring is a bounded set whose members all stay for the same time. The zero
// value works.
type expiring[T comparable] struct {
	until map[T]time.Time
	order []T
}

// add puts a new member in, unless the set is full.
func (s *expiring[T]) add(v T, now time.Time, keep time.Duration, bound int) bool {
	for len(s.order) > 0 && !now.Before(s.until[s.order[0]]) {
		delete(s.until, s.order[0])
		s.order = s.order[1:]
	}
	if len(s.order) >= bound {
		return false
	}
	if s.until == nil {
		s.until = make(map[T]time.Time)
	}
	s.until[v] = now.Add(keep)
	s.order = append(s.order, v)
	return true
}

func (s *expiring[T]) has(v T, now time.Time) bool {
	until, member := s.until[v]
	return member && now.Before(until)
}
