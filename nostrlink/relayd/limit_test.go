package relayd_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// TestRate publishes events as fast as the relay answers, some seconds long in
// fake time: the burst passes, then the rate. Nothing else changes: refused
// events are no faults, and another connection has a rate of its own.
func TestRate(t *testing.T) {
	for _, c := range []struct {
		name    string
		rate    relayd.Rate
		size    int    // of each content
		offered int    // a second
		seconds int    //
		want    int    // accepted
		says    string // of the refusals
	}{
		{"none", relayd.Rate{}, 1000, 200, 3, 600, ""},
		{"events", relayd.Rate{Events: 10, EventBurst: 25}, 10, 100, 4, 25 + 39, "too many events"},
		{"a second's events", relayd.Rate{Events: 10}, 10, 100, 4, 10 + 39, "too many events"},
		{"fewer than one a second", relayd.Rate{Events: 0.5}, 10, 10, 9, 1 + 4, "too many events"},
		{"bytes, a burst of one event at least", relayd.Rate{Bytes: 10_000, ByteBurst: 1}, 60_000, 1, 14, 3, "too many bytes"},
		{"bytes", relayd.Rate{Bytes: 100_000, ByteBurst: 300_000}, 39_600, 10, 8, 7 + 20, "too many bytes"},
		{"both", relayd.Rate{Events: 100, Bytes: 100_000}, 39_600, 10, 8, 2 + 20, "too many bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, s := startInMemory(t, relayd.Options{Rate: c.rate, Limits: relayd.Limits{MaxFaults: 1}})
				a, client := newAuthor(t), connectTo(t, l)
				to := newAuthor(t).hex()
				client.send(`["REQ","s",{"#p":["` + to + `"]}]`)
				client.expect(eose("s"))
				accepted := 0
				for range c.offered * c.seconds {
					raw, id := a.now(28333, strings.Repeat("x", c.size), []string{"p", to})
					client.send(event(raw))
					switch got := client.read(); {
					case got == delivered("s", raw):
						client.expect(ok(id, true, ""))
						accepted++
					case got != ok(id, false, "rate-limited: "+c.says+", slow down"):
						t.Fatalf("got %.200s", got)
					}
					time.Sleep(time.Second / time.Duration(c.offered))
				}
				if accepted != c.want {
					t.Errorf("accepted %d, want %d", accepted, c.want)
				}
				if st := s.Stats(); int(st.Accepted) != accepted || int(st.Refused) != c.offered*c.seconds-accepted {
					t.Errorf("%+v", st)
				}
				other := connectTo(t, l)
				raw, id := a.now(28333, "hello")
				other.send(event(raw))
				other.expect(fmt.Sprintf(`["OK","%s",false,"mute: …`, id))
			})
		})
	}
}
