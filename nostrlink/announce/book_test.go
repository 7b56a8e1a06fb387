package announce

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

func mustAdd(t *testing.T, b *Book, ev *envelope.Event, relay string, at time.Time) {
	t.Helper()
	if err := b.Add(ev, relay, at); err != nil {
		t.Fatalf("%s: %v", relay, err)
	}
}

func TestBookKeepsTheNewest(t *testing.T) {
	b := NewBook(BookOptions{})
	key := envelopetest.NewKey(t)
	first := announced(t, key, now, 10*time.Minute, "wss://one.example.com")
	second := announced(t, key, now.Add(time.Minute), 10*time.Minute, "wss://two.example.com")
	mustAdd(t, b, first, "wss://r1.example.com", now)
	mustAdd(t, b, first, "wss://r1.example.com", now)
	mustAdd(t, b, second, "wss://r2.example.com", now)
	if err := b.Add(first, "wss://r3.example.com", now); !errors.Is(err, ErrOld) {
		t.Errorf("the first one again: %v", err)
	}
	mustAdd(t, b, second, "wss://r4.example.com", now)
	list := b.Snapshot(now)
	if len(list) != 1 || list[0].Relays[0] != "wss://two.example.com" {
		t.Fatalf("book %v", list)
	}
	want := []string{"wss://r2.example.com", "wss://r1.example.com", "wss://r4.example.com"}
	if !slices.Equal(list[0].Seen, want) {
		t.Errorf("seen at %q, want %q", list[0].Seen, want)
	}
	list[0].Relays[0], list[0].Seen[0] = "changed", "changed"
	if e, ok := b.Find(key.Public(), now); !ok || e.Relays[0] == "changed" || e.Seen[0] == "changed" {
		t.Errorf("the book was changed from outside: %v", e)
	}
}

// Of two events of one second, NIP-01 keeps the one with the lower id.
func TestBookTie(t *testing.T) {
	key := envelopetest.NewKey(t)
	x := announced(t, key, now, time.Minute, "wss://x.example.com")
	y := announced(t, key, now, time.Minute, "wss://y.example.com")
	if slices.Compare(x.ID[:], y.ID[:]) > 0 {
		x, y = y, x
	}
	for _, order := range [][]*envelope.Event{{x, y}, {y, x}} {
		b := NewBook(BookOptions{})
		for _, ev := range order {
			if err := b.Add(ev, "", now); err != nil && !errors.Is(err, ErrOld) {
				t.Fatal(err)
			}
		}
		if err := b.Add(x, "", now); err != nil {
			t.Errorf("the lower id is not the one in the book: %v", err)
		}
	}
}

func TestBookExpires(t *testing.T) {
	b := NewBook(BookOptions{})
	ev := envelopetest.Parse(t, []byte(reference))
	mustAdd(t, b, ev, "wss://r.example.com", now)
	until := time.Unix(1795227613, 0).Add(grace)
	for at, want := range map[time.Time]int{now: 1, until.Add(-time.Second): 1} {
		if list := b.Snapshot(at); len(list) != want {
			t.Errorf("at %v: %v", at, list)
		}
	}
	if _, ok := b.Find(ev.PubKey, until); ok {
		t.Error("found after it expired")
	}
	if list := b.Snapshot(until); len(list) != 0 {
		t.Errorf("after its expiration: %v", list)
	}
	if err := b.Add(ev, "", until); !errors.Is(err, ErrExpired) {
		t.Errorf("expired: %v", err)
	}
	if len(b.entries) != 0 {
		t.Errorf("%d entries remain", len(b.entries))
	}
}

