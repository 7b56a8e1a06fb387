// Package sha2x computes two SHA-256 sums (FIPS 180-4) at the same time.
//
// The processor's instructions for SHA-256 wait for each other: one sum uses
// them half of the time only. Two sums that are computed side by side take
// little longer than one. What has no partner is better left to crypto/sha256,
// and so is everything where Available is false.
package sha2x

import (
	"crypto/sha256"
	"encoding/binary"
)

// Size is the length of a sum and BlockSize that of a block, in bytes.
const (
	Size      = sha256.Size
	BlockSize = sha256.BlockSize
)

// Digest is a sum in the making. The zero value is an empty one, a copy goes its
// own way. It must not be used unless Available.
type Digest struct {
	h     [8]uint32
	block [BlockSize]byte // the beginning of the next
	n     int             // how much of it there is
	total uint64          // all bytes so far
}

var initial = [8]uint32{
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
	0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}

// Available reports whether this machine computes two sums at the same time.
func Available() bool { return available }

// Write adds p. It never fails.
func (d *Digest) Write(p []byte) (int, error) {
	Write2(d, p, nil, nil)
	return len(p), nil
}

// Write2 adds p to a and q to b. b may be nil if q is empty.
func Write2(a *Digest, p []byte, b *Digest, q []byte) {
	p, q = a.fill(p), b.fill(q)
	if n := min(len(p), len(q)) / BlockSize; n > 0 {
		blocks2(&a.h, p, &b.h, q, n)
		p, q = p[n*BlockSize:], q[n*BlockSize:]
	}
	a.rest(p)
	b.rest(q)
}

// fill completes the block that has been begun, and returns what p holds beyond.
func (d *Digest) fill(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	if d.total == 0 {
		d.h = initial
	}
	d.total += uint64(len(p))
	if d.n == 0 {
		return p
	}
	n := copy(d.block[d.n:], p)
	if d.n += n; d.n == BlockSize {
		blocks1(&d.h, d.block[:], 1)
		d.n = 0
	}
	return p[n:]
}

// rest adds what no other sum goes along with.
func (d *Digest) rest(p []byte) {
	if n := len(p) / BlockSize; n > 0 {
		blocks1(&d.h, p, n)
		p = p[n*BlockSize:]
	}
	if len(p) > 0 {
		d.n = copy(d.block[:], p)
	}
}

// Sum ends the sum and returns it. Only a zeroed Digest can be used again.
func (d *Digest) Sum() (sum [Size]byte) {
	if d.total == 0 {
		d.h = initial
	}
	bits := d.total * 8
	d.block[d.n] = 0x80
	clear(d.block[d.n+1:])
	if d.n+1 > BlockSize-8 {
		blocks1(&d.h, d.block[:], 1)
		clear(d.block[:])
	}
	binary.BigEndian.PutUint64(d.block[BlockSize-8:], bits)
	blocks1(&d.h, d.block[:], 1)
	for i, v := range d.h {
		binary.BigEndian.PutUint32(sum[4*i:], v)
	}
	return sum
}
