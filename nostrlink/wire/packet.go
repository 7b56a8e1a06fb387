package wire

import "errors"

// Direction says which end of the session made a packet. It is bound into
// every packet because both ends encrypt with the same key: without it a relay
// could send an end its own packets.
type Direction byte

// The two directions, as the flag bit on the wire.
const (
	FromDialer   Direction = 0
	FromListener Direction = 1
)

// Why a packet is none of ours. Nothing after the header has been looked at.
var (
	ErrMagic   = errors.New("wire: not a session packet")
	ErrVersion = errors.New("wire: packet of another version")
	ErrHeader  = errors.New("wire: malformed packet header")
)

// Header is what every packet begins with; frames follow to its end.
type Header struct {
	Direction Direction
	Session   [16]byte // made from both ends' nonces
	Number    uint64   // counts up from 0 in each direction, never used twice
}

// HeaderLen is how many bytes the header of packet number n takes.
func HeaderLen(n uint64) int { return 3 + 16 + VarintLen(n) }

// AppendHeader appends h to b.
func AppendHeader(b []byte, h Header) []byte {
	b = append(b, Magic, Version, byte(h.Direction))
	b = append(b, h.Session[:]...)
	return AppendVarint(b, h.Number)
}

// ParseHeader reads the header of a packet and returns the frames after it,
// borrowed from b. The error is ErrMagic, ErrVersion or ErrHeader.
func ParseHeader(b []byte) (h Header, frames []byte, err error) {
	switch {
	case len(b) == 0 || b[0] != Magic:
		return h, nil, ErrMagic
	case len(b) < 2 || b[1] != Version:
		return h, nil, ErrVersion
	case len(b) < 3+16 || b[2] > 1:
		return h, nil, ErrHeader
	}
	h.Direction = Direction(b[2])
	copy(h.Session[:], b[3:])
	r := reader{b: b[3+16:]}
	h.Number = r.varint()
	if r.err != nil {
		return h, nil, ErrHeader
	}
	return h, r.b, nil
}
