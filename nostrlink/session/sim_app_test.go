package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// simStream is an application at one end of a stream: it writes total bytes of
// a pattern that both ends can compute, ends its direction, and checks what it
// reads.
type simStream struct {
	end   *simEnd
	st    *stream
	dirty bool

	early   bool // writes before the listener has answered
	forget  bool // closes as soon as all is written
	total   uint64
	written uint64
	piece   int           // bytes a write; 0: as many as are taken
	every   time.Duration // between writes
	nextAt  time.Duration

	read     uint64
	readRate float64 // bytes per second; 0: at once
	readAt   time.Duration
	eof      bool
	err      error
	salt     byte // of what it writes
	peerSalt byte
	onRead   func(n int)
	onEnd    func() // or nil
}

func (e *simEnd) app(st *stream, total uint64, salt, peerSalt byte) *simStream {
	x := &simStream{end: e, st: st, total: total, salt: salt, peerSalt: peerSalt}
	st.owner = x
	x.mark()
	return x
}

func (x *simStream) wakeReader() { x.mark() }
func (x *simStream) wakeWriter() { x.mark() }
func (x *simStream) mark() {
	if !x.dirty {
		x.dirty = true
		x.end.dirty = append(x.end.dirty, x)
	}
}

// patternSize is a prime, so that no offset looks like another cell's.
const patternSize = 65537

var patternTable = func() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	t := make([]byte, patternSize, 2*patternSize+cellSize)
	for i := range t {
		t[i] = byte(r.Uint32())
	}
	for len(t) < cap(t) {
		t = append(t, t[:min(patternSize, cap(t)-len(t))]...)
	}
	return t
}()

// patternBytes is n bytes from an offset on of the stream with this salt.
func patternBytes(salt byte, off uint64, n int) []byte {
	at := (off + 1009*uint64(salt)) % patternSize
	if n <= cellSize {
		return patternTable[at:][:n]
	}
	b := make([]byte, 0, n)
	for len(b) < n {
		b = append(b, patternBytes(salt, off+uint64(len(b)), min(cellSize, n-len(b)))...)
	}
	return b
}

func (x *simStream) step() {
	x.doWrite()
	x.doRead()
}

func (x *simStream) doWrite() {
	c, s := x.end.core, x.end.sim
	if x.st.phase != opened && !x.early || x.st.err != nil {
		return
	}
	for x.written < x.total && s.now >= x.nextAt {
		n := 64 << 10
		if x.piece > 0 {
			n = x.piece
		}
		n = int(min(uint64(n), x.total-x.written))
		n = c.write(x.st, patternBytes(x.salt, x.written, n))
		x.written += uint64(n)
		if n == 0 {
			return
		}
		if x.every > 0 {
			x.nextAt = s.now + x.every
			s.at(x.nextAt, x.mark)
		}
	}
	switch {
	case x.written < x.total:
	case x.forget:
		c.close(s.now, x.st)
	default:
		c.closeWrite(x.st)
	}
}

func (x *simStream) doRead() {
	c, s := x.end.core, x.end.sim
	for !x.eof && s.now >= x.readAt {
		limit := 64 << 10
		if x.readRate > 0 {
			limit = 8 << 10
		}
		b := c.readable(x.st, limit)
		if len(b) == 0 {
			break
		}
		if !bytes.Equal(b, patternBytes(x.peerSalt, x.read, len(b))) {
			s.fail = fmt.Sprintf("stream %d: wrong bytes from %d on", x.st.id, x.read)
			return
		}
		x.read += uint64(len(b))
		if x.readRate > 0 {
			x.readAt = s.now + time.Duration(float64(len(b))/x.readRate*float64(time.Second))
			s.at(x.readAt, x.mark)
		}
		n := len(b)
		c.consume(s.now, x.st, n)
		if x.onRead != nil {
			x.onRead(n)
		}
	}
	if x.st.in.atEnd() && !x.eof {
		x.eof, x.err = true, x.st.in.err
		if x.onEnd != nil {
			x.onEnd()
		}
	}
}

// open dials a stream from the dialer; the listener's application gets its
// number in the destination.
func (s *sim) open(number int, total uint64) *simStream {
	return s.openWith(number, total, 0)
}

// openWith is open with so many of the bytes in the OPEN.
func (s *sim) openWith(number int, total uint64, first int) *simStream {
	data := patternBytes(byte(number), 0, first)
	st := s.dial(wire.NetworkTCP, number, data)
	if st == nil {
		return nil
	}
	x := s.ends[0].app(st, total, byte(number), ^byte(number))
	x.written = uint64(first)
	return x
}

func (s *sim) dial(network wire.Network, number int, first []byte) *stream {
	var dest [4]byte
	binary.BigEndian.PutUint32(dest[:], uint32(number))
	st, err := s.ends[0].core.dial(network, string(dest[:]), [16]byte{}, first)
	if err != nil {
		s.fail = fmt.Sprintf("dial: %v", err)
	}
	return st
}

// join adds a carrier.
func (s *sim) join(maxPacket int, l [2]*link) {
	for i, e := range s.ends {
		e.paths = append(e.paths, e.core.attach(s.now, maxPacket))
		e.links = append(e.links, l[i])
	}
}

// simFlow is an application at one end of a flow of datagrams: it sends some
// and checks those it gets.
type simFlow struct {
	end      *simEnd
	st       *stream
	salt     byte
	echo     bool // answers each with one as large
	sent     int
	received int
	seen     map[int]bool
}

func (e *simEnd) flow(st *stream, salt byte) *simFlow {
	x := &simFlow{end: e, st: st, salt: salt, seen: map[int]bool{}}
	st.owner = x
	x.wakeReader() // what came before the answer
	return x
}

func (x *simFlow) send(size int) {
	if x.st.err != nil || x.st.gone {
		return
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(x.sent))
	x.end.core.sendDatagram(x.st, append(b, patternBytes(x.salt, uint64(x.sent), size)...))
	x.sent++
}

func (x *simFlow) wakeWriter() {}
func (x *simFlow) wakeReader() {
	for d, ok := x.end.core.takeDatagram(x.st); ok; d, ok = x.end.core.takeDatagram(x.st) {
		n := int(binary.BigEndian.Uint32(d))
		if x.seen[n] || !bytes.Equal(d[4:], patternBytes(^x.salt, uint64(n), len(d)-4)) {
			x.end.sim.fail = fmt.Sprintf("flow %d: datagram %d came twice or wrong", x.st.id, n)
		}
		x.seen[n] = true
		x.received++
		if x.echo {
			x.send(len(d) - 4)
		}
	}
}

func numberOf(st *stream) int { return int(binary.BigEndian.Uint32([]byte(st.dest))) }
