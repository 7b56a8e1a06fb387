package name

import (
	"slices"
	"strings"
	"testing"
)

func TestSpellings(t *testing.T) {
	long := "wss://relay.example/" + strings.Repeat("x", 60)
	n, err := New(npub, []string{"ws://127.0.0.1:7790", long, "WS://127.0.0.1:7790/"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := n.Spellings()
	if err != nil {
		t.Fatal(err)
	}
	const key = "spk0elj8bpfv48c1mobhargqsktrs7f7fdmge05i16hs05o4oreg.nostr"
	if s.NPub != npub || s.NPubHost != npub+".nostr" || s.KeyHost != key || s.Host != "etpjkbpf64p3ebhg5oo2sc9q6srjic0."+key {
		t.Errorf("spelt %+v", s)
	}
	if !slices.Equal(s.LeftOut, []string{long}) || len(s.Relays) != 2 {
		t.Errorf("relays %q, left out %q", s.Relays, s.LeftOut)
	}
	for _, text := range []string{s.Key, s.NPub, s.NProfile, s.Host, s.KeyHost, s.NPubHost} {
		if got, err := Parse(text); err != nil || got.Key != n.Key {
			t.Errorf("%s reads as %v, %v", text, got, err)
		}
	}
	if got, err := Parse(s.NProfile); err != nil || !same(got, n) {
		t.Errorf("nprofile reads as %v, %v", got, err)
	}
	// Every vector goes there and back.
	for _, v := range readVectors(t).Hosts {
		n := v.name(t)
		s, err := n.Spellings()
		if err != nil || s.Host != v.Host || len(s.LeftOut) > 0 {
			t.Errorf("%s: %+v, %v", v.Source, s, err)
		}
	}
}

func TestNewKeepsTheRelaysOfTheSpelling(t *testing.T) {
	host := readVectors(t).Hosts[1].Host // on ws://127.0.0.1:7790
	n, err := New(host, []string{"http://127.0.0.1:7790/", "wss://relay.example"})
	if err != nil || !slices.Equal(n.Relays, []string{"ws://127.0.0.1:7790", "wss://relay.example"}) {
		t.Errorf("relays %q, %v", n.Relays, err)
	}
}

func TestNewRefuses(t *testing.T) {
	many := make([]string, maxRelays+1)
	for i := range many {
		many[i] = "wss://r.example/" + strings.Repeat("x", i)
	}
	for what, c := range map[string]struct {
		key    string
		relays []string
	}{
		"neither":      {"blog", nil},
		"secret key":   {"nsec1xxxx", nil},
		"begins with":  {npub, []string{"file://host/etc/passwd"}},
		"17 relays":    {npub, many},
		"with a host":  {npub, []string{"wss://:443"}},
		"printable AS": {npub, []string{"wss://a b"}},
	} {
		if n, err := New(c.key, c.relays); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("New = %v, error %v does not say %q", n, err, what)
		}
	}
	if s, err := (Name{Relays: []string{"wss://" + strings.Repeat("r", 300)}}).Spellings(); err == nil {
		t.Errorf("a relay that no nprofile can hold: %+v", s)
	}
}
