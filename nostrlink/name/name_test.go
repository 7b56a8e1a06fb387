package name

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr/nip19"
)

type spelling struct {
	Source, Host, Text, Key, Why string
	Relays                       []string
}

type vectors struct{ Hosts, Other, Refused []spelling }

func readVectors(t testing.TB) vectors {
	t.Helper()
	data, err := os.ReadFile("testdata/names.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Hosts) == 0 || len(v.Other) == 0 || len(v.Refused) == 0 {
		t.Fatal("names.json lacks a section")
	}
	return v
}

func (s spelling) name(t testing.TB) Name {
	t.Helper()
	key, err := parseHex(s.Key)
	if err != nil {
		t.Fatal(err)
	}
	return Name{Key: key, Relays: s.Relays}
}

func same(a, b Name) bool { return a.Key == b.Key && slices.Equal(a.Relays, b.Relays) }

func TestHosts(t *testing.T) {
	for _, v := range readVectors(t).Hosts {
		want := v.name(t)
		if got := want.Host(); got != v.Host {
			t.Errorf("%s: Host() = %s, want %s", v.Source, got, v.Host)
		}
		for _, parse := range []func(string) (Name, error){Parse, ParseHost, Book(nil).Lookup} {
			if got, err := parse(v.Host); err != nil || !same(got, want) {
				t.Errorf("%s: parsed as %v, %v", v.Source, got, err)
			}
		}
	}
}

func TestOtherSpellings(t *testing.T) {
	for _, v := range readVectors(t).Other {
		if got, err := Parse(v.Text); err != nil || !same(got, v.name(t)) {
			t.Errorf("Parse(%q) = %v, %v", v.Text, got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, v := range readVectors(t).Refused {
		for _, parse := range []func(string) (Name, error){Parse, ParseHost} {
			n, err := parse(v.Text)
			if err == nil {
				t.Errorf("%s: %q was read as %v", v.Why, v.Text, n)
			} else if !strings.HasPrefix(err.Error(), "name: ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: error %q", v.Why, err)
			}
		}
	}
}

func TestSecretIsNotRepeated(t *testing.T) {
	secret, err := nip19.EncodePrivateKey(strings.Repeat("22", 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{secret, strings.ToUpper(secret)} {
		_, err := Parse(s)
		if err == nil || !strings.Contains(err.Error(), "secret key") {
			t.Errorf("Parse of a secret key: %v", err)
		} else if strings.Contains(strings.ToLower(err.Error()), secret[5:]) {
			t.Errorf("error repeats the secret key: %v", err)
		}
	}
}

func TestHostLeavesOutWhatDoesNotFit(t *testing.T) {
	short := []string{"wss://a.example", "wss://b.example"}
	fits := "wss://" + strings.Repeat("x", 33) // 39 bytes
	for _, tt := range []struct {
		what         string
		relays, want []string
	}{
		{"40 bytes", []string{fits + "x", short[0]}, short[:1]},
		{"no relay", []string{"file:///etc/passwd", "", short[1]}, short[1:]},
		{"three long ones fit", []string{fits, fits, fits}, []string{fits, fits, fits}},
		{"a fourth does not", []string{fits, fits, fits, fits}, []string{fits, fits, fits}},
		{"none fits", []string{fits + "x"}, nil},
	} {
		host := Name{Key: [32]byte{1}, Relays: tt.relays}.Host()
		if len(host) > maxHost {
			t.Errorf("%s: host of %d characters", tt.what, len(host))
		}
		if got, err := ParseHost(host); err != nil || !slices.Equal(got.Relays, tt.want) {
			t.Errorf("%s: relays %q, %v; want %q", tt.what, got.Relays, err, tt.want)
		}
	}
}

func TestProfileOfManyRelays(t *testing.T) {
	key := strings.Repeat("01", 32)
	for count, ok := range map[int]bool{maxRelays: true, maxRelays + 1: false} {
		relays := make([]string, count)
		for i := range relays {
			relays[i] = "wss://" + strings.Repeat("r", maxRelayURL-6)
		}
		text, err := nip19.EncodeProfile(key, relays)
		if err != nil {
			t.Fatal(err)
		}
		n, err := Parse(text)
		if (err == nil) != ok || ok && len(n.Relays) != count {
			t.Errorf("%d relays: read %d, %v", count, len(n.Relays), err)
		}
	}
	bad, _ := nip19.EncodeProfile(key, []string{"file:///etc/passwd"})
	if n, err := Parse(bad); err == nil {
		t.Errorf("a relay that is a file was read as %v", n)
	}
}

func TestUnder(t *testing.T) {
	for host, want := range map[string]bool{
		"nostr": true, "NOSTR.": true, "a.b.nostr": true, ".nostr": true, "blog.NoStr.": true,
		"": false, "nostr.example": false, "anostr": false, "a.nostr.com": false, "nostr..": false,
	} {
		if got := Under(host); got != want {
			t.Errorf("Under(%q) = %v", host, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	v := readVectors(f)
	for _, s := range slices.Concat(v.Hosts, v.Other, v.Refused) {
		f.Add(s.Host + s.Text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			if !same(n, Name{}) {
				t.Fatalf("a name beside the error %v", err)
			}
			return
		}
		key, err := Parse(n.NPub())
		if err != nil || key.Key != n.Key {
			t.Fatalf("npub %s reads as %x, %v", n.NPub(), key.Key, err)
		}
		if key, err = Parse(hex.EncodeToString(n.Key[:])); err != nil || key.Key != n.Key {
			t.Fatalf("hex reads as %x, %v", key.Key, err)
		}
		again, err := ParseHost(n.Host())
		if err != nil || again.Key != n.Key || again.Host() != n.Host() {
			t.Fatalf("host %s reads as %v, %v", n.Host(), again, err)
		}
		// A host name has exactly one spelling, an npub's apart.
		host := normal(s)
		if Under(host) && !strings.HasPrefix(host, "npub1") {
			if n.Host() != host || !same(again, n) {
				t.Fatalf("%q is also spelt %q", host, n.Host())
			}
		}
	})
}
