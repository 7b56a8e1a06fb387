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
	again := s.id > 0
	if !again {
		c.lastID, s.id = id, id
		c.streams[id] = s
	}
	sent := 0
	switch {
	case s.dg != nil:
		if q := &s.dg.out; len(q.items) > 0 && len(q.items[0]) <= room {
			f.Data, _ = c.dgOut.pop(q)
		}
	case s.out.end > 0:
		h := &s.out
		most := max(h.next, min(h.end, c.cfg.Peer.StreamWindow, h.next+c.txLimit-c.txSent))
		sent = int(min(uint64(room), most, cellSize))
		f.Data = h.buf.slice(0, sent)
	}
	b = f.Append(b)
	k.frames = append(k.frames, sentFrame{stream: s, kind: sentOpen, n: uint32(sent)})
	if n := uint64(sent); n < s.first || !again {
		s.first = n
	}
	if n := uint64(sent); n > 0 {
		s.out.lost.remove(0, n)
		c.written(s, max(n, s.out.next)-s.out.next)
	}
	return b, true
}

// appendStream appends data of s until it has no more or the packet of limit
// bytes is full, which it reports.
func (c *core) appendStream(s *stream, k *sentPacket, b []byte, limit int) ([]byte, bool) {
	if s.dg != nil {
		return c.appendDatagrams(s, b, limit)
	}
	h := &s.out
	for s.canSend(c.txLimit - c.txSent) {
		off, n, again := h.next, uint64(0), false
		if len(h.lost) > 0 {
			off, n, again = h.lost[0].lo, h.lost[0].hi-h.lost[0].lo, true
		} else if h.next < h.end && h.next < h.credit {
			n = min(h.end-h.next, h.credit-h.next, c.txLimit-c.txSent)
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
func (c *core) appendDatagrams(s *stream, b []byte, limit int) ([]byte, bool) {
	q := &s.dg.out
	for len(q.items) > 0 {
		n := len(q.items[0])
		if n > wire.DatagramRoom(limit-len(b), s.id) {
			if n <= maxDatagram(limit) {
				return b, true
			}
			c.dgOut.pop(q) // written for a path with larger packets
			c.stats.DatagramsDropped++
			continue
		}
		f := wire.Datagram{ID: s.id}
		f.Data, _ = c.dgOut.pop(q)
		b = f.Append(b)
	}
	return b, false
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
