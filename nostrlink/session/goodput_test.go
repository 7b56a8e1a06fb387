package session

import (
	"slices"
	"testing"
	"time"
)

// relay is a link like the simulated relay the design was chosen with: a round
// trip of 100 ms and 14.8 MB/s of payload.
func relayLink(change func(*link)) [2]*link {
	var pair [2]*link
	for i := range pair {
		l := &link{rate: 14.8e6, queue: 20 * time.Millisecond, delay: 50 * time.Millisecond, ok: 2 * time.Millisecond}
		if change != nil {
			change(l)
		}
		pair[i] = l
	}
	return pair
}

// khatru hands every message to a goroutine of its own.
func khatru(l *link) { l.order, l.jitter = shuffled, 80*time.Millisecond }

// strfry delivers every 100 ms what has gathered, sorted by id.
func strfry(l *link) { l.order = batched; l.delay = 25 * time.Millisecond }

func lossy(loss float64) func(*link) { return func(l *link) { l.loss = loss } }

func both(a, b func(*link)) func(*link) { return func(l *link) { a(l); b(l) } }

const goodputTime = 5 * time.Second

// measure downloads over streams for a while from a cold start, with a ping
// stream beside, and gives the goodput in MB/s and the round trips of the pings.
func measure(t *testing.T, took time.Duration, streams int, links ...[2]*link) (mbps float64, pings []time.Duration, s *sim) {
	s = newSim(t, 1, Config{Spread: Stripe}, 40960, links...)
	var got uint64
	s.onOpen = func(st *stream) {
		s.ends[1].core.accept(st)
		total := uint64(1 << 40)
		if numberOf(st) == 0 {
			total = 0
		}
		x := s.ends[1].app(st, total, ^byte(numberOf(st)), byte(numberOf(st)))
		if numberOf(st) == 0 { // echoes, and writes nothing by itself
			x.total, x.nextAt = 1<<40, never
			x.onRead = func(n int) {
				s.ends[1].core.write(st, patternBytes(x.salt, x.written, n))
				x.written += uint64(n)
			}
		}
	}
	for i := 1; i <= streams; i++ {
		s.open(i, 0).onRead = func(n int) { got += uint64(n) }
	}
	ping := s.open(0, 1<<40)
	ping.nextAt = never
	var sentAt []time.Duration
	ping.onRead = func(n int) {
		for range n / 64 {
			pings = append(pings, s.now-sentAt[0])
			sentAt = sentAt[1:]
		}
	}
	var beat func()
	beat = func() {
		if ping.st.phase == opened {
			sentAt = append(sentAt, s.now)
			s.ends[0].core.write(ping.st, patternBytes(ping.salt, ping.written, 64))
			ping.written += 64
		}
		s.at(s.now+20*time.Millisecond, beat)
	}
	beat()
	s.run(took, func() bool { return false })
	if s.fail != "" {
		t.Fatal(s.fail)
	}
	return float64(got) / took.Seconds() / 1e6, pings, s
}

// TestGoodput holds what the design promises of lossy and reordering relays.
// Time is simulated, so the figures are the same everywhere; the bounds leave
// room for better trade-offs.
func TestGoodput(t *testing.T) {
	one := func(change func(*link)) [][2]*link { return [][2]*link{relayLink(change)} }
	two := func(change func(*link)) [][2]*link { return [][2]*link{relayLink(change), relayLink(change)} }
	for _, test := range []struct {
		name    string
		links   [][2]*link
		streams int
		least   float64       // MB/s
		ping    time.Duration // median, at most
		waste   float64       // bytes sent for each received, at most
	}{
		{"clean", one(nil), 1, 13.5, 150, 1.04},
		{"8 streams", one(nil), 8, 13.5, 150, 1.04},
		{"0.2% lost", one(lossy(0.002)), 1, 13.4, 150, 1.05},
		{"1% lost", one(lossy(0.01)), 1, 13.3, 150, 1.06},
		{"3% lost", one(lossy(0.03)), 1, 12.0, 150, 1.1},
		{"20% lost", one(lossy(0.2)), 1, 7, 350, 1.45},
		{"khatru", one(khatru), 1, 12.5, 250, 1.08},
		{"strfry", one(strfry), 1, 12.5, 250, 1.08},
		{"khatru, 1% lost", one(both(khatru, lossy(0.01))), 1, 10, 260, 1.2},
		{"two", two(nil), 1, 26.5, 150, 1.04},
		{"two khatru", two(khatru), 1, 21, 250, 1.1},
		{"two strfry", two(strfry), 1, 22, 250, 1.1},
		{"two khatru, 1% lost", two(both(khatru, lossy(0.01))), 1, 11.5, 260, 1.25},
	} {
		t.Run(test.name, func(t *testing.T) {
			mbps, pings, s := measure(t, goodputTime, test.streams, test.links...)
			st := s.ends[1].core.snapshot(s.now)
			back := s.ends[0].core.snapshot(s.now)
			waste := float64(st.BytesSent) / (mbps * 1e6 * goodputTime.Seconds())
			ping := quantile(pings, 0.5)
			t.Logf("%5.1f MB/s, ping %v (99 %%: %v), sent %.2f of needed, lost %d, spurious %d, probes %d, %d packets back, %.1f %%",
				mbps, ping, quantile(pings, 0.99), waste, st.PacketsLost, st.PacketsSpurious, st.Probes, back.PacketsSent, 100*float64(back.BareAcksSent)/float64(st.PacketsSent))
			for _, p := range st.Paths {
				t.Logf("       path: %+v", p)
			}
			if mbps < test.least || ping > test.ping*time.Millisecond || waste > test.waste {
				t.Errorf("want %.1f MB/s or more, ping %v or less, %.2f of needed or less", test.least, test.ping*time.Millisecond, test.waste)
			}
			if most := 150 * goodputTime / time.Second; back.PacketsSent > uint64(most) {
				t.Errorf("%d packets back, %d are enough", back.PacketsSent, most)
			}
		})
	}
}

// TestPageLoad holds that small streams get through while downloads keep the
// path full.
func TestPageLoad(t *testing.T) {
	load := func(downloads int) time.Duration {
		s := newSim(t, 1, Config{}, 40960, relayLink(nil))
		s.onOpen = func(st *stream) {
			s.ends[1].core.accept(st)
			n, total := numberOf(st), uint64(20000)
			if n < downloads {
				total = 1 << 40
			}
			s.ends[1].app(st, total, ^byte(n), byte(n))
		}
		for i := range downloads {
			s.open(i, 0)
		}
		s.run(2*time.Second, func() bool { return false })
		var took []time.Duration
		for i := downloads; i < downloads+30; i++ {
			start := s.now
			x := s.open(i, 500)
			if !s.run(start+10*time.Second, func() bool { return x.eof }) {
				t.Fatal("a page did not load in 10 s ", s.fail)
			}
			took = append(took, s.now-start)
		}
		t.Logf("with %d downloads: %v, at most %v", downloads, quantile(took, 0.5), quantile(took, 1))
		return quantile(took, 1)
	}
	alone := load(0)
	for _, n := range []int{1, 8} {
		if busy := load(n); busy > alone+150*time.Millisecond {
			t.Errorf("with %d downloads a page takes %v, without %v", n, busy, alone)
		}
	}
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = append([]time.Duration(nil), d...)
	slices.Sort(d)
	return d[int(q*float64(len(d)-1))].Round(time.Millisecond)
}
