package session

import (
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

// measure downloads over streams for 5 s from a cold start, with a ping stream
// beside, and gives the goodput in MB/s.
func measure(t *testing.T, streams int, links ...[2]*link) (mbps float64, pings []time.Duration, s *sim) {
	s = newSim(t, 1, Config{}, 40960, links...)
	var got uint64
	s.onOpen = func(st *stream) {
		s.ends[1].core.accept(st)
		total := uint64(1 << 40)
		if numberOf(st) == 0 {
			total = 0
		}
		x := s.ends[1].app(st, total, ^byte(numberOf(st)), byte(numberOf(st)))
		if numberOf(st) == 0 { // echo
			x.total = 1 << 40
			x.written = 1 << 39 // writes nothing by itself
			x.nextAt = never
			x.written = 0
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
	s.run(5*time.Second, func() bool { return false })
	if s.fail != "" {
		t.Fatal(s.fail)
	}
	return float64(got) / 5e6, pings, s
}

func TestGoodput(t *testing.T) {
	for _, test := range []struct {
		name    string
		links   [][2]*link
		streams int
		least   float64 // MB/s
	}{
		{"clean", [][2]*link{relayLink(nil)}, 1, 1},
		{"clean 8 streams", [][2]*link{relayLink(nil)}, 8, 1},
		{"loss 0.2%", [][2]*link{relayLink(lossy(0.002))}, 1, 1},
		{"loss 1%", [][2]*link{relayLink(lossy(0.01))}, 1, 1},
		{"loss 3%", [][2]*link{relayLink(lossy(0.03))}, 1, 1},
		{"loss 20%", [][2]*link{relayLink(lossy(0.2))}, 1, 1},
		{"khatru", [][2]*link{relayLink(khatru)}, 1, 1},
		{"strfry", [][2]*link{relayLink(strfry)}, 1, 1},
		{"khatru 1%", [][2]*link{relayLink(both(khatru, lossy(0.01)))}, 1, 1},
		{"two", [][2]*link{relayLink(nil), relayLink(nil)}, 1, 1},
		{"two khatru", [][2]*link{relayLink(khatru), relayLink(khatru)}, 1, 1},
		{"two strfry", [][2]*link{relayLink(strfry), relayLink(strfry)}, 1, 1},
		{"two khatru 1%", [][2]*link{relayLink(both(khatru, lossy(0.01))), relayLink(both(khatru, lossy(0.01)))}, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			mbps, pings, s := measure(t, test.streams, test.links...)
			st := s.ends[1].core.snapshot(s.now)
			back := s.ends[0].core.snapshot(s.now)
			t.Logf("%5.1f MB/s, ping p50 %v p99 %v (%d), sent %d (%.2f of needed) lost %d spurious %d probes %d, back %d (%d bare)",
				mbps, quantile(pings, 0.5), quantile(pings, 0.99), len(pings),
				st.PacketsSent, float64(st.BytesSent)/(mbps*5e6), st.PacketsLost, st.PacketsSpurious, st.Probes, back.PacketsSent, back.BareAcksSent)
			for _, p := range st.Paths {
				t.Logf("  rtt %v min %v reo %v rate %.1f window %.1f inflight %.1f", p.RTT, p.MinRTT, p.ReorderWindow, float64(p.Rate)/1e6, float64(p.Window)/1e6, float64(p.InFlight)/1e6)
			}
			if mbps < test.least {
				t.Errorf("goodput %.1f MB/s, at least %.1f expected", mbps, test.least)
			}
		})
	}
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = append([]time.Duration(nil), d...)
	for i := range d { // few enough
		for j := i; j > 0 && d[j] < d[j-1]; j-- {
			d[j], d[j-1] = d[j-1], d[j]
		}
	}
	return d[int(q*float64(len(d)-1))].Round(time.Millisecond)
}
