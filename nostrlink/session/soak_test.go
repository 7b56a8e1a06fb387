package session

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// TestSoak plays an hour of a household's traffic over three bad relays, one of
// which is away now and then: nothing is lost and nothing accumulates.
func TestSoak(t *testing.T) {
	hour := time.Hour
	if testing.Short() {
		hour = 5 * time.Minute
	}
	var links [][2]*link
	for i, bad := range []func(*link){both(khatru, lossy(0.01)), strfry, lossy(0.03)} {
		links = append(links, within(relayLink(bad), func(l *link) {
			for at := time.Duration(i+1) * 4 * time.Minute; at < hour; at += 13 * time.Minute {
				l.cuts = append(l.cuts, cut{at, at + 50*second})
			}
		}))
	}
	s := newSim(t, 1, Config{Duplicate: true}, 40960, links...)
	s.onOpen = func(st *stream) {
		c := s.ends[1].core
		if c.accept(st) != nil {
			return
		}
		if st.dg != nil {
			s.ends[1].flow(st, 1).echo = true
			return
		}
		n := numberOf(st)
		s.ends[1].app(st, uint64(n*7919%60000), ^byte(n), byte(n))
	}
	r := rand.New(rand.NewPCG(1, 1))
	opened, ended := 0, 0
	var next func()
	next = func() {
		opened++
		if opened%10 == 0 {
			st := s.dial(wire.NetworkUDP, opened, nil)
			x := s.ends[0].flow(st, ^byte(1))
			x.send(100)
			s.at(s.now+30*second, func() { s.ends[0].core.close(s.now, st); ended++ })
		} else if n := opened; s.fail == "" {
			x := s.openWith(n, 700, 700)
			x.onEnd = func() {
				ended++
				if x.read != uint64(n*7919%60000) || x.err != nil {
					t.Errorf("stream %d gave %d bytes, %v", n, x.read, x.err)
				}
			}
		}
		if s.now < hour {
			s.at(s.now+time.Duration(r.ExpFloat64()*float64(300*time.Millisecond)), next)
		}
	}
	next()
	s.run(hour+3*time.Minute, func() bool { return false })
	if s.fail != "" {
		t.Fatal(s.fail)
	}
	for i, e := range s.ends {
		c := e.core
		if c.err != nil || c.open > 0 || c.unsent > 0 || c.txHeld > 0 || c.dgIn.bytes+c.dgOut.bytes > 0 || c.rxRead != c.rxHighest {
			t.Errorf("end %d: %v, left behind: %d streams, %d bytes unsent, %d and %d of datagrams, %d unread",
				i, c.err, c.open, c.unsent, c.dgIn.bytes, c.dgOut.bytes, c.rxHighest-c.rxRead)
		}
		if len(c.ring.slots) > maxTracked || len(c.rx.runs) > maxReceived || len(c.ids) > 1 {
			t.Errorf("end %d: room for %d packets sent, %d runs received, %d runs of ids", i, len(c.ring.slots), len(c.rx.runs), len(c.ids))
		}
		t.Logf("end %d: %+v", i, c.stats)
	}
	if ended != opened {
		t.Errorf("%d flows opened, %d ended", opened, ended)
	}
}

// TestManyFlows opens and closes ten thousand flows, a thousand at a time, and
// measures what they leave behind.
func TestManyFlows(t *testing.T) {
	const all, atOnce = 10000, 1000
	s := newSim(t, 1, Config{}, 40960, relayLink(khatru), relayLink(strfry))
	s.onOpen = func(st *stream) {
		if s.ends[1].core.accept(st) == nil {
			n := numberOf(st)
			s.ends[1].app(st, 3000, ^byte(n), byte(n))
		}
	}
	open, ended, most := 0, 0, 0
	var fill func()
	fill = func() {
		for ; open < all && open-ended < atOnce; open++ {
			x := s.openWith(open, 500, 500)
			x.onEnd = func() {
				ended++
				fill()
			}
		}
		most = max(most, s.ends[0].core.open, s.ends[1].core.open)
	}
	before := heapBytes()
	fill()
	if !s.run(10*time.Minute, func() bool { return ended == all && s.ends[0].core.open+s.ends[1].core.open == 0 }) {
		t.Fatalf("%d of %d flows have ended; %s", ended, all, s.fail)
	}
	for _, e := range s.ends {
		e.dirty = nil
	}
	s.events = nil
	if grown := heapBytes() - before; grown > 8<<20 {
		t.Errorf("%d bytes are left behind", grown)
	}
	if most > 2*atOnce {
		t.Errorf("%d flows were open at once", most)
	}
	t.Logf("%v of simulated time, %d packets", s.now.Round(time.Second), s.ends[0].core.stats.PacketsSent+s.ends[1].core.stats.PacketsSent)
	runtime.KeepAlive(s)
}
