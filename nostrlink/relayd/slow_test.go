package relayd_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// TestSlowSubscriberIsCut: one of two subscribers reads nothing. The publisher is
// held back a little, then goes on; the other subscriber loses nothing.
func TestSlowSubscriberIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{Limits: relayd.Limits{MaxQueue: 200 << 10}})
		a, to := newAuthor(t), newAuthor(t)
		req := `["REQ","s",{"#p":["` + to.hex() + `"]}]`
		stuck, good, publisher := connectTo(t, l), connectTo(t, l), connectTo(t, l)
		for _, c := range []*rawClient{stuck, good} {
			c.send(req)
			c.expect(eose("s"))
		}
		publish := func(n int) {
			raw, id := a.now(28333, fmt.Sprint(n, strings.Repeat("x", 40000)), []string{"p", to.hex()})
			publisher.send(event(raw))
			good.expect(delivered("s", raw))
			publisher.expect(ok(id, true, ""))
		}
		begun := time.Now()
		for n := range 20 {
			publish(n)
		}
		if took := time.Since(begun); took > time.Second/4 {
			t.Errorf("the publisher was held back for %v", took)
		}
		time.Sleep(3 * time.Second)
		publish(20) // it is noticed
		publish(21)
		synctest.Wait()
		if st := s.Stats(); st.Slow != 1 || st.Subscriptions != 1 || st.Connections != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// TestSlowSubscribersHoldNobodyUp: a publisher serves many subscribers, each with
// events of its own, as an exit does. Some read nothing, some very slowly; the
// others get everything, hardly later.
func TestSlowSubscribersHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{Limits: relayd.Limits{MaxQueue: 200 << 10}})
		a := newAuthor(t)
		const all, bad, rounds = 20, 4, 30
		var clients []*rawClient
		for n := range all {
			c := connectTo(t, l)
			c.send(fmt.Sprintf(`["REQ","s",{"#x":["%d"]}]`, n))
			c.expect(eose("s"))
			clients = append(clients, c)
		}
		publisher := connectTo(t, l)
		begun := time.Now()
		for range rounds {
			for n, c := range clients {
				raw, id := a.now(28333, strings.Repeat("x", 40000), []string{"x", fmt.Sprint(n)})
				publisher.send(event(raw))
				publisher.expect(fmt.Sprintf(`["OK","%s",…`, id))
				if n >= bad {
					c.expect(delivered("s", raw))
				}
			}
			clients[0].expect(`["EVENT","s",…`) // slow: one of what should be many
		}
		if took := time.Since(begun); took > time.Second/4 {
			t.Errorf("the others were held up for %v", took)
		}
		if st := s.Stats(); st.Dropped == 0 {
			t.Errorf("nothing was too much: %+v", st)
		}
	})
}

// TestWatchersHoldNobodyUp: the recipient, who has proved to be it, reads slowly
// and gets everything, at its own pace; strangers who watch its events and read
// nothing, or fast, change nothing.
func TestWatchersHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{Names: []string{"relay.test"}, Limits: relayd.Limits{MaxQueue: 200 << 10}})
		a, to := newAuthor(t), newAuthor(t)
		recipient, stuck, fast, publisher := connectTo(t, l), connectTo(t, l), connectTo(t, l), connectTo(t, l)
		recipient.authenticate(to)
		for _, c := range []*rawClient{recipient, stuck, fast} {
			c.send(`["REQ","s",{"#p":["` + to.hex() + `"]}]`)
			c.expect(eose("s"))
		}
		const events = 30
		var tasks sync.WaitGroup
		tasks.Go(func() {
			for range events {
				raw, _ := a.now(28333, strings.Repeat("x", 40000), []string{"p", to.hex()})
				publisher.send(event(raw))
				publisher.read()
			}
		})
		tasks.Go(func() {
			for range events {
				fast.read()
			}
		})
		begun := time.Now()
		for range events {
			time.Sleep(time.Second)
			recipient.expect(`["EVENT","s",…`)
		}
		tasks.Wait()
		if took := time.Since(begun); took != events*time.Second {
			t.Errorf("took %v", took)
		}
		synctest.Wait()
		if st := s.Stats(); st.Slow != 1 { // the one that is stuck
			t.Errorf("%+v", st)
		}
	})
}
