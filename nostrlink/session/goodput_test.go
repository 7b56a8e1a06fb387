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

// goodputs are the relays that the design promises something of, and how much of
// what they carry at least.
var goodputs = []struct {
	name    string
	links   func() [][2]*link
	streams int
	least   float64       // of what is possible
	ping    time.Duration // median, at most
	waste   float64       // bytes sent for each received, at most
}{
	{"clean", relays(1, nil), 1, 0.92, 150, 1.04},
	{"8 streams", relays(1, nil), 8, 0.92, 150, 1.04},
	{"0.2% lost", relays(1, lossy(0.002)), 1, 0.91, 150, 1.05},
	{"1% lost", relays(1, lossy(0.01)), 1, 0.9, 150, 1.06},
	{"3% lost", relays(1, lossy(0.03)), 1, 0.82, 150, 1.1},
	{"20% lost", relays(1, lossy(0.2)), 1, 0.5, 450, 1.6},
	{"khatru", relays(1, khatru), 1, 0.82, 250, 1.08},
	{"strfry", relays(1, strfry), 1, 0.82, 250, 1.08},
	{"khatru, 1% lost", relays(1, both(khatru, lossy(0.01))), 1, 0.75, 260, 1.2},
	{"two", relays(2, nil), 1, 0.9, 150, 1.04},
	{"two khatru", relays(2, khatru), 1, 0.75, 250, 1.1},
	{"two strfry", relays(2, strfry), 1, 0.75, 250, 1.1},
	{"two khatru, 1% lost", relays(2, both(khatru, lossy(0.01))), 1, 0.7, 260, 1.2},
	{"two strfry, 1% lost", relays(2, both(strfry, lossy(0.01))), 1, 0.7, 260, 1.2},
}

// relays makes n relays that are alike.
func relays(n int, change func(*link)) func() [][2]*link {
	return func() (links [][2]*link) {
		for range n {
			links = append(links, relayLink(change))
		}
		return links
	}
}

const (
	goodputTime  = 5 * time.Second
	goodputSeeds = 3
	possible     = 14.8e6 // bytes per second and relay
)

// goodput is what a download gets, from a cold start.
type goodput struct {
	share float64 // of what is possible
	waste float64 // bytes sent for each received
	pings []time.Duration
	back  uint64 // packets the other way
	last  *sim
}

// measure downloads over streams for a while from a cold start, with a ping
// stream beside.
func measure(t testing.TB, seed uint64, streams int, links [][2]*link) (g goodput) {
	s := newSim(t, seed, Config{Spread: Stripe}, 40960, links...)
	var got uint64
	s.onOpen = func(st *stream) {
		s.ends[1].core.accept(st)
		n := byte(numberOf(st))
		x := s.ends[1].app(st, 1<<40, ^n, n)
		if n == 0 { // echoes, and writes nothing by itself
			x.nextAt = never
			x.onRead = func(n int) { x.written += uint64(s.ends[1].core.write(st, patternBytes(x.salt, x.written, n))) }
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
			g.pings = append(g.pings, s.now-sentAt[0])
			sentAt = sentAt[1:]
		}
	}
	var beat func()
	beat = func() {
		if ping.st.phase == opened {
			sentAt = append(sentAt, s.now)
			ping.written += uint64(s.ends[0].core.write(ping.st, patternBytes(ping.salt, ping.written, 64)))
		}
		s.at(s.now+20*time.Millisecond, beat)
	}
	beat()
	s.run(goodputTime, func() bool { return false })
	if s.fail != "" {
		t.Fatal(s.fail)
	}
	g.share = float64(got) / goodputTime.Seconds() / possible / float64(len(links))
	g.waste = float64(s.ends[1].core.stats.BytesSent) / float64(got)
	g.back = s.ends[0].core.stats.PacketsSent
	g.last = s
	return g
}

// TestGoodput holds what the design promises of lossy and reordering relays.
// Time is simulated, so the figures are the same everywhere; the bounds leave
// room for better trade-offs.
func TestGoodput(t *testing.T) {
	for _, test := range goodputs {
		t.Run(test.name, func(t *testing.T) {
			g := measure(t, 1, test.streams, test.links())
			st := g.last.ends[1].core.snapshot(g.last.now)
			ping := quantile(g.pings, 0.5)
			t.Logf("%4.1f %% of what is possible, ping %v (99 %%: %v), sent %.2f of needed, lost %d, spurious %d, probes %d, %d packets back",
				100*g.share, ping, quantile(g.pings, 0.99), g.waste, st.PacketsLost, st.PacketsSpurious, st.Probes, g.back)
			if g.share < test.least || ping > test.ping*time.Millisecond || g.waste > test.waste {
				t.Errorf("want %.0f %% or more, ping %v or less, %.2f of needed or less", 100*test.least, test.ping*time.Millisecond, test.waste)
			}
			if most := uint64(100 * goodputTime / time.Second); g.back > most {
				t.Errorf("%d packets back, %d are enough", g.back, most)
			}
		})
	}
}

// BenchmarkGoodput reports the share of what simulated relays carry that a
// download gets, in percent: a figure of simulated time, the same everywhere.
func BenchmarkGoodput(b *testing.B) {
	for _, bench := range goodputs {
		b.Run(bench.name, func(b *testing.B) {
			share, n := 0., 0.
			for b.Loop() {
				for seed := uint64(1); seed <= goodputSeeds; seed++ {
					share += measure(b, seed, bench.streams, bench.links()).share
					n++
				}
			}
			b.ReportMetric(100*share/n, "%")
			b.ReportMetric(0, "ns/op") // would only be the simulation's own
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
