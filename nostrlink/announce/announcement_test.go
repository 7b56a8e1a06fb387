package announce

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// reference is an announcement of the reference implementation, as it came over
// the wire.
const reference = `{"kind":38333,"id":"0ec67bf01c7399794a0c5fb7eb7a7cb0240b570e3594d40855fea0a3c163dd23","pubkey":"e6680756685e5ff22181b617156e1ae53bbe1de77b6d0700b209a3c01704c6dd","created_at":1795227603,"tags":[["expiration","1795227613"]],"content":"","sig":"d9df5a3e07ef88e273618a9d2b6b1fe314f23366ef2b1356ef629ab67428d52e881eab3255587c6c0287ced3741aeede31a6aee47b07b6d1f1851048ad2b3353"}`

func everything() Announcement {
	return Announcement{
		Instance: "second",
		Relays:   []string{"wss://a.example.com", "wss://b.example.com/nostr"},
		Transports: []Transport{
			{Direct, "exit.example.com:4443"},
			{Direct, "[2606:4700::1]:4443"},
			{WSN, "wsn://e6680756685e5ff22181b617156e1ae53bbe1de77b6d0700b209a3c01704c6dd@relay.example.com:7447"},
			{WSN, "wsn://npub1ue5qw4ngte0lygvpkct32ms6u5amu8080dkswq9jpx3uq9cycmwspyezm3"},
		},
		Policy: Policy{
			Ports: []PortRange{{1, 24}, {26, 65535}, {7, 7}}, IPv4: true, IPv6: true,
			Price: Price{"0.5", "SAT", "MB"},
		},
		Admission: Trusted,
		Software:  "nws-vpn/0.4",
		Versions:  []int{1, 2},
		Load:      35,
		Contact:   "Zoë, mailto:zoe@example.com",
	}
}

