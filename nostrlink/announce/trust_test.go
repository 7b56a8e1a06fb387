package announce

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

func TestParseRelayList(t *testing.T) {
	key := envelopetest.NewKey(t)
	tags := [][]string{
		{"r", "wss://both.example.com/"}, {"r", "wss://BOTH.example.com"}, {"r", "wss://read.example.com", "read"},
		{"r", "wss://write.example.com", "write"}, {"r", "wss://odd.example.com", "sometimes"},
		{"r", "ws://127.0.0.1"}, {"r", "garbage"}, {"r"}, {}, {"p", "wss://p.example.com"},
	}
	got, err := ParseRelayList(sign(t, key, 10002, now, tags...), now, nil)
	want := RelayList{
		Key: key.Public(), Created: now,
		Read:  []string{"wss://both.example.com", "wss://read.example.com", "wss://odd.example.com"},
		Write: []string{"wss://both.example.com", "wss://write.example.com", "wss://odd.example.com"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	got, err = ParseRelayList(sign(t, key, 10002, now, tags...), now, anyAddress)
	if err != nil || !slices.Contains(got.Read, "ws://127.0.0.1") {
		t.Errorf("allowed: %q, %v", got.Read, err)
	}
	many := repeat(1000, func(i int) []string { return []string{"r", fmt.Sprintf("wss://r%d.example.com", i)} })
	if got, err = ParseRelayList(sign(t, key, 10002, now, many...), now, nil); err != nil || len(got.Read) != maxRelayList {
		t.Errorf("%d relays read, %v", len(got.Read), err)
	}
}

func TestParseFollows(t *testing.T) {
	key, a, b := envelopetest.NewKey(t), envelopetest.NewKey(t).Public(), envelopetest.NewKey(t).Public()
	got, err := ParseFollows(sign(t, key, 3, now,
		[]string{"p", a.Hex(), "wss://r.example.com", "ann"}, []string{"p", b.Hex()}, []string{"p", a.Hex()},
		[]string{"p", strings.ToUpper(a.Hex())}, []string{"p", "zz"}, []string{"p"}, []string{"t", b.Hex()},
	), now)
	want := Follows{Key: key.Public(), Created: now, Keys: []envelope.PublicKey{a, b}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestListsRefuse(t *testing.T) {
	key := envelopetest.NewKey(t)
	for kind, parse := range map[int]func(*envelope.Event) error{
		KindFollows:   func(ev *envelope.Event) error { _, err := ParseFollows(ev, now); return err },
		KindRelayList: func(ev *envelope.Event) error { _, err := ParseRelayList(ev, now, nil); return err },
	} {
		if err := parse(sign(t, key, 1, now)); err == nil || !strings.Contains(err.Error(), "kind 1") {
			t.Errorf("kind %d: another kind: %v", kind, err)
		}
		if err := parse(sign(t, key, kind, now.Add(time.Hour))); !errors.Is(err, ErrFuture) {
			t.Errorf("kind %d: from the future: %v", kind, err)
		}
		forged := sign(t, key, kind, now)
		forged.PubKey = envelopetest.NewKey(t).Public()
		if err := parse(forged); !errors.Is(err, envelope.ErrID) {
			t.Errorf("kind %d: forged: %v", kind, err)
		}
	}
}

func TestTrust(t *testing.T) {
	keys := make([]envelope.PublicKey, 6)
	for i := range keys {
		keys[i] = envelope.PublicKey{byte(i + 1)}
	}
	listed, curator, followed, former, stranger := keys[0], keys[1], keys[2], keys[3], keys[4]
	rule := NewTrust([]envelope.PublicKey{listed}, []Follows{
		{Key: curator, Created: now, Keys: []envelope.PublicKey{followed, listed}},
		{Key: curator, Created: now.Add(-time.Hour), Keys: []envelope.PublicKey{former}},
	})
	for key, want := range map[envelope.PublicKey]string{
		listed: "listed", followed: "followed by " + curator.NPub(), former: "", stranger: "", curator: "",
	} {
		if got := rule.Why(key); got != want || rule.Admits(key) != (want != "") {
			t.Errorf("%v: %q, want %q", key, got, want)
		}
	}
	for what, rule := range map[string]*Trust{"nil": nil, "no keys": NewTrust(nil, []Follows{{Key: curator}})} {
		if !rule.Empty() || rule.Admits(listed) || rule.Admits(envelope.PublicKey{}) {
			t.Errorf("%s admits somebody", what)
		}
	}
	if rule.Empty() {
		t.Error("the rule is empty")
	}
}

func TestChoose(t *testing.T) {
	refused := errors.New("refused")
	candidate := func(n byte, load int, took time.Duration, err error) Candidate {
		return Candidate{Announcement{Key: envelope.PublicKey{n}, Load: load}, Probe{took, err}}
	}
	closed := candidate(8, 0, 1, nil)
	closed.Closed = true
	all := []Candidate{
		candidate(1, NoLoad, 30*time.Millisecond, nil),
		candidate(2, 99, time.Millisecond, nil), // full
		candidate(3, 50, 20*time.Millisecond, nil),
		candidate(4, 10, 0, nil), // not tried
		candidate(5, 0, time.Millisecond, refused),
		candidate(6, 0, time.Microsecond, nil), // a stranger
		candidate(7, 0, 30*time.Millisecond, nil),
		closed,
	}
	keys := func(n ...byte) (keys []envelope.PublicKey) {
		for _, n := range n {
			keys = append(keys, envelope.PublicKey{n})
		}
		return keys
	}
	for _, c := range []struct {
		what  string
		trust *Trust
		want  []byte
		err   error
	}{
		{"best first", NewTrust(keys(1, 2, 3, 4, 5, 7, 8), nil), []byte{3, 1, 7, 4, 2}, nil},
		{"one", NewTrust(keys(2), nil), []byte{2}, nil},
		{"no rule", nil, nil, ErrNoTrust},
		{"an empty rule", NewTrust(nil, nil), nil, ErrNoTrust},
		{"nobody", NewTrust(keys(9), nil), nil, ErrNobody},
		{"only a closed one", NewTrust(keys(8), nil), nil, ErrNobody},
		{"all failed", NewTrust(keys(5), nil), nil, ErrUnreachable},
	} {
		before := slices.Clone(all)
		got, err := Choose(all, c.trust)
		var order []byte
		for _, g := range got {
			order = append(order, g.Key[0])
		}
		if !errors.Is(err, c.err) || !slices.Equal(order, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.what, order, err, c.want)
		}
		if !cmp.Equal(before, all, cmp.Comparer(func(x, y error) bool { return x == y })) {
			t.Errorf("%s: the candidates were changed", c.what)
		}
	}
	if _, err := Choose(all, NewTrust(keys(5), nil)); !errors.Is(err, refused) {
		t.Errorf("%v does not say why", err)
	}
}
