package name

import (
	"net/netip"
	"strings"
	"testing"
)

func TestRelay(t *testing.T) {
	for text, want := range map[string]string{
		"wss://relay.example":                 "wss://relay.example",
		" WSS://Relay.Example:443/ ":          "wss://relay.example",
		"ws://relay.example:80":               "ws://relay.example",
		"ws://relay.example:443//":            "ws://relay.example:443",
		"https://relay.example:443/a/":        "wss://relay.example/a",
		"http://127.0.0.1:7777":               "ws://127.0.0.1:7777",
		"wss://relay.example/A?b=C#frag":      "wss://relay.example/A?b=C",
		"wss://relay.example:":                "wss://relay.example",
		"ws://[2001:DB8::1]:80/x":             "ws://[2001:db8::1]/x",
		"wsn://npub1xx@192.0.2.1:7447":        "wsn://npub1xx@192.0.2.1:7447",
		"":                                    "",
		"relay.example":                       "",
		"file:///etc/passwd":                  "",
		"ftp://relay.example":                 "",
		"wss://":                              "",
		"wss://:443":                          "",
		"wss://a b":                           "",
		"wss://rélay.example":                 "",
		"wss:relay.example":                   "",
		"wss://" + strings.Repeat("a", 250):   "",
		"wss://a/" + strings.Repeat("|", 240): "", // too long once it is escaped
	} {
		got, err := Relay(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("Relay(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestPublicRelay(t *testing.T) {
	for text, want := range map[string]bool{
		"wss://relay.example.com":                   true,
		"https://relay.example.com":                 true,
		"WSS://RELAY.EXAMPLE.COM.:443/path":         true,
		"wss://xn--bcher-kva.example:7447":          true,
		"ws://relay.example.com":                    false,
		"http://relay.example.com":                  false,
		"wsn://relay.example.com":                   false,
		"wss://user:pw@relay.example.com":           false,
		"wss://relay":                               false,
		"wss://localhost":                           false,
		"wss://a.localhost":                         false,
		"wss://router.local":                        false,
		"wss://router.LAN":                          false,
		"wss://fritz.box.home.arpa":                 false,
		"wss://metadata.google.internal":            false,
		"wss://blog.nostr":                          false,
		"wss://127.0.0.1":                           false,
		"wss://8.8.8.8":                             false,
		"wss://[::1]:443":                           false,
		"wss://[fe80::1%25eth0]":                    false,
		"wss://[::ffff:10.0.0.1]":                   false,
		"wss://2130706433":                          false,
		"wss://0x7f000001":                          false,
		"wss://127.1":                               false,
		"wss://10.0x1":                              false,
		"wss://0177.0.0.01":                         false,
		"wss://127.0.0.1.":                          false,
		"wss://a..example.com":                      false,
		"wss://a.example.com..":                     false,
		"wss://exa%6dple.com":                       false,
		"wss://a%00.example.com":                    false,
		"wss://" + strings.Repeat("a", 64) + ".com": false,
		"file:///etc/passwd":                        false,
		"garbage":                                   false,
	} {
		if err := PublicRelay(text); (err == nil) != want {
			t.Errorf("PublicRelay(%q) = %v", text, err)
		} else if err != nil && !strings.HasPrefix(err.Error(), "name: ") {
			t.Errorf("PublicRelay(%q): error %q", text, err)
		}
	}
}

func TestPublicAddr(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700:4700::1111": true, "::ffff:8.8.8.8": true,
		"10.0.0.1": false, "127.0.0.1": false, "169.254.169.254": false, "100.64.0.1": false,
		"0.0.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "192.0.2.1": false,
		"::1": false, "::": false, "fe80::1": false, "fd00::1": false, "::ffff:10.0.0.1": false,
		"64:ff9b::a00:1": false, "2002:a00:1::1": false, "2001:db8::1": false, "ff02::1": false,
		"::10.0.0.1": false, "2606:4700::1%eth0": false,
	} {
		if got := PublicAddr(netip.MustParseAddr(text)); got != want {
			t.Errorf("PublicAddr(%s) = %v", text, got)
		}
	}
	if PublicAddr(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func FuzzRelay(f *testing.F) {
	for _, s := range []string{"wss://Relay.Example:443/a%2f/", "http://[::1]:80", "ws://a?b#c", "ws://000::", "wsn://k@h:1", "file:///x", "wss://a/|//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		relay, err := Relay(s)
		if err != nil {
			if relay != "" || PublicRelay(s) == nil {
				t.Fatalf("%q beside the error %v", relay, err)
			}
			return
		}
		if again, err := Relay(relay); err != nil || again != relay {
			t.Fatalf("%q becomes %q, then %q, %v", s, relay, again, err)
		}
		if PublicRelay(s) != nil {
			return
		}
		if !strings.HasPrefix(relay, "wss://") || PublicRelay(relay) != nil {
			t.Fatalf("%q is public, %q is not", s, relay)
		}
		host, _, _ := strings.Cut(strings.TrimPrefix(relay, "wss://"), "/")
		if _, err := netip.ParseAddr(host); err == nil {
			t.Fatalf("address %q is public", host)
		}
	})
}
