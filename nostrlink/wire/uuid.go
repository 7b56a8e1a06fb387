package wire

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// UUID names a stream in NWS messages: Message.Key is its text.
type UUID [16]byte

// uuidText is the length of a UUID in text, which is also what an exit writes
// first on the connection that CONNECTR asks for.
const uuidText = 36

// NewUUID makes a random one (RFC 9562, version 4).
func NewUUID() UUID {
	var u UUID
	rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u
}

// ParseUUID reads 8-4-4-4-12 hexadecimal digits, in either case. (RFC 9562)
func ParseUUID(text string) (UUID, error) {
	var u UUID
	if len(text) != uuidText || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return UUID{}, fmt.Errorf("wire: %.40q is no UUID", text)
	}
	digits := text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:]
	if _, err := hex.Decode(u[:], []byte(digits)); err != nil {
		return UUID{}, fmt.Errorf("wire: %.40q is no UUID", text)
	}
	return u, nil
}

// String gives the UUID in lower case, as messages carry it.
func (u UUID) String() string {
	b := make([]byte, 0, uuidText)
	for i, part := range [][]byte{u[:4], u[4:6], u[6:8], u[8:10], u[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return string(b)
}
