package compat

import "encoding/binary"

// seen remembers the events of one stream, since several relays may bring the
// same one and a relay may repeat an old one, and nothing inside a message
// tells.
//
// It is bounded. Once full, an event that is older than what was forgotten may
// be is refused: by then thousands of younger ones have come.
type seen struct {
	ids    map[uint64]struct{}
	ring   []uint64
	next   int   // of the ring, once it is full
	newest int64 // creation, seconds since 1970
}

const (
	maxSeen = 16384
	// maxSeenAge is how much older than the newest event, in seconds, one may be
	// that comes when the ring is full.
	maxSeenAge = 60
)

// has reports whether the event is one of those remembered.
func (s *seen) has(id [32]byte) bool {
	_, known := s.ids[binary.BigEndian.Uint64(id[:])]
	return known
}

// add reports whether the event is new, and remembers it.
func (s *seen) add(id [32]byte, created int64) bool {
	// An id is a hash: the first bytes of two differ.
	short := binary.BigEndian.Uint64(id[:])
	if _, known := s.ids[short]; known {
		return false
	}
	if len(s.ring) == maxSeen && created < s.newest-maxSeenAge {
		return false
	}
	s.newest = max(s.newest, created)
	if s.ids == nil {
		s.ids = make(map[uint64]struct{})
	}
	s.ids[short] = struct{}{}
	if len(s.ring) < maxSeen {
		s.ring = append(s.ring, short)
		return true
	}
	delete(s.ids, s.ring[s.next])
	s.ring[s.next] = short
	s.next = (s.next + 1) % maxSeen
	return true
}
