package session

import (
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// traffic is a download and a stream that echoes 64 bytes every 20 ms.
type traffic struct {
	*sim
	got     uint64        // bytes downloaded
	gotAt   time.Duration // when the last came
	stall   time.Duration // the longest time without any
	echoed  int
	echoAt  time.Duration
	silence time.Duration // the longest between two echoes
}

func newTraffic(t *testing.T, cfg Config, links ...[2]*link) *traffic {
	x := &traffic{sim: newSim(t, 1, cfg, 40960, links...)}
	s := x.sim
	s.onOpen = func(st *stream) {
		s.ends[1].core.accept(st)
		n := byte(numberOf(st))
		y := s.ends[1].app(st, 1<<40, ^n, n)
		if n == 0 {
			y.nextAt = never
			y.onRead = func(n int) { y.written += uint64(s.ends[1].core.write(st, patternBytes(y.salt, y.written, n))) }
		}
	}
	s.open(1, 0).onRead = func(n int) {
		x.got += uint64(n)
		x.stall, x.gotAt = max(x.stall, s.now-x.gotAt), s.now
	}
	ping := s.open(0, 1<<40)
	ping.nextAt = never
	ping.onRead = func(n int) {
		x.echoed += n / 64
		x.silence, x.echoAt = max(x.silence, s.now-x.echoAt), s.now
	}
	var beat func()
	beat = func() {
		ping.written += uint64(s.ends[0].core.write(ping.st, patternBytes(ping.salt, ping.written, 64)))
		s.at(s.now+20*time.Millisecond, beat)
	}
	s.at(time.Second, beat)
	return x
}

// until plays to a time and forgets the longest pauses.
func (x *traffic) until(at time.Duration) {
	x.t.Helper()
	x.stall, x.silence = 0, 0
	x.gotAt, x.echoAt = x.now, x.now
	x.run(at, func() bool { return false })
	x.stall, x.silence = max(x.stall, x.now-x.gotAt), max(x.silence, x.now-x.echoAt)
	if x.fail != "" {
		x.t.Fatal(x.fail)
	}
	for i, e := range x.ends {
		if e.core.err != nil {
			x.t.Fatalf("end %d at %v: %v", i, x.now, e.core.err)
		}
	}
}

// active lists the paths that carry what an end sends.
func (x *traffic) active(end int) (n []int) {
	for i, p := range x.ends[end].paths {
		if p.carries {
			n = append(n, i)
		}
	}
	return n
}

func (x *traffic) expectActive(want int) {
	x.t.Helper()
	for end := range x.ends {
		if got := x.active(end); len(got) != 1 || got[0] != want {
			x.t.Errorf("at %v end %d uses paths %v, want %d", x.now, end, got, want)
		}
	}
}

// within changes both directions of a link pair.
func within(pair [2]*link, change func(*link)) [2]*link {
	for _, l := range pair {
		change(l)
	}
	return pair
}

const second = time.Second

// TestFailover holds that streams go on within three seconds by another path
// when the primary fails in whatever way, and return when it is well again.
func TestFailover(t *testing.T) {
	trouble := cut{10 * second, 40 * second}
	for _, test := range []struct {
		name string
		bad  func(*link)
	}{
		{"vanishes", func(l *link) { l.cuts = []cut{trouble} }},
		{"takes nothing", func(l *link) { l.stuck = []cut{trouble} }},
		{"both", func(l *link) { l.cuts, l.stuck = []cut{trouble}, []cut{trouble} }},
	} {
		for _, delay := range []time.Duration{5, 50, 400} {
			t.Run(test.name+" at "+(2*delay*time.Millisecond).String(), func(t *testing.T) {
				far := func(l *link) { l.rate, l.delay = 2e6, delay*time.Millisecond }
				x := newTraffic(t, Config{},
					within(relayLink(far), test.bad), relayLink(far), relayLink(func(l *link) { l.rate, l.delay = 2e6, (delay+100)*time.Millisecond }))
				x.until(trouble.from)
				x.expectActive(0)
				x.until(trouble.to)
				x.expectActive(1)
				if x.stall > 3*second || x.silence > 3*second {
					t.Errorf("nothing for %v, no echo for %v", x.stall, x.silence)
				}
				x.until(trouble.to + 40*second)
				x.expectActive(0)
				if x.stall > second || x.silence > second {
					t.Errorf("the way back took %v, %v for the echoes", x.stall, x.silence)
				}
			})
		}
	}
}

// TestPreferred holds that a preferred path carries alone, however well others
// do, that they take over when it fails, and that it comes back.
func TestPreferred(t *testing.T) {
	for _, spread := range []Spread{Primary, Stripe} {
		trouble := cut{10 * second, 30 * second}
		own := relayLink(func(l *link) { l.rate, l.delay = 2e6, 40*time.Millisecond })
		x := newTraffic(t, Config{Spread: spread, Duplicate: true},
			relayLink(func(l *link) { l.rate, l.delay = 2e6, 5*time.Millisecond }),
			within(own, func(l *link) { l.cuts = []cut{trouble} }))
		for _, e := range x.ends {
			e.paths[1].preferred = true
		}
		x.until(trouble.from)
		x.expectActive(1)
		x.until(trouble.to)
		x.expectActive(0)
		if x.stall > 3*second || x.silence > 3*second {
			t.Errorf("nothing for %v, no echo for %v", x.stall, x.silence)
		}
		x.until(trouble.to + 40*second)
		x.expectActive(1)
	}
}

// TestOneWayFailover holds that it does when only one direction fails.
func TestOneWayFailover(t *testing.T) {
	for end := range 2 {
		thin := func(l *link) { l.rate = 2e6 }
		links := relayLink(thin)
		links[end].cuts = []cut{{10 * second, 60 * second}}
		x := newTraffic(t, Config{}, links, relayLink(thin))
		x.until(10 * second)
		x.until(60 * second)
		if x.stall > 3*second || x.silence > 3*second {
			t.Errorf("end %d cut off: nothing for %v, no echo for %v", end, x.stall, x.silence)
		}
		x.until(100 * second)
	}
}

// TestCut holds that streams survive when every relay is cut off for a minute
// and go on within two seconds afterwards.
func TestCut(t *testing.T) {
	for _, paths := range []int{1, 2, 4} {
		for _, spread := range []Spread{Primary, Stripe} {
			var links [][2]*link
			for range paths {
				links = append(links, within(relayLink(nil), func(l *link) { l.rate, l.cuts = 2e6, []cut{{5 * second, 65 * second}} }))
			}
			x := newTraffic(t, Config{Spread: spread}, links...)
			x.until(5 * second)
			before := x.ends[0].core.stats.PacketsSent + x.ends[1].core.stats.PacketsSent
			x.until(65 * second)
			// What was in flight, and probes.
			events := x.ends[0].core.stats.PacketsSent + x.ends[1].core.stats.PacketsSent - before
			if most := uint64(paths * 250); events > most {
				t.Errorf("%d paths: %d packets sent during the cut, %d are enough", paths, events, most)
			}
			got := x.got
			x.until(67500 * time.Millisecond)
			if x.got == got {
				t.Errorf("%d paths, spread %d: nothing came within 2.5 s of the end of the cut", paths, spread)
			}
			got = x.got
			x.until(72500 * time.Millisecond)
			if mbps := float64(x.got-got) / 5e6; mbps < 1.5 {
				t.Errorf("%d paths, spread %d: %.1f MB/s after the cut", paths, spread, mbps)
			}
		}
	}
}

// TestLimited holds that packets which a relay refuses for their rate leave by
// another one at once, and that such a relay is not flooded.
func TestLimited(t *testing.T) {
	for _, spread := range []Spread{Primary, Stripe} {
		poor := within(relayLink(nil), func(l *link) { l.limit = 20 })
		x := newTraffic(t, Config{Spread: spread}, poor, relayLink(nil))
		x.until(5 * second)
		got := x.got
		x.until(15 * second)
		if mbps := float64(x.got-got) / 10e6; mbps < 12 {
			t.Errorf("spread %d: %.1f MB/s beside a relay that refuses", spread, mbps)
		}
		if x.stall > second || x.silence > second {
			t.Errorf("spread %d: nothing for %v, no echo for %v", spread, x.stall, x.silence)
		}
		for end, l := range poor {
			if n := l.refused; n > 15*100 {
				t.Errorf("spread %d, end %d: %d packets refused in 15 s", spread, end, n)
			}
			t.Logf("spread %d, end %d: %d refused, path %+v", spread, end, l.refused, x.ends[end].core.snapshot(x.now).Paths[0])
		}
	}
	// Alone, it carries what it takes.
	poor := within(relayLink(nil), func(l *link) { l.limit = 20 })
	x := newTraffic(t, Config{}, poor)
	x.until(20 * second)
	if kbps := float64(x.got) / 20e3; kbps < 300 {
		t.Errorf("%.0f kB/s over a relay that takes 20 packets a second", kbps)
	}
	// A carrier that keeps to the limit is waited for.
	poor = within(relayLink(nil), func(l *link) { l.limit, l.paced = 20, true })
	x = newTraffic(t, Config{}, poor)
	x.until(20 * second)
	if kbps := float64(x.got) / 20e3; kbps < 600 || x.ends[1].core.stats.PacketsLost > 10 {
		t.Errorf("%.0f kB/s over a carrier that sends 20 packets a second, %d thought lost", kbps, x.ends[1].core.stats.PacketsLost)
	}
}

// TestBestIsPrimary holds that the nearest path is found and kept, although a
// download fills its queue.
func TestBestIsPrimary(t *testing.T) {
	x := newTraffic(t, Config{}, relayLink(func(l *link) { l.rate, l.delay = 2e6, 150*time.Millisecond }),
		relayLink(func(l *link) { l.rate = 2e6 }), relayLink(both(lossy(0.2), func(l *link) { l.rate, l.delay = 2e6, 40*time.Millisecond })))
	x.until(10 * second)
	x.expectActive(1)
	sent := [2]uint64{}
	for i, e := range x.ends {
		sent[i] = e.paths[0].counts.sent + e.paths[2].counts.sent
	}
	x.until(70 * second)
	x.expectActive(1)
	for i, e := range x.ends {
		if n := e.paths[0].counts.sent + e.paths[2].counts.sent - sent[i]; n > 40 {
			t.Errorf("end %d sent %d packets in a minute over paths that stand by", i, n)
		}
	}
}

// TestIdlePaths counts what paths cost that carry nothing.
func TestIdlePaths(t *testing.T) {
	s := newSim(t, 1, Config{}, 40960, relayLink(nil), relayLink(nil), relayLink(nil), relayLink(nil))
	s.run(time.Hour, func() bool { return false })
	for i, e := range s.ends {
		if e.core.err != nil {
			t.Fatal(e.core.err)
		}
		n := e.core.stats.PacketsSent
		t.Logf("end %d: %d packets in an idle hour", i, n)
		if n > 500 {
			t.Errorf("end %d sent %d packets in an idle hour with four paths", i, n)
		}
	}
}

// TestDuplicate holds that small packets are not held up by a path that loses
// them, and that nothing comes twice: the streams check every byte.
func TestDuplicate(t *testing.T) {
	late := func(duplicate bool) (n int) {
		bad := func() [2]*link { return relayLink(lossy(0.05)) }
		s := newSim(t, 1, Config{Duplicate: duplicate}, 40960, bad(), bad())
		s.onOpen = func(st *stream) {
			s.ends[1].core.accept(st)
			s.ends[1].app(st, 1000, ^byte(numberOf(st)), byte(numberOf(st)))
		}
		for i := range 500 {
			start := s.now
			x := s.open(i, 500)
			if !s.run(start+10*second, func() bool { return x.eof }) {
				t.Fatalf("a request is not answered: %s", s.fail)
			}
			if s.now-start > 350*time.Millisecond {
				n++
			}
		}
		for i, e := range s.ends {
			if st := e.core.stats; duplicate != (st.PacketsCopied > 500) || e.core.err != nil {
				t.Errorf("end %d: %d packets copied, %v", i, st.PacketsCopied, e.core.err)
			}
		}
		return n
	}
	alone, twice := late(false), late(true)
	t.Logf("of 500 requests %d were late, and %d when sent twice", alone, twice)
	if twice > alone/3 {
		t.Errorf("of 500 requests %d were late, and %d when sent twice", alone, twice)
	}
}

// TestDuplicateFailover holds that the loss of either path does not even delay
// small packets that go twice.
func TestDuplicateFailover(t *testing.T) {
	for dead := range 2 {
		links := [][2]*link{relayLink(nil), relayLink(nil)}
		within(links[dead], func(l *link) { l.cuts = []cut{{10 * second, 20 * second}} })
		s := newSim(t, 1, Config{Duplicate: true}, 40960, links...)
		s.onOpen = func(st *stream) {
			s.ends[1].core.accept(st)
			s.ends[1].flow(st, 1).echo = true
		}
		x := s.ends[0].flow(s.dial(wire.NetworkUDP, 0, nil), ^byte(1))
		for i := range 300 {
			s.at(time.Duration(i)*100*time.Millisecond, func() { x.send(100) })
		}
		s.run(31*second, func() bool { return false })
		if x.received < 298 || s.fail != "" {
			t.Errorf("path %d dead: %d of 300 datagrams came back; %s", dead, x.received, s.fail)
		}
	}
}
