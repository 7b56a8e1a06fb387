package session

import "time"

// Stats counts what a session has done since it began, and says how it is.
type Stats struct {
	Streams       int // and flows, open now
	StreamsOpened uint64
	SendBuffered  int           // bytes written and not yet sent
	Unread        uint64        // bytes received and not yet read
	RTT           time.Duration // the shortest of all paths, smoothed; 0 before the first acknowledgement
	SinceReceived time.Duration // since the last packet came

	PacketsSent, PacketsReceived   uint64
	BytesSent, BytesReceived       uint64 // of packets
	BytesResent                    uint64 // of stream data
	BareAcksSent, BareAcksReceived uint64 // packets with nothing but an acknowledgement
	PacketsLost, PacketsSpurious   uint64 // given up; of these, arrived after all
	PacketsRefused                 uint64 // by a first hop, for their rate
	PacketsCopied                  uint64 // sent over a second path, too
	Probes                         uint64 // sent because a path had fallen silent

	DatagramsSent, DatagramsReceived uint64
	DatagramsDropped                 uint64 // in full queues, either way

	Rejected Rejected
	Paths    []PathStats
}

// Rejected counts packets that were ignored, by the binding they failed.
type Rejected struct {
	Magic, Version, Header, Direction, Session, Replay uint64
}

// Total is the sum of all reasons.
func (r Rejected) Total() uint64 {
	return r.Magic + r.Version + r.Header + r.Direction + r.Session + r.Replay
}

// PathStats is what a session knows of one carrier.
type PathStats struct {
	RTT, MinRTT          time.Duration // 0 before the first acknowledgement
	ReorderWindow        time.Duration // how much later than RTT a packet may come
	Rate                 int64         // bytes per second the path has delivered at its best lately
	Window, InFlight     int           // bytes
	Unaccepted           int           // packets the first hop has not answered
	Sent, Lost, Spurious uint64        // packets
	Refused              uint64        // packets the first hop refused for their rate
	SinceAck             time.Duration // since the last acknowledgement

	Active  bool // carries our data now
	Limited bool // its first hop has refused packets for their rate lately
	Silent  bool // acknowledges nothing: only probed
}

func (c *core) snapshot(now time.Duration) Stats {
	s := c.stats
	s.Streams = c.open
	s.SinceReceived = now - c.receivedAt
	s.SendBuffered = c.unsent
	s.Unread = c.rxHighest - c.rxRead
	for _, p := range c.paths {
		s.Paths = append(s.Paths, c.snapshotPath(now, p))
		if p.hasRTT && (s.RTT == 0 || p.srtt < s.RTT) {
			s.RTT = p.srtt
		}
	}
	return s
}

func (c *core) snapshotPath(now time.Duration, p *pathState) PathStats {
	rate, _ := p.rate.get(more)
	n := &p.counts
	return PathStats{
		RTT: p.srtt, MinRTT: p.minRTT, ReorderWindow: max(p.reorder, p.srtt/8, minReorder),
		Rate: rate, Window: p.window, InFlight: p.inflight, Unaccepted: p.hop.waiting,
		Sent: n.sent, Lost: n.lost, Spurious: n.spurious, Refused: n.refused,
		SinceAck: now - p.progressAt,
		Active:   p.carries && !p.gone,
		Limited:  now < p.throttle.limitedUntil,
		Silent:   p.standing == silent,
	}
}