func TestRoundTrip(t *testing.T) {
	key := envelopetest.NewKey(t)
	one := func(change func(*Announcement)) Announcement {
		a := Announcement{Instance: DefaultInstance, Load: NoLoad}
		change(&a)
		return a
	}
	for what, want := range map[string]Announcement{
		"everything": everything(),
		"nothing":    one(func(*Announcement) {}),
		"no load":    one(func(a *Announcement) { a.Load = 0 }),
		"IPv4 only":  one(func(a *Announcement) { a.Policy.IPv4 = true }),
		"IPv6 only":  one(func(a *Announcement) { a.Policy.IPv6 = true }),
		"for free":   one(func(a *Announcement) { a.Policy.Price.Amount = "0" }),
		"closed":     one(func(a *Announcement) { a.Closed = true }),
	} {
		want.Key, want.Created, want.Expires = key.Public(), now, now.Add(12*time.Minute)
		raw, id, err := Append([]byte("before"), key, now.Add(300*time.Millisecond), want)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		ev := envelopetest.Parse(t, raw[len("before"):])
		got, err := Parse(ev, now.Add(time.Minute), nil)
		if err != nil || ev.ID != id {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

// What the tags of the event are is a format that others read.
func TestTags(t *testing.T) {
	key := envelopetest.NewKey(t)
	a := everything()
	a.Expires = now.Add(10 * time.Minute)
	raw, _, err := Append(nil, key, now, a)
	if err != nil {
		t.Fatal(err)
	}
	ev := envelopetest.Parse(t, raw)
	if ev.Kind != 38333 || len(ev.Content) > 0 || ev.CreatedAt != now.Unix() {
		t.Errorf("kind %d, content %q, made at %d", ev.Kind, ev.Content, ev.CreatedAt)
	}
	var lines []string
	for _, tag := range ev.TagStrings() {
		if tag[0] == "alt" {
			if !strings.HasPrefix(tag[1], "NWS exit node ") || !strings.HasSuffix(tag[1], ".nostr") {
				t.Errorf("alt %q", tag[1])
			}
			continue
		}
		lines = append(lines, strings.Join(tag, " "))
	}
	want := []string{
		"d second",
		"relay wss://a.example.com", "relay wss://b.example.com/nostr",
		"transport direct exit.example.com:4443", "transport direct [2606:4700::1]:4443",
		"transport wsn " + a.Transports[2].Address, "transport wsn " + a.Transports[3].Address,
		"ports 1-24 26-65535 7", "network ipv4 ipv6", "price 0.5 SAT MB",
		"admission wot", "software nws-vpn/0.4", "version 1 2", "load 35", "contact " + a.Contact,
		"expiration 1795228205",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestReference(t *testing.T) {
	ev := envelopetest.Parse(t, []byte(reference))
	got, err := Parse(ev, now, nil)
	want := Announcement{Key: ev.PubKey, Created: time.Unix(1795227603, 0), Expires: time.Unix(1795227613, 0), Load: NoLoad}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := Parse(ev, now.Add(10*time.Second), nil); !errors.Is(err, ErrExpired) {
		t.Errorf("after its expiration: %v", err)
	}
	forged := envelopetest.Parse(t, []byte(strings.Replace(reference, "1795227613", "1795227999", 1)))
	if _, err := Parse(forged, now, nil); !errors.Is(err, envelope.ErrID) {
		t.Errorf("changed: %v", err)
	}
	stolen := envelopetest.Parse(t, []byte(strings.Replace(reference, `"sig":"d9df`, `"sig":"d9d0`, 1)))
	if _, err := Parse(stolen, now, nil); !errors.Is(err, envelope.ErrSignature) {
		t.Errorf("badly signed: %v", err)
	}
}

func repeat(n int, tag func(i int) []string) (tags [][]string) {
	for i := range n {
		tags = append(tags, tag(i))
	}
	return tags
}

func TestParseRefuses(t *testing.T) {
	key := envelopetest.NewKey(t)
	tag := func(s ...string) [][]string { return [][]string{s} }
	for what, tags := range map[string][][]string{
		"more than 8 times": repeat(9, func(i int) []string { return []string{"relay", fmt.Sprintf("wss://r%d.example.com", i)} }),
		`"transport" more`:  repeat(9, func(i int) []string { return []string{"transport", "direct", fmt.Sprintf("r.example.com:%d", i+1)} }),
		"129 tags":          repeat(128, func(int) []string { return []string{"x"} }),
		`"d" more than 1`:   {{"d", "a"}, {"d", "b"}},
		`"load" more than`:  {{"load", "1"}, {"load", "1"}},
		"65 ranges":         tag(append([]string{"ports"}, make([]string, 65)...)...),
		"17 versions":       tag(append([]string{"version"}, make([]string, 17)...)...),
		"of 519 bytes":      tag("contact", strings.Repeat("x", 512)),
		"129 bytes":         tag("contact", strings.Repeat("x", 129)),
		"65 bytes":          tag("d", strings.Repeat("x", 65)),
		"cannot be printed": tag("contact", "a\x1b[2Jb"),
		`"software": text`:  tag("software", "a\u202eb"), // turns the line round
		`"price": text`:     tag("price", "5", "S\nT"),
		"amount in digits":  tag("price", "1e9", "SAT"),
		`"price": want`:     tag("price", "", "SAT"),
		`"price": want an`:  tag("price", "5.", "SAT"),
		"from 0 to 100":     tag("load", "101"),
		`"load": want`:      tag("load", "+5"),
		`"load": want a`:    tag("load"),
		`"version": want`:   tag("version", "one"),
		"such as 1-1023":    tag("ports", "24-1"),
		`"ports": want`:     tag("ports", "0-1"),
		`"ports": want p`:   tag("ports", "1-65536"),
		"kind and an":       tag("transport", "direct"),
		"seconds since":     tag("expiration", "soon"),
		`"expiration": w`:   tag("expiration", "-5"),
	} {
		if what != "seconds since" && what != `"expiration": w` {
			tags = append(tags, expiration(now.Add(time.Minute)))
		}
		a, err := Parse(sign(t, key, envelope.KindAnnouncement, now, tags...), now, nil)
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("error %v does not say %q", err, what)
		}
		if !cmp.Equal(a, Announcement{}) {
			t.Errorf("%s: %v beside the error", what, a)
		}
	}
	if _, err := Parse(sign(t, key, 1, now), now, nil); err == nil {
		t.Error("a note was read as an announcement")
	}
	raw, _ := envelopetest.Sign(t, key, envelope.Template{Kind: 38333, CreatedAt: now, Content: make([]byte, 5000)})
	if _, err := Parse(envelopetest.Parse(t, raw), now, nil); err == nil || !strings.Contains(err.Error(), "content") {
		t.Errorf("long content: %v", err)
	}
}

func TestTimes(t *testing.T) {
	key := envelopetest.NewKey(t)
	for _, c := range []struct {
		what    string
		made    time.Duration // from now
		expires time.Duration // from now; 0 for no tag
		counts  time.Duration // after it is made
		err     error
	}{
		{what: "as ours", expires: 12 * time.Minute, counts: 12 * time.Minute},
		{what: "no expiration", made: -time.Minute, counts: 15 * time.Minute},
		{what: "no expiration, old", made: -15 * time.Minute, err: ErrExpired},
		{what: "for years", expires: 1e5 * time.Hour, counts: time.Hour},
		{what: "for years, old", made: -time.Hour, expires: 1e5 * time.Hour, err: ErrExpired},
		{what: "a clock that is ahead", made: 9 * time.Minute, expires: 20 * time.Minute, counts: 11 * time.Minute},
		{what: "from the future", made: 11 * time.Minute, expires: time.Hour, err: ErrFuture},
		{what: "expired before it was made", made: time.Minute, expires: -time.Hour, err: ErrExpired},
	} {
		var tags [][]string
		if c.expires != 0 {
			tags = append(tags, expiration(now.Add(c.expires)))
		}
		a, err := Parse(sign(t, key, envelope.KindAnnouncement, now.Add(c.made), tags...), now, nil)
		if !errors.Is(err, c.err) || err == nil && a.Expires.Sub(a.Created) != c.counts {
			t.Errorf("%s: counts for %v, error %v", c.what, a.Expires.Sub(a.Created), err)
		}
	}
}

// Strangers must not make this machine talk to its own network.
func TestPrivateAddresses(t *testing.T) {
	key := envelopetest.NewKey(t)
	pub := key.Public().Hex()
	var tags [][]string
	for _, relay := range []string{"ws://127.0.0.1:7777", "wss://192.168.1.1", "wss://router.local", "wss://good.example.com/"} {
		tags = append(tags, []string{"relay", relay})
	}
	for _, tr := range [][2]string{
		{"direct", "10.0.0.1:22"}, {"direct", "[::1]:22"}, {"direct", "8.8.8.8:4443"},
		{"wsn", "wsn://" + pub + "@169.254.169.254:80"}, {"wsn", "wsn://" + pub}, {"direct", "127.1:80"},
	} {
		tags = append(tags, []string{"transport", tr[0], tr[1]})
	}
	tags = append(tags, expiration(now.Add(time.Minute)))
	ev := sign(t, key, envelope.KindAnnouncement, now, tags...)
	a, err := Parse(ev, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Transport{{Direct, "8.8.8.8:4443"}, {WSN, "wsn://" + pub}}
	if !cmp.Equal(a.Relays, []string{"wss://good.example.com"}) || !cmp.Equal(a.Transports, want) || a.LeftOut != 7 {
		t.Errorf("relays %q, transports %v, %d left out", a.Relays, a.Transports, a.LeftOut)
	}
	a, err = Parse(ev, now, func(address string) bool { return address == "ws://127.0.0.1:7777" || address == "10.0.0.1:22" })
	if err != nil || len(a.Relays) != 2 || len(a.Transports) != 3 || a.LeftOut != 5 {
		t.Errorf("allowed: relays %q, transports %v, %d left out, %v", a.Relays, a.Transports, a.LeftOut, err)
	}
}

func TestMalformedAddressesAreLeftOut(t *testing.T) {
	key := envelopetest.NewKey(t)
	bad := [][]string{
		{"relay", "file:///etc/passwd"}, {"relay", "garbage"}, {"relay"}, {"relay", "wss://a\u00e9.example.com"},
		{"transport", "carrier pigeon", "x:1"}, {"transport", "direct", "host"}, {"transport", "direct", "host.example.com:0"},
		{"transport", "direct", ":443"}, {"transport", "direct", "a/b:443"}, {"transport", "direct", strings.Repeat("a", 300) + ":1"},
		{"transport", "wsn", "wss://" + key.Public().Hex() + "@h.example.com:1"}, {"transport", "wsn", "wsn://someone@h.example.com:1"},
	}
	for _, tag := range bad {
		a, err := Parse(sign(t, key, envelope.KindAnnouncement, now, tag, expiration(now.Add(time.Minute))), now, anyAddress)
		if err != nil || len(a.Relays)+len(a.Transports) > 0 || a.LeftOut != 1 {
			t.Errorf("%q: relays %q, transports %q, %d left out, %v", tag, a.Relays, a.Transports, a.LeftOut, err)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	key := envelopetest.NewKey(t)
	for what, change := range map[string]func(*Announcement){
		"expires":           func(a *Announcement) { a.Expires = now },
		"up to":             func(a *Announcement) { a.Expires = now.Add(2 * time.Hour) },
		"no known form":     func(a *Announcement) { a.Relays = []string{"file:///x"} },
		"or twice":          func(a *Announcement) { a.Relays = []string{"wss://a.example.com", "wss://A.example.com/"} },
		"a relay or tr":     func(a *Announcement) { a.Transports = append(a.Transports, a.Transports[0]) },
		"transport of no":   func(a *Announcement) { a.Transports = []Transport{{"pigeon", "x"}} },
		"more than 8":       func(a *Announcement) { a.Relays = make([]string, 9) },
		"from 0 to 100":     func(a *Announcement) { a.Load = 200 },
		"cannot be printed": func(a *Announcement) { a.Contact = "a\nb" },
		"129 bytes":         func(a *Announcement) { a.Software = strings.Repeat("x", 129) },
		"amount":            func(a *Announcement) { a.Policy.Price = Price{Currency: "SAT"} },
		"1-1023":            func(a *Announcement) { a.Policy.Ports = []PortRange{{5, 1}} },
	} {
		a := everything()
		a.Expires = now.Add(time.Minute)
		change(&a)
		out, _, err := Append([]byte("x"), key, now, a)
		if err == nil || !strings.Contains(err.Error(), what) || string(out) != "x" {
			t.Errorf("error %v does not say %q; %q", err, what, out)
		}
	}
	if _, _, err := Append(nil, envelope.SecretKey{}, now, Announcement{Expires: now.Add(time.Minute)}); err == nil {
		t.Error("announced without a key")
	}
	// Operators may announce their own network's relays.
	a := Announcement{Relays: []string{"ws://192.168.1.2:7777"}, Expires: now.Add(time.Minute), Load: NoLoad}
	if _, _, err := Append(nil, key, now, a); err != nil {
		t.Error(err)
	}
}

func TestPolicyString(t *testing.T) {
	for want, p := range map[string]Policy{
		"": {},
		"ports 1-24 26-65535 7, ipv4 ipv6, 0.5 SAT per MB": everything().Policy,
		"ipv6, 3": {IPv6: true, Price: Price{Amount: "3"}},
	} {
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// FuzzTags reads tags from lines of words with tabs between.
func FuzzTags(f *testing.F) {
	a := everything()
	for _, a := range []Announcement{a, {Closed: true}, {Load: NoLoad}} {
		var lines []string
		for _, tag := range a.tags() {
			lines = append(lines, strings.Join(tag, "\t"))
		}
		f.Add(strings.Join(lines, "\n"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		var tags [][]string
		for line := range strings.Lines(text) {
			tags = append(tags, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
		}
		for _, allowed := range []bool{false, true} {
			allow := func(string) bool { return allowed }
			a := Announcement{Load: NoLoad}
			if err := a.read(tags, allow); err != nil || a.Closed {
				continue
			}
			if len(a.Relays) > MaxRelays || len(a.Transports) > MaxTransports || len(a.Contact) > maxText {
				t.Fatalf("out of bounds: %+v", a)
			}
			if a.Expires.IsZero() {
				a.Expires = now
			}
			again := Announcement{Load: NoLoad, LeftOut: a.LeftOut}
			if err := again.read(a.tags(), allow); err != nil {
				t.Fatalf("%+v: %v", a, err)
			}
			if diff := cmp.Diff(a, again); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(reference))
	f.Fuzz(func(t *testing.T, raw []byte) {
		ev, err := envelope.ParseEvent(raw)
		if err != nil {
			return
		}
		if a, err := parse(&ev, now, now, nil); err == nil && (!a.Expires.After(now) || a.Expires.After(now.Add(maxAhead+maxLife))) {
			t.Fatalf("out of bounds: %+v", a)
		}
		ParseRelayList(&ev, now, nil)
		ParseFollows(&ev, now)
	})
}
