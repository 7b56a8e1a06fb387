package session

import (
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

const (
	// unsentLimit is how much a stream buffers beyond what has been sent: more
	// would only add delay.
	unsentLimit = 512 << 10
	// unsentFair is what every stream may buffer even when all of them
	// together have reached Config.SendBuffer.
	unsentFair = 16 << 10
	// maxGaps is how many holes a stream may have. A packet that would tear
	// one more is not acknowledged, so that it comes again later.
	maxGaps = 1024
)

// need says which control frames a stream has to send.
type need uint8

const (
	needOpen need = 1 << iota
	needOpened
	needMaxData
	needStop
	needReset
)

// phase is how far the opening of a stream has come.
type phase uint8

const (
	opening phase = iota // dialer: OPEN goes out; listener: not yet answered
	awaited              // listener: other frames have overtaken OPEN
	opened
	refused // never was opened, and will not be
)

// waker is told when a stream's reader or writer may go on. It is called with
// the core locked.
type waker interface {
	wakeReader()
	wakeWriter()
}

// stream is a stream or a flow of datagrams. All of it is cheap while idle.
type stream struct {
	id      uint64 // 0 until OPEN is first sent
	uuid    [16]byte
	network wire.Network
	dest    string
	owner   waker // or nil

	asked     bool // dialer: OPEN has left
	heard     bool // dialer: and has arrived
	phase     phase
	gone      bool // ended at both ends; no frame is sent or taken any more
	resetSent bool // RESET was queued: nothing else will be sent
	resetDone bool // and acknowledged
	err       error
	code      wire.Code // of our RESET
	text      string
	stopCode  wire.Code

	starved   bool // in the core's list of this name
	need      need
	inControl bool
	active    activity
	deficit   int
	next      *stream // in the list that active names
	nextCtl   *stream // in the control list

	out  sendHalf
	in   recvHalf
	dg   *datagramQueues // of a flow, else nil
	idle time.Duration   // when its user closed it; 0 before
}

// sendHalf is the direction we write.
type sendHalf struct {
	buf        buffer
	acked      uint64 // all below has arrived
	next       uint64 // first byte never sent
	end        uint64 // first byte never written
	credit     uint64 // the peer takes bytes below this
	done, lost spans  // beyond acked: arrived; to be sent again
	fin        bool   // end is final
	finSent    bool
	finAcked   bool
	err        error // the peer wants no more, or the user closed it
}

// recvHalf is the direction we read.
type recvHalf struct {
	buf       buffer
	got       spans
	read      uint64 // consumed
	highest   uint64
	final     uint64
	limit     uint64 // credit granted
	window    uint64
	grantedAt time.Duration
	hasFinal  bool
	discard   bool  // nobody reads any more
	err       error // what a reader gets at final; nil is io.EOF
}

// ready is the first offset that has not arrived.
func (h *recvHalf) ready() uint64 {
	if len(h.got) > 0 && h.got[0].lo == 0 {
		return h.got[0].hi
	}
	return 0
}

// atEnd reports that everything has been read.
func (h *recvHalf) atEnd() bool { return h.hasFinal && h.read >= h.final }

// ended reports that nothing more can arrive that matters.
func (h *recvHalf) ended() bool {
	return h.hasFinal && (h.discard || h.ready() >= h.final)
}

// store keeps what of p is new. It reports false when p would tear one hole
// too many.
func (h *recvHalf) store(off uint64, p []byte) bool {
	end := off + uint64(len(p))
	if len(h.got) >= maxGaps && off > h.ready() && !h.got.touches(off, end) {
		return false
	}
	for off < end {
		g := h.got.gap(off, end)
		if g.lo == g.hi {
			break
		}
		h.buf.put(g.lo, p[g.lo-(end-uint64(len(p))):][:g.hi-g.lo])
		off = g.hi
	}
	h.got.add(end-uint64(len(p)), end)
	return true
}

// unsent is how much is written and not yet sent.
func (h *sendHalf) unsent() uint64 { return h.end - h.next }

// ended reports that everything, the end included, has arrived.
func (h *sendHalf) ended() bool { return h.finAcked && h.acked == h.end }

// arrived notes that bytes off … off+n-1 have arrived.
func (h *sendHalf) arrived(off, n uint64) {
	h.lost.remove(off, off+n)
	if off > h.acked {
		h.done.add(off, off+n)
		return
	}
	h.acked = max(h.acked, off+n)
	for len(h.done) > 0 && h.done[0].lo <= h.acked {
		h.acked = max(h.acked, h.done[0].hi)
		h.done = h.done[1:]
	}
	if len(h.done) == 0 {
		h.done = nil
	}
	if h.acked >= h.end {
		h.buf.clear()
	} else {
		h.buf.release(h.acked)
	}
}

// again marks bytes off … off+n-1 as to be sent once more, as far as they have
// not arrived.
func (h *sendHalf) again(off, n uint64) {
	end := off + n
	for off = max(off, h.acked); off < end; {
		g := h.done.gap(off, end)
		if g.lo == g.hi {
			return
		}
		h.lost.add(g.lo, g.hi)
		off = g.hi
	}
}

// truncate gives up everything that has not arrived: only the end is still to
// be told, at what was sent.
func (h *sendHalf) truncate() {
	if h.next < h.end {
		h.end = h.next
		h.finSent = false
	}
	h.fin = true
	h.acked, h.done, h.lost = h.end, nil, nil
	h.buf.clear()
}

// early reports that the dialer may send although the listener has not answered
// yet: what follows OPEN waits there.
func (s *stream) early() bool { return s.phase == opening && s.asked }

// over reports that what still comes for the stream says nothing any more: it
// was refused, or reset before its OPEN came.
func (s *stream) over() bool {
	return s.phase == refused || s.phase == awaited && s.err != nil
}

// left reports that a flow was closed in good order before it was answered, and
// that what came before can still be read.
func (s *stream) left() bool {
	return s.dg != nil && len(s.dg.in.items) > 0 && wire.CodeOf(s.err) == wire.CodeNone
}

// canSend reports whether the stream has data to send now; session is the
// session's remaining credit.
func (s *stream) canSend(session uint64) bool {
	if s.phase != opened && !s.early() || s.resetSent || s.gone {
		return false
	}
	if s.dg != nil {
		return len(s.dg.out.items) > 0
	}
	h := &s.out
	return len(h.lost) > 0 ||
		h.next < h.end && h.next < h.credit && session > 0 ||
		h.fin && !h.finSent && h.next == h.end
}

// sendable is how much canSend speaks of, roughly.
func (s *stream) sendable(session uint64) uint64 {
	if s.dg != nil {
		return uint64(s.dg.out.bytes)
	}
	h := &s.out
	n := min(h.end, max(h.credit, h.next)) - h.next
	return min(n, session) + h.lost.total()
}
