package ws

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"net"
	"sync"

	"github.com/nws-vpn/nws-vpn/internal/nonblock"
)

// Frames (RFC 6455, 5.2), always whole messages:
//
//	1 byte   0x80 (final) | opcode
//	1 byte   0x80 when masked | length, 126 (2 bytes follow) or 127 (8 bytes)
//	4 bytes  mask, from a client only
//	payload
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9

	maxHeader = 14
)

func appendHeader(dst []byte, op byte, n int) []byte {
	dst = append(dst, 0x80|op)
	switch {
	case n < 126:
		return append(dst, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
}

// appendMaskedHeader also returns the mask.
func appendMaskedHeader(dst []byte, op byte, n int) ([]byte, [4]byte) {
	start := len(dst)
	dst = appendHeader(dst, op, n)
	dst[start+1] |= 0x80
	var key [4]byte
	rand.Read(key[:])
	return append(dst, key[:]...), key
}

// controlFrame returns a whole control frame.
func controlFrame(op byte, payload []byte, masked bool) []byte {
	if !masked {
		return append(appendHeader(nil, op, len(payload)), payload...)
	}
	frame, key := appendMaskedHeader(nil, op, len(payload))
	at := len(frame)
	frame = append(frame, payload...)
	mask(frame[at:], key, 0)
	return frame
}

// mask XORs p, which begins pos bytes into the payload, with the key.
func mask(p []byte, key [4]byte, pos int) {
	var pattern [256]byte
	for i := range pattern {
		pattern[i] = key[(pos+i)&3]
	}
	for len(p) > 0 {
		p = p[subtle.XORBytes(p, p, pattern[:]):]
	}
}

// smallPart is the size up to which a part is copied rather than given to the
// kernel as a vector of its own.
const (
	smallPart   = 512
	scratchSize = 8 << 10
)

// batch is what leaves in one system call: small parts copied together, large
// ones as they are.
type batch struct {
	gather   bool // the connection cannot write vectors: copy everything
	messages []Message
	size     int
	scratch  []byte
	begun    int // where in scratch the vector that is being filled begins
	vectors  net.Buffers
	spare    net.Buffers // the array of vectors, which writing consumes
}

// batches are pooled, so that an idle connection holds none.
var batches = sync.Pool{New: func() any { return &batch{scratch: make([]byte, 0, scratchSize)} }}

func newBatch(gather bool) *batch {
	b := batches.Get().(*batch)
	b.gather = gather
	return b
}

// free gives the batch back. The messages must have been released.
func (b *batch) free() {
	clear(b.messages)
	clear(b.spare)
	b.messages, b.size, b.scratch, b.begun = b.messages[:0], 0, b.scratch[:0], 0
	b.vectors, b.spare = b.spare[:0], nil
	batches.Put(b)
}

// fits reports whether scratch has room for the copied parts of one more
// message. Its array must not move, because vectors point into it.
func (b *batch) fits() bool {
	return cap(b.scratch)-len(b.scratch) >= maxHeader+3*smallPart
}

// copy puts a copy of p at the end and returns the copy.
func (b *batch) copy(p []byte) []byte {
	at := len(b.scratch)
	b.scratch = append(b.scratch, p...)
	b.size += len(p)
	return b.scratch[at:]
}

// part puts p at the end, copied or not, and returns it where it now lies.
func (b *batch) part(p []byte) []byte {
	if b.gather || len(p) <= smallPart {
		return b.copy(p)
	}
	b.cut()
	b.vectors = append(b.vectors, p)
	b.size += len(p)
	return p
}

// cut ends the vector that is being filled.
func (b *batch) cut() {
	if b.begun < len(b.scratch) {
		b.vectors = append(b.vectors, b.scratch[b.begun:])
		b.begun = len(b.scratch)
	}
}

func (b *batch) message(m Message, masked bool) {
	b.messages = append(b.messages, m)
	op := byte(opText)
	if _, ok := m.Owner.(closeFrame); ok {
		op = opClose
	}
	var header [maxHeader]byte
	if !masked {
		b.copy(appendHeader(header[:0], op, m.size()))
		b.part(m.Head)
		b.part(m.Body)
		b.part(m.Tail)
		return
	}
	h, key := appendMaskedHeader(header[:0], op, m.size())
	b.copy(h)
	pos := 0
	for _, p := range [...][]byte{m.Head, m.Body, m.Tail} {
		mask(b.part(p), key, pos)
		pos += len(p)
	}
}

func (b *batch) write(conn *nonblock.Conn) error {
	b.cut()
	b.spare, b.vectors = b.vectors, nil
	return conn.WriteBuffers(b.spare)
}