func TestBookRefusesForgeries(t *testing.T) {
	b := NewBook(BookOptions{})
	ev := envelopetest.Parse(t, []byte(reference))
	mustAdd(t, b, ev, "", now)
	forged := *ev
	forged.CreatedAt++
	forged.ID[0]++
	if err := b.Add(&forged, "", now); !errors.Is(err, envelope.ErrID) {
		t.Errorf("forged: %v", err)
	}
	if err := b.Add(announced(t, envelopetest.NewKey(t), now.Add(time.Hour), time.Minute), "", now); !errors.Is(err, ErrFuture) {
		t.Errorf("from the future: %v", err)
	}
	// A deletion by somebody else, and one by nobody.
	about := []string{"a", address(ev.PubKey, "")}
	if err := b.Add(sign(t, envelopetest.NewKey(t), 5, now, about), "", now); !errors.Is(err, ErrOld) {
		t.Errorf("foreign deletion: %v", err)
	}
	deletion := sign(t, envelopetest.NewKey(t), 5, now, about)
	deletion.PubKey = ev.PubKey
	if err := b.Add(deletion, "", now); !errors.Is(err, envelope.ErrID) {
		t.Errorf("forged deletion: %v", err)
	}
	if len(b.Snapshot(now)) != 1 {
		t.Error("a forgery took the announcement away")
	}
}

// What strangers can do to a book, and to those who are trusted: nothing.
func TestBookFullOfStrangers(t *testing.T) {
	const most = 20
	trusted := envelopetest.NewKey(t)
	b := NewBook(BookOptions{Max: most, Admits: func(k envelope.PublicKey) bool { return k == trusted.Public() }})
	refused := 0
	for i := range 3 * most {
		ev := announced(t, envelopetest.NewKey(t), now, time.Minute+time.Duration(i)*time.Second)
		switch err := b.Add(ev, "wss://flood.example.com", now); {
		case errors.Is(err, ErrFull):
			refused++
		case err != nil:
			t.Fatal(err)
		}
	}
	if len(b.entries) != most || refused != 2*most {
		t.Errorf("%d entries, %d refused", len(b.entries), refused)
	}
	mustAdd(t, b, announced(t, trusted, now, time.Minute), "", now)
	list := b.Snapshot(now)
	if len(list) != most || !list[0].Trusted || list[0].Key != trusted.Public() || list[1].Trusted {
		t.Errorf("%d entries, first %v", len(list), list[0])
	}
	if !slices.IsSortedFunc(list[1:], func(x, y Entry) int { return slices.Compare(x.Key[:], y.Key[:]) }) {
		t.Error("not sorted")
	}
	// When they expire there is room for others again.
	later := now.Add(time.Hour)
	mustAdd(t, b, announced(t, envelopetest.NewKey(t), later, time.Minute), "", later)
	if len(b.entries) != 1 {
		t.Errorf("%d entries, all but one expired", len(b.entries))
	}
}

func TestBookFullOfTrusted(t *testing.T) {
	b := NewBook(BookOptions{Max: 2, Admits: func(envelope.PublicKey) bool { return true }})
	mustAdd(t, b, announced(t, envelopetest.NewKey(t), now, time.Minute), "", now)
	mustAdd(t, b, announced(t, envelopetest.NewKey(t), now, time.Minute), "", now)
	if err := b.Add(announced(t, envelopetest.NewKey(t), now, time.Minute), "", now); !errors.Is(err, ErrFull) {
		t.Errorf("a third one: %v", err)
	}
}

