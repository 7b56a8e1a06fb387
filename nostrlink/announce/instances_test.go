package announce

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// announcedAs makes an announcement of one of the exits that share a key.
func announcedAs(t testing.TB, key envelope.SecretKey, instance string, at time.Time, load int, closed bool) *envelope.Event {
	t.Helper()
	raw, _, err := Append(nil, key, at, Announcement{Instance: instance, Load: load, Closed: closed, Expires: at.Add(10 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	return envelopetest.Parse(t, raw)
}

// The key of an exit remains known while one of those who share it is there.
func TestInstancesEndByThemselves(t *testing.T) {
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	for what, end := range map[string]func(key envelope.SecretKey) *envelope.Event{
		"closed": func(key envelope.SecretKey) *envelope.Event { return announcedAs(t, key, "a", at(2), NoLoad, true) },
		"deleted": func(key envelope.SecretKey) *envelope.Event {
			return sign(t, key, 5, at(2), []string{"a", address(key.Public(), "a")})
		},
	} {
		b := NewBook(BookOptions{})
		key := envelopetest.NewKey(t)
		check := func(when, instance string, load int) {
			t.Helper()
			e, ok := b.Find(key.Public(), at(3))
			list := b.Snapshot(at(3))
			if !ok || e.Instance != instance || e.Load != load || len(list) != 1 || list[0].Instance != instance {
				t.Fatalf("%s: %s: found %v %q with load %d, all %v; want %q", what, when, ok, e.Instance, e.Load, list, instance)
			}
		}
		mustAdd(t, b, announcedAs(t, key, "b", at(0), 20, false), "wss://b.example.com", now)
		mustAdd(t, b, announcedAs(t, key, "a", at(1), 10, false), "wss://a.example.com", now)
		check("both", "a", 10)
		mustAdd(t, b, end(key), "", now)
		check("one has ended", "b", 20)
		if e, _ := b.Find(key.Public(), now); len(e.Seen) != 1 || e.Seen[0] != "wss://b.example.com" {
			t.Errorf("%s: seen at %q", what, e.Seen)
		}
		if err := b.Add(announcedAs(t, key, "a", at(1), 11, false), "", now); !errors.Is(err, ErrOld) {
			t.Errorf("%s: an older one of who has ended: %v", what, err)
		}
		mustAdd(t, b, announcedAs(t, key, "b", at(3), NoLoad, true), "", now)
		if e, ok := b.Find(key.Public(), at(3)); ok || len(b.Snapshot(at(3))) != 0 {
			t.Errorf("%s: both have ended, found %v", what, e)
		}
	}
}

// One key takes up a few places however many instances it invents, those that
// announced themselves last.
func TestInstancesAreBounded(t *testing.T) {
	b := NewBook(BookOptions{})
	key := envelopetest.NewKey(t)
	const many = 3 * maxInstances
	for i := range many {
		mustAdd(t, b, announcedAs(t, key, fmt.Sprint(i), now.Add(time.Duration(i)*time.Second), NoLoad, false), "", now)
	}
	if len(b.entries[key.Public()]) != maxInstances || b.size != maxInstances {
		t.Errorf("%d instances, %d entries", len(b.entries[key.Public()]), b.size)
	}
	if e, ok := b.Find(key.Public(), now); !ok || e.Instance != fmt.Sprint(many-1) {
		t.Errorf("found %v %q", ok, e.Instance)
	}
	if err := b.Add(announcedAs(t, key, "0", now, NoLoad, false), "", now); !errors.Is(err, ErrOld) {
		t.Errorf("older than all of them: %v", err)
	}
	later := now.Add(time.Hour)
	if list := b.Snapshot(later); len(list) != 0 || b.size != 0 || len(b.entries) != 0 {
		t.Errorf("all have expired: %v, %d entries", list, b.size)
	}
}

// The instances of trusted exits take the places of strangers, of whom each
// counts as many as it has.
func TestInstancesInAFullBook(t *testing.T) {
	trusted, stranger := envelopetest.NewKey(t), envelopetest.NewKey(t)
	b := NewBook(BookOptions{Max: 3, Admits: func(k envelope.PublicKey) bool { return k == trusted.Public() }})
	for i := range 3 {
		mustAdd(t, b, announcedAs(t, stranger, fmt.Sprint(i), now.Add(time.Duration(i)*time.Second), NoLoad, false), "", now)
	}
	if err := b.Add(announcedAs(t, stranger, "3", now.Add(time.Minute), NoLoad, false), "", now); !errors.Is(err, ErrFull) {
		t.Errorf("a fourth one: %v", err)
	}
	mustAdd(t, b, announcedAs(t, trusted, "a", now, NoLoad, false), "", now)
	mustAdd(t, b, announcedAs(t, trusted, "b", now, NoLoad, false), "", now)
	if b.size != 3 || len(b.Snapshot(now)) != 2 {
		t.Errorf("%d entries, %v", b.size, b.Snapshot(now))
	}
	if e, ok := b.Find(stranger.Public(), now); !ok || e.Instance != "2" {
		t.Errorf("of the stranger %v %q is left", ok, e.Instance)
	}
}
