package name

import (
	"strings"
	"testing"
)

const npub = "npub1ue5qw4ngte0lygvpkct32ms6u5amu8080dkswq9jpx3uq9cycmwspyezm3"

func TestBook(t *testing.T) {
	b, err := NewBook(map[string]string{"Blog": npub, "a-1": npub + ".nostr"})
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse(npub)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"blog.nostr", "BLOG.nostr.", "a-1.nostr", npub + ".nostr", want.Host()} {
		if got, err := b.Lookup(host); err != nil || !same(got, want) {
			t.Errorf("Lookup(%q) = %v, %v", host, got, err)
		}
	}
	for _, host := range []string{"blog", "other.nostr", "www.blog.nostr", "blog.example", "nostr", ".nostr", ""} {
		if got, err := b.Lookup(host); err == nil {
			t.Errorf("Lookup(%q) = %v", host, got)
		}
	}
}

func TestNearest(t *testing.T) {
	b := Book{"home": {}, "rome": {}, "office": {}, "a": {}}
	for text, want := range map[string]string{
		"home": "home", "HOME.nostr": "home", "hme": "home", "höme": "home", "ehom": "home", "homes.nostr.": "home",
		"come":  "home", // as near as rome
		"romee": "rome", "offfice": "office", "oficce": "office", "ab": "a",
		"blög": "", "": "", "b": "", "off": "", "example.com": "", npub: "", strings.Repeat("home", 20): "", "\xff\xfe\xfd\xfc": "",
	} {
		if got := b.Nearest(text); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", text, got, want)
		}
	}
	if got := Book(nil).Nearest("home"); got != "" {
		t.Errorf("of an empty book: %q", got)
	}
}

func TestBookRefuses(t *testing.T) {
	key := "spk0elj8bpfv48c1mobhargqsktrs7f7fdmge05i16hs05o4oreg"
	for what, entries := range map[string]map[string]string{
		"looks like a key":   {key: npub},
		"letters a-z":        {"bücher": npub},
		"twice":              {"blog": npub, "BLOG": npub},
		"neither first":      {"-a": npub},
		"nor last":           {"a-": npub},
		"1 to 63 characters": {"": npub},
		"not 64":             {strings.Repeat("a", 64): npub},
		"neither a .nostr":   {"blog": "example.com"},
		"secret key":         {"blog": "nsec1xxxx"},
		"digits and hyphens": {"www.blog": npub},
	} {
		if _, err := NewBook(entries); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v: error %v does not say %q", entries, err, what)
		}
	}
	shadow := Book{key: {Key: [32]byte{9}}}
	if n, err := shadow.Lookup(key + ".nostr"); err != nil || n.Key == shadow[key].Key {
		t.Errorf("a petname replaced a key: %v, %v", n, err)
	}
}