// 10,000 unsigned events: none is verified once the book is full, and none
// stays.
func TestBookFlood(t *testing.T) {
	b := NewBook(BookOptions{Max: 1})
	mustAdd(t, b, announced(t, envelopetest.NewKey(t), now, time.Minute), "", now)
	text := strings.Replace(reference, "1795227613", "1795228000", 1)
	for i := range 10000 {
		ev := envelopetest.Parse(t, []byte(strings.Replace(text, "e6680756685e", fmt.Sprintf("%012x", i), 1)))
		if err := b.Add(ev, "wss://flood.example.com", now); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	if len(b.entries) != 1 {
		t.Errorf("%d entries", len(b.entries))
	}
}

func TestSeenIsBounded(t *testing.T) {
	b := NewBook(BookOptions{})
	ev := envelopetest.Parse(t, []byte(reference))
	for i := range 100 {
		mustAdd(t, b, ev, fmt.Sprintf("wss://r%d.example.com", i), now)
	}
	if e, _ := b.Find(ev.PubKey, now); len(e.Seen) != maxSeen {
		t.Errorf("%d relays noted", len(e.Seen))
	}
}

func TestPublisher(t *testing.T) {
	key := envelopetest.NewKey(t)
	p := NewPublisher(key)
	if events, err := p.Withdraw(now, ""); err != nil || events != nil {
		t.Errorf("withdrew what was never announced: %v, %v", events, err)
	}
	b := NewBook(BookOptions{})
	at := now
	for _, random := range []float64{0, 0.5, 0.999, 7, -1} {
		ev, next, err := p.Announce(at, random, everything())
		if err != nil {
			t.Fatal(err)
		}
		a, err := Parse(envelopetest.Parse(t, ev.JSON), at, nil)
		if err != nil {
			t.Fatal(err)
		}
		life := a.Expires.Sub(at)
		if life < minLifetime || life > maxLifetime+time.Second || next.Sub(at) < life/2-time.Second || next.Sub(at) > life*3/4+time.Second {
			t.Errorf("random %v: counts for %v, again after %v", random, life, next.Sub(at))
		}
		mustAdd(t, b, envelopetest.Parse(t, ev.JSON), "", at)
		if random < 0.9 {
			at = next
		} // else the same second: still newer
	}
	old := *b.entries[key.Public()][0]
	events, err := p.Withdraw(at, everything().Instance)
	if err != nil || len(events) != 2 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for i := range events { // either of them is enough
		announced := old
		b.entries[key.Public()] = []*entry{&announced}
		mustAdd(t, b, envelopetest.Parse(t, events[i].JSON), "", at)
		if list := b.Snapshot(at); len(list) != 0 {
			t.Errorf("after event %d: %v", i, list)
		}
		if _, ok := b.Find(key.Public(), at); ok {
			t.Errorf("after event %d: found", i)
		}
	}
	// A newer announcement opens again.
	ev, _, err := p.Announce(at, 0, everything())
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, b, envelopetest.Parse(t, ev.JSON), "", at)
	if len(b.Snapshot(at)) != 1 {
		t.Error("announced again, and not there")
	}
	if _, _, err := p.Announce(at, 0, Announcement{Load: 101}); err == nil {
		t.Error("announced a load of 101 per cent")
	}
}

// Nobody brings back what was withdrawn by publishing it again.
func TestWithdrawnStaysWithdrawn(t *testing.T) {
	key := envelopetest.NewKey(t)
	ev := announced(t, key, now, 10*time.Minute)
	for what, tag := range map[string][]string{
		"address": {"a", address(key.Public(), DefaultInstance)},
		"id":      {"e", fmt.Sprintf("%x", ev.ID)},
	} {
		b := NewBook(BookOptions{})
		mustAdd(t, b, ev, "", now)
		if err := b.Add(sign(t, key, 5, now.Add(-time.Second), tag), "", now); !errors.Is(err, ErrOld) {
			t.Errorf("%s: an older deletion: %v", what, err)
		}
		if err := b.Add(sign(t, key, 5, now.Add(time.Hour), tag), "", now); !errors.Is(err, ErrFuture) {
			t.Errorf("%s: a deletion from the future: %v", what, err)
		}
		other := []string{"a", address(key.Public(), "other")}
		if err := b.Add(sign(t, key, 5, now, other), "", now); !errors.Is(err, ErrOld) {
			t.Errorf("%s: a deletion of another instance: %v", what, err)
		}
		if len(b.Snapshot(now)) != 1 {
			t.Fatalf("%s: deleted by the wrong event", what)
		}
		mustAdd(t, b, sign(t, key, 5, now.Add(time.Second), tag), "", now)
		if err := b.Add(announced(t, key, now.Add(time.Second/2), 10*time.Minute, "wss://x.example.com"), "", now); !errors.Is(err, ErrOld) {
			t.Errorf("%s: an older announcement: %v", what, err)
		}
		if list := b.Snapshot(now.Add(time.Minute)); len(list) != 0 {
			t.Errorf("%s: %v", what, list)
		}
	}
}

func TestBookConcurrently(t *testing.T) {
	b := NewBook(BookOptions{Max: 4})
	var events []*envelope.Event
	for range 8 {
		events = append(events, announced(t, envelopetest.NewKey(t), now, time.Minute))
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for _, ev := range events {
				if err := b.Add(ev, fmt.Sprintf("wss://r%d.example.com", i), now); err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrOld) {
					t.Error(err)
				}
				b.Snapshot(now)
			}
		})
	}
	wg.Wait()
	if n := len(b.Snapshot(now)); n != 4 {
		t.Errorf("%d entries", n)
	}
}
