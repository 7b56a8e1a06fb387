package exit

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

const (
	keyHex  = "3ef54d9f7eaa3a6fafaea680b1d047248c93408776027317a9535a2056b2ef53"
	nwsName = "etpjkbpf60n30bhg5oo3kdpn6srg.7rqkr7rul8t6vbtekq0b3k274i696g47eo1765t9add20llitt9g.nostr"
)

func testKey(t testing.TB) (key [32]byte) {
	t.Helper()
	if _, err := hex.Decode(key[:], []byte(keyHex)); err != nil {
		t.Fatal(err)
	}
	return key
}

func TestParseDestination(t *testing.T) {
	key := testKey(t)
	npub := name.Name{Key: key}.NPub()
	for s, want := range map[string]destination{
		"example.com:80":          {host: "example.com", port: 80},
		"EXAMPLE.com.:443":        {host: "example.com", port: 443},
		"_dmarc.x-n--1.a1:65535":  {host: "_dmarc.x-n--1.a1", port: 65535},
		"host:1":                  {host: "host", port: 1},
		"0x7g:80":                 {host: "0x7g", port: 80},
		"1.2.3.4:80":              {addr: netip.MustParseAddr("1.2.3.4"), port: 80},
		"[2001:db8::1]:80":        {addr: netip.MustParseAddr("2001:db8::1"), port: 80},
		"[::ffff:127.0.0.1]:80":   {addr: netip.MustParseAddr("127.0.0.1"), port: 80},
		nwsName + ":80":           {exit: &key, port: 80},
		strings.ToUpper(nwsName):  {exit: &key},
		nwsName + ".":             {exit: &key},
		npub + ".nostr:22":        {exit: &key, port: 22},
		npub + ":22":              {exit: &key, port: 22},
		"npub1x.example.com:8080": {host: "npub1x.example.com", port: 8080},
	} {
		got, err := parseDestination(s)
		if err != nil || !sameDestination(got, want) {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
}

func sameDestination(a, b destination) bool {
	if (a.exit == nil) != (b.exit == nil) || a.exit != nil && *a.exit != *b.exit {
		return false
	}
	a.exit, b.exit = nil, nil
	return a == b
}

// leak check 50: decimal and hexadecimal hosts
func TestRefusedDestinations(t *testing.T) {
	for s, want := range map[string]Reason{
		"":                                 ReasonMalformed,
		"example.com":                      ReasonMalformed,
		":80":                              ReasonMalformed,
		"example.com:":                     ReasonMalformed,
		"example.com:0":                    ReasonMalformed,
		"example.com:65536":                ReasonMalformed,
		"example.com:+80":                  ReasonMalformed,
		"example.com:080":                  ReasonMalformed,
		"example.com:http":                 ReasonMalformed,
		"example.com:80:80":                ReasonMalformed,
		"exa mple.com:80":                  ReasonMalformed,
		"example.com\x00:80":               ReasonMalformed,
		"example.com\n:80":                 ReasonMalformed,
		"..:80":                            ReasonMalformed,
		"a..b:80":                          ReasonMalformed,
		"bücher.example:80":                ReasonMalformed,
		"127。0。0。1:80":                     ReasonMalformed,
		strings.Repeat("a", 64) + ":80":    ReasonMalformed,
		strings.Repeat("a.", 126) + "aa:1": ReasonMalformed,
		strings.Repeat("a", 600) + ":80":   ReasonMalformed,
		"[example.com]:80":                 ReasonMalformed,
		"[127.0.0.1]:80":                   ReasonMalformed,
		"2001:db8::1:80":                   ReasonMalformed, // without brackets
		"[fe80::1%eth0]:80":                ReasonMalformed,
		// Addresses in forms that some resolvers understand.
		"2130706433:80":                    ReasonMalformed,
		"0x7f000001:80":                    ReasonMalformed,
		"0X7F000001:80":                    ReasonMalformed,
		"0x7f.0.0.1:80":                    ReasonMalformed,
		"0x7f.0.0.0x1:80":                  ReasonMalformed,
		"017700000001:80":                  ReasonMalformed,
		"0177.0.0.1:80":                    ReasonMalformed,
		"127.1:80":                         ReasonMalformed,
		"127.0.1:80":                       ReasonMalformed,
		"127.0.0.01:80":                    ReasonMalformed,
		"127.0.0.1.:80":                    ReasonMalformed,
		"127.0.0.1.5:80":                   ReasonMalformed,
		"256.1.1.1:80":                     ReasonMalformed,
		"0:80":                             ReasonMalformed,
		"0x:80":                            ReasonMalformed,
		"example.com.0x7f:80":              ReasonMalformed,
		"[::ffff:7f00:1%1]:80":             ReasonMalformed,
		"[0:0:0:0:0:ffff:127.0.0.1%lo]:80": ReasonMalformed,
		// Nobody's names but ours.
		"blog.nostr:80":  ReasonNameNotFound,
		"blog.nostr":     ReasonNameNotFound,
		"nostr:80":       ReasonNameNotFound,
		"npub1zzzz:80":   ReasonNameNotFound,
		"npub1zzzz":      ReasonMalformed,
		"blog.nostr:0":   ReasonNameNotFound,
		nwsName + ":0":   ReasonMalformed,
		nwsName + ":":    ReasonMalformed,
		nwsName + ":070": ReasonMalformed,
	} {
		if d, err := parseDestination(s); err == nil || reasonOf(err) != want {
			t.Errorf("%q: %+v, %v, want %v", s, d, err, want)
		}
	}
}

func FuzzParseDestination(f *testing.F) {
	for _, s := range []string{
		"example.com:80", "1.2.3.4:5", "[2001:db8::1]:443", "[::ffff:10.0.0.1]:1", nwsName, nwsName + ":80", "0x7f.1:80",
		"2130706433:80", "[fe80::1%eth0]:80", "a..b:1", "npub1zz:80", "_x.y.:65535", "127.0.0.1.:80",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDestination(s)
		if err != nil {
			if r := (*Refusal)(nil); !errors.As(err, &r) {
				t.Fatalf("%q: %v is not a refusal", s, err)
			}
			return
		}
		again := d.what()
		if d.exit != nil {
			again = name.Name{Key: *d.exit}.Host()
			if d.port != 0 {
				again += ":" + strconv.Itoa(int(d.port))
			}
		}
		if e, err := parseDestination(again); err != nil || !sameDestination(d, e) {
			t.Fatalf("%q is %+v, which is written %q, which is %+v, %v", s, d, again, e, err)
		}
		// What is asked of the DNS must not be an address to anybody.
		if d.host != "" {
			if _, err := netip.ParseAddr(d.host); err == nil || strings.Trim(d.host, "0123456789.") == "" {
				t.Fatalf("%q is taken for a name", d.host)
			}
		}
	})
}
