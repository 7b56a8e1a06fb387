package session

import "github.com/nws-vpn/nws-vpn/nostrlink/wire"

// appendControl appends the control frames stream s has to send. It reports
// false when they do not all fit; those that did are no longer needed.
func (c *core) appendControl(s *stream, k *sentPacket, b []byte, limit int) ([]byte, bool) {
	if s.need&needOpen != 0 {
		var ok bool
		if b, ok = c.appendOpen(s, k, b, limit); !ok {
			return b, false
		}
		s.need &^= needOpen
	}
	if s.need&^needReset != 0 && limit-len(b) < minPiece {
		return b, false
	}
	if s.need&needOpened != 0 {
		f := wire.Opened{ID: s.id, Window: s.in.limit}
		b = f.Append(b)
		k.frames = append(k.frames, sentFrame{stream: s, kind: sentOpened})
		s.need &^= needOpened
	}
	if s.need&needMaxData != 0 {
		f := wire.MaxData{ID: s.id, Limit: s.in.limit}
		b = f.Append(b)
		k.frames = append(k.frames, sentFrame{stream: s, kind: sentMaxData, off: s.in.limit})
		s.need &^= needMaxData
	}
	if s.need&needStop != 0 {
		f := wire.Stop{ID: s.id, Code: s.stopCode}
		b = f.Append(b)
		k.frames = append(k.frames, sentFrame{stream: s, kind: sentStop})
		s.need &^= needStop
	}
	if s.need&needReset != 0 {
		if limit-len(b) < minPiece+len(s.text) {
			return b, false
		}
		b = s.appendReset(b)
		k.frames = append(k.frames, sentFrame{stream: s, kind: sentReset})
		s.need &^= needReset
	}
	return b, true
}

func (s *stream) appendReset(b []byte) []byte {
	if s.phase == refused {
		f := wire.Refuse{ID: s.id, Received: s.in.highest, Code: s.code, Text: []byte(s.text)}
		return f.Append(b)
	}
	f := wire.Reset{ID: s.id, Final: s.out.next, Code: s.code, Text: []byte(s.text)}
	return f.Append(b)
}

// appendOpen appends the OPEN of s with as much of its first bytes as fit. A
// stream gets its id here, so that ids leave no gaps.
func (c *core) appendOpen(s *stream, k *sentPacket, b []byte, limit int) ([]byte, bool) {
	id := s.id
	if id == 0 {
		id = c.lastID + 1
	}
	f := wire.Open{ID: id, UUID: s.uuid, Network: s.network, Window: s.in.limit, Destination: []byte(s.dest)}
	room := f.DataRoom(limit - len(b))
	if room < 0 {
		return b, false
	}
	if !s.asked {
		s.asked, s.id = true, id
		c.lastID = id
		c.streams[id] = s
		s.out.credit = c.cfg.Peer.StreamWindow
	}
	if s.dg == nil {
		f.Data = c.firstBytes(s, room)
	} else {
		f.Data = c.firstDatagram(s, room)
		s.dg.flying++
	}
	b = f.Append(b)
	k.frames = append(k.frames, sentFrame{stream: s, kind: sentOpen, n: uint32(len(f.Data))})
	c.activate(s)
	return b, true
}

// firstDatagram takes the oldest datagram of s if it fits into room. An empty
// one cannot travel in OPEN.
func (c *core) firstDatagram(s *stream, room int) []byte {
	q := &s.dg.out
	if len(q.items) == 0 || len(q.items[0]) == 0 || len(q.items[0]) > room {
		return nil
	}
	p, _ := c.dgOut.pop(q)
	return p
}

// firstBytes lends as many of the first bytes of s as are to be sent and fit
// into room, and notes them as sent.
func (c *core) firstBytes(s *stream, room int) []byte {
	h := &s.out
	var n uint64
	switch {
	case len(h.lost) > 0 && h.lost[0].lo == 0:
		n = min(h.lost[0].hi, uint64(room), cellSize)
		h.lost.remove(0, n)
		c.stats.BytesResent += n
	case h.next == 0:
		n = min(h.end, h.credit, c.txRoom(), uint64(room), cellSize)
		c.written(s, n)
	}
	if n == 0 {
		return nil
	}
	return h.buf.slice(0, int(n))
}

// appendStream appends data of s until it has no more or the packet of limit
// bytes is full, which it reports.
func (c *core) appendStream(s *stream, k *sentPacket, b []byte, limit int) ([]byte, bool) {
	if s.dg != nil {
		return c.appendDatagrams(s, k, b, limit)
	}
	h := &s.out
	for s.canSend(c.txRoom()) {
		off, n, again := h.next, uint64(0), false
		if len(h.lost) > 0 {
			off, n, again = h.lost[0].lo, h.lost[0].hi-h.lost[0].lo, true
		} else if h.next < h.end && h.next < h.credit {
			n = min(h.end-h.next, h.credit-h.next, c.txRoom())
		}
		room := wire.DataRoom(limit-len(b), s.id, off)
		if room < 0 || n > uint64(room) && room < minPiece {
			return b, true
		}
		n = min(n, uint64(room))
		fin := h.fin && !h.finSent && off+n == h.end
		b = wire.AppendDataHeader(b, s.id, off, int(n), fin)
		b = h.buf.appendTo(b, off, int(n))
		k.frames = append(k.frames, sentFrame{stream: s, kind: sentData, off: off, n: uint32(n), fin: fin})
		h.finSent = h.finSent || fin
		if again {
			h.lost.remove(off, off+n)
			c.stats.BytesResent += n
		} else {
			c.written(s, n)
		}
	}
	return b, false
}

// appendDatagrams appends what flow s has waiting.
func (c *core) appendDatagrams(s *stream, k *sentPacket, b []byte, limit int) (_ []byte, full bool) {
	q := &s.dg.out
	before := len(b)
	for len(q.items) > 0 && !full {
		n := len(q.items[0])
		switch {
		case n <= wire.DatagramRoom(limit-len(b), s.id):
			f := wire.Datagram{ID: s.id}
			f.Data, _ = c.dgOut.pop(q)
			b = f.Append(b)
		case n <= maxDatagram(limit):
			full = true
		default: // written for a path with larger packets
			c.dgOut.pop(q)
			c.stats.DatagramsDropped++
		}
	}
	if len(b) > before {
		k.frames = append(k.frames, sentFrame{stream: s, kind: sentDatagrams})
		s.dg.flying++
	}
	c.endFlow(s)
	return b, full
}

// maxDatagram is the largest datagram that always fits a packet of limit bytes.
func maxDatagram(limit int) int {
	return wire.DatagramRoom(limit-wire.HeaderLen(1<<62-1)-maxAckLen, 1<<62-1)
}

// maxAckLen is the longest ACK.
const maxAckLen = 1 + 8 + 8 + 1 + 8 + (wire.MaxAckRanges-1)*16

// largestDatagram is the largest datagram that every path takes.
func (c *core) largestDatagram() int {
	limit := c.cfg.Peer.MaxPacket
	for _, p := range c.paths {
		limit = min(limit, p.maxPacket)
	}
	return maxDatagram(limit)
}
