package wire

import (
	"encoding/binary"
	"errors"
)

var (
	errShort   = errors.New("cut off")
	errNotMin  = errors.New("number not in its shortest form")
	errTooLong = errors.New("field longer than allowed")
)

// VarintLen is how many bytes AppendVarint appends for v.
func VarintLen(v uint64) int {
	switch {
	case v < 1<<6:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<30:
		return 4
	default:
		return 8
	}
}

// AppendVarint appends v (below 2^62) as a variable-length integer of RFC 9000,
// section 16, in its shortest form.
func AppendVarint(b []byte, v uint64) []byte {
	switch {
	case v < 1<<6:
		return append(b, byte(v))
	case v < 1<<14:
		return binary.BigEndian.AppendUint16(b, uint16(v)|1<<14)
	case v < 1<<30:
		return binary.BigEndian.AppendUint32(b, uint32(v)|2<<30)
	default:
		return binary.BigEndian.AppendUint64(b, v&maxVarint|3<<62)
	}
}

// reader takes fields off the front of b. After the first failure err is set,
// b is empty and every further field is zero, so that a parser checks once.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail(errShort)
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) varint() uint64 {
	if len(r.b) == 0 {
		r.fail(errShort)
		return 0
	}
	n := 1 << (r.b[0] >> 6)
	if len(r.b) < n {
		r.fail(errShort)
		return 0
	}
	v := uint64(r.b[0] & 0x3f)
	for _, c := range r.b[1:n] {
		v = v<<8 | uint64(c)
	}
	if VarintLen(v) != n {
		r.fail(errNotMin)
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes takes a length and that many bytes, borrowed from b.
func (r *reader) bytes(limit uint64) []byte {
	n := r.varint()
	switch {
	case n > limit:
		r.fail(errTooLong)
		return nil
	case n > uint64(len(r.b)):
		r.fail(errShort)
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func appendBytes(b, p []byte) []byte {
	return append(AppendVarint(b, uint64(len(p))), p...)
}
