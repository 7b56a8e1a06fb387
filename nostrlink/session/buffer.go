package session

import "sync"

// A stream's bytes lie in cells of a fixed grid: cell i holds the offsets
// i·cellSize … (i+1)·cellSize-1. So any offset is found without searching, in
// whatever order its bytes come, and memory follows the credit that was granted
// plus one cell, however finely a peer cuts its data. A cell that needs only a
// few bytes gets a small buffer first, and an empty stream has none.
const (
	cellSize  = 64 << 10
	smallSize = 4 << 10
)

var (
	cellPool  = sync.Pool{New: func() any { return new([cellSize]byte) }}
	smallPool = sync.Pool{New: func() any { return new([smallSize]byte) }}
)

// cell holds the bytes from base on of its part of the grid.
type cell struct {
	buf  []byte
	base int
}

// buffer holds the bytes of one direction of a stream between the offset its
// owner released last and the one it wrote last.
type buffer struct {
	first  uint64 // grid index of cells[0]
	cells  []cell
	pinned bool // a slice is lent out: its memory must not go back to a pool
}

// put copies p to offset off. The owner sees to it that no byte is put twice.
func (b *buffer) put(off uint64, p []byte) {
	for len(p) > 0 {
		at := int(off % cellSize)
		n := min(len(p), cellSize-at)
		c := b.cell(off/cellSize, at, n)
		copy(c.buf[at-c.base:], p[:n])
		off += uint64(n)
		p = p[n:]
	}
}

// cell finds the cell with grid index i and makes room for n bytes at its at.
func (b *buffer) cell(i uint64, at, n int) *cell {
	if len(b.cells) == 0 {
		b.first = i
	}
	for i < b.first { // bytes came out of order into an empty buffer
		b.cells = append([]cell{{}}, b.cells...)
		b.first--
	}
	for i >= b.first+uint64(len(b.cells)) {
		b.cells = append(b.cells, cell{})
	}
	c := &b.cells[i-b.first]
	switch {
	case c.buf == nil && n <= smallSize:
		c.base = min(at, cellSize-smallSize)
		c.buf = smallPool.Get().(*[smallSize]byte)[:]
	case c.buf == nil:
		c.buf = cellPool.Get().(*[cellSize]byte)[:]
	case at < c.base || at+n > c.base+len(c.buf):
		grown := cellPool.Get().(*[cellSize]byte)[:]
		copy(grown[c.base:], c.buf)
		b.recycle(c.buf)
		*c = cell{buf: grown}
	}
	return c
}

// slice lends the bytes from off on, as many of n as lie together. They must
// have been put.
func (b *buffer) slice(off uint64, n int) []byte {
	c := &b.cells[off/cellSize-b.first]
	at := int(off%cellSize) - c.base
	return c.buf[at:min(at+n, len(c.buf))]
}

// appendTo appends n bytes from off on to dst. They must have been put.
func (b *buffer) appendTo(dst []byte, off uint64, n int) []byte {
	for n > 0 {
		p := b.slice(off, min(n, cellSize-int(off%cellSize)))
		dst = append(dst, p...)
		off += uint64(len(p))
		n -= len(p)
	}
	return dst
}

// release frees the cells that lie wholly below off.
func (b *buffer) release(off uint64) {
	for len(b.cells) > 0 && b.first < off/cellSize {
		b.recycle(b.cells[0].buf)
		b.cells[0].buf = nil
		b.cells = b.cells[1:]
		b.first++
	}
	if len(b.cells) == 0 {
		b.cells = nil
	}
}

// clear frees everything.
func (b *buffer) clear() {
	for i := range b.cells {
		b.recycle(b.cells[i].buf)
	}
	b.cells = nil
}

func (b *buffer) recycle(p []byte) {
	switch {
	case b.pinned: // left to the garbage collector
	case len(p) == smallSize:
		smallPool.Put((*[smallSize]byte)(p))
	case len(p) == cellSize:
		cellPool.Put((*[cellSize]byte)(p))
	}
}

// held is how many bytes of memory the buffer holds.
func (b *buffer) held() (n int) {
	for i := range b.cells {
		n += len(b.cells[i].buf)
	}
	return n
}
