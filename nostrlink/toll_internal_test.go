package nostrlink

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

func TestToll(t *testing.T) {
	key := newKey(t)
	now := noon
	event := func() *envelope.Event {
		raw, _ := envelopetest.Sign(t, key, envelope.Template{Kind: 1, CreatedAt: now, Content: []byte(now.String())})
		return envelopetest.Parse(t, raw)
	}
	lazy := event()
	for envelope.Work(lazy.ID) >= 8 {
		now = now.Add(time.Nanosecond)
		lazy = event()
	}
	tl := &toll{busy: 100}
	// A flood begins: not a second of it passes.
	sudden, passed := &toll{busy: 50}, 0
	for range 1000 {
		if sudden.pass(lazy, now) {
			passed++
		}
	}
	if passed > 51+maxTold || sudden.asked() != firstWork {
		t.Errorf("%d pass at once, %d bits are asked for", passed, sudden.asked())
	}
	// flood offers events for a second and returns how many pass.
	flood := func(n int, ev *envelope.Event) (passed int) {
		for range n {
			now = now.Add(time.Second / time.Duration(n))
			if tl.pass(ev, now) {
				passed++
			}
		}
		return passed
	}
	if n := flood(90, lazy); n != 90 || tl.asked() != 0 {
		t.Errorf("%d of 90 pass, %d bits are asked for", n, tl.asked())
	}
	flood(300, lazy)
	if n := flood(300, lazy); n > 100+maxTold || tl.asked() != firstWork {
		t.Errorf("%d of a flood pass, %d bits are asked for", n, tl.asked())
	}
	// The flood goes on: so does the toll. An id that only looks like work is none.
	fake := *lazy
	fake.ID = [32]byte{}
	for range 5 {
		if n := flood(300, &fake); n > maxTold {
			t.Errorf("%d pass with forged ids", n)
		}
	}
	if tl.asked() != firstWork {
		t.Errorf("those who do not work raise the toll for the others to %d", tl.asked())
	}
	for range 5 {
		flood(2, lazy)
	}
	if tl.asked() != 0 {
		t.Errorf("%d bits are asked for when all is calm", tl.asked())
	}
	// Those who work and are too many all the same work more, up to a bound.
	tl.work = firstWork
	for range 10 {
		tl.paid = 1000
		now = now.Add(time.Second)
		tl.turn(now)
	}
	if tl.asked() != mostWork {
		t.Errorf("%d bits are asked for", tl.asked())
	}
}

// Who fills the room slowly pays as well, more the less is left.
func TestTollOfACrowd(t *testing.T) {
	full := 0.0
	tl := &toll{busy: 100, full: func() float64 { return full }}
	last := -1
	for _, full = range []float64{0.4, 0.6, 0.8, 0.95} {
		if w := tl.asked(); w <= last || w > mostWork {
			t.Errorf("%d bits when %.0f %% is taken", w, 100*full)
		} else {
			last = w
		}
	}
	ctx, relay, key := patience(t), startRelay(t), newKey(t)
	l := listen(t, key, relay, ListenerOptions{MaxSessions: 4}, echo)
	for range 4 {
		if err := linkAs(t, key.Public(), relay, LinkOptions{}).Connect(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if l.toll.asked() < firstWork {
		t.Errorf("%d bits are asked for when all sessions are taken", l.toll.asked())
	}
}

// An entry does the work that an exit under load asks for.
func TestWorkForAnAnswer(t *testing.T) {
	ctx, relay, key := patience(t), startRelay(t), newKey(t)
	// So much that no greeting has it by chance.
	l := listen(t, key, relay, ListenerOptions{MinWork: 16}, echo)
	link := linkAs(t, key.Public(), relay, LinkOptions{})
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Busy == 0 {
		t.Errorf("nobody was asked for work: %+v", s)
	}
	g, err := newGreeting(key.Public(), wishes{})
	if err != nil {
		t.Fatal(err)
	}
	if g.doesWork(&RefusedError{Err: errors.New("x"), Work: mostWork + 1}) || g.doesWork(&RefusedError{Err: errors.New("x")}) || g.doesWork(errors.New("x")) {
		t.Error("any work is done")
	}
}

// Strangers who greet faster than they can be listened to keep nobody out who is
// in, nor take all sessions.
func TestFloodOfGreetings(t *testing.T) {
	synctest.Test(t, floodOfGreetings) // the flood is over in no time
}

func floodOfGreetings(t *testing.T) {
	ctx, key := patience(t), newKey(t)
	urls, via := relaysInMemory(t, 1)
	url := urls[0]
	l := listenOn(t, via, key, url, ListenerOptions{MaxSessions: 100, Busy: 20}, echo)
	link := linkOn(t, via, key.Public(), url, LinkOptions{})
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := link.DialContext(ctx, "tcp", "a.example:7")
	if err != nil {
		t.Fatal(err)
	}
	c, err := relay.Dial(ctx, url, via.Relay)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n = 1500
	var taken sync.WaitGroup
	for range n {
		g, err := newGreeting(key.Public(), wishes{})
		if err != nil {
			t.Fatal(err)
		}
		event, id, err := g.event(ctx, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		taken.Add(1)
		if err := c.Publish(ctx, event, id, func(bool, string) { taken.Done() }); err != nil {
			t.Fatal(err)
		}
	}
	roundTrip(t, conn, 1_000_000)
	taken.Wait()
	late := linkOn(t, via, key.Public(), url, LinkOptions{})
	if err := late.Connect(ctx); err != nil {
		t.Errorf("who works for it does not get in: %v", err)
	}
	if s := l.Stats(); s.Greetings < n || s.Unpaid == 0 {
		t.Errorf("%+v", s)
	}
}
