package session

import (
	"testing"
	"time"
)

// TestBulk holds that a download is not held up by the thrift with
// acknowledgements, on near relays and far ones: each costs an event.
func TestBulk(t *testing.T) {
	near := func(l *link) { l.rate, l.delay, l.queue = 100e6, 2*time.Millisecond, 5*time.Millisecond }
	far := func(l *link) { l.delay = 300 * time.Millisecond }
	slow := func(l *link) { l.rate = 1e6 }
	for _, test := range []struct {
		name  string
		links [][2]*link
		least float64 // MB/s
		bare  float64 // acknowledgements for each packet of data, at most
	}{
		{"100 ms", [][2]*link{relayLink(nil)}, 13.3, 0.06},
		{"4 ms", [][2]*link{relayLink(near)}, 85, 0.06},
		{"600 ms", [][2]*link{relayLink(far)}, 8, 0.06},
		{"slow", [][2]*link{relayLink(slow)}, 0.9, 0.6},
		{"khatru", [][2]*link{relayLink(khatru)}, 11.9, 0.06},
		{"strfry", [][2]*link{relayLink(strfry)}, 11.9, 0.06},
		{"two strfry", [][2]*link{relayLink(strfry), relayLink(strfry)}, 21, 0.07},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSim(t, 1, Config{Spread: Stripe}, 40960, test.links...)
			s.onOpen = func(st *stream) {
				s.ends[1].core.accept(st)
				s.ends[1].app(st, 1<<40, ^byte(1), 1)
			}
			var got uint64
			s.open(1, 0).onRead = func(n int) { got += uint64(n) }
			s.run(goodputTime, func() bool { return false })
			mbps := float64(got) / goodputTime.Seconds() / 1e6
			data, acks := s.ends[1].core.stats.PacketsSent, s.ends[0].core.stats
			bare := float64(acks.BareAcksSent) / float64(data)
			t.Logf("%.1f MB/s, %d packets, %d back of which %.1f %% only acknowledge", mbps, data, acks.PacketsSent, 100*bare)
			if mbps < test.least || bare > test.bare || s.fail != "" {
				t.Errorf("want %.1f MB/s or more, and at most %.1f %%; %s", test.least, 100*test.bare, s.fail)
			}
		})
	}
}
