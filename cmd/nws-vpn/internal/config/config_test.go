package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

const examplePath = "../../../../nws.toml.example"

const npub = "npub18m65m8m74gaxltaw56qtr5z8yjxfxsy8wcp8x9af2ddzq44jaafsg42xxg"

func example(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// compare reports how two configurations differ, not telling an empty list
// from none.
func compare(a, b *Config) string {
	return cmp.Diff(a, b, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{}, netip.AddrPort{}))
}

func TestExampleHoldsTheDefaults(t *testing.T) {
	got, err := Parse(examplePath, []byte(example(t)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := compare(Default(), got); diff != "" {
		t.Errorf("the example differs from the defaults (-default +example):\n%s", diff)
	}
}

// commented are the lines of the example that stand for keys without default.
var commented = regexp.MustCompile(`(?m)^#([a-z0-9_]+ = .*)$`)

func TestExampleHasEveryKey(t *testing.T) {
	text := commented.ReplaceAllString(example(t), "$1")
	text = strings.Replace(text, `admission = "open"`, `admission = "wot"`, 1) // which takes every list
	c, err := Parse(examplePath, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	md, err := toml.Decode(text, &tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range knownKeys() {
		key := key.key
		if !md.IsDefined(key...) {
			t.Errorf("%v is not in the example", key)
		}
		if m := reflect.ValueOf(valueAt(c, key)); m.Kind() == reflect.Map && m.Len() == 0 {
			t.Errorf("the example has nothing in [%v]", key)
		}
	}
	if c.Up.Exit != npub || c.Exit.Services[80] != (exit.Target{Network: "tcp", Address: "127.0.0.1:8080"}) {
		t.Errorf("read %q and %v", c.Up.Exit, c.Exit.Services)
	}
	if _, err := name.Parse(c.Up.Exit); err != nil {
		t.Error(err)
	}
}

// valueAt returns the field of c that key names.
func valueAt(c *Config, key toml.Key) any {
	v := reflect.ValueOf(c).Elem()
	for _, name := range key {
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("toml") == name {
				v = v.Field(i)
				break
			}
		}
	}
	return v.Interface()
}

func TestEveryFieldHasAKey(t *testing.T) {
	for _, key := range knownKeys() {
		if slices.Contains(key.key, "") {
			t.Errorf("a field in [%v] has no toml tag", key.key)
		}
	}
}

func TestParse(t *testing.T) {
	got, err := Parse("f", []byte(`
log_level = "debug"
up.mtu = 9000
up.early_ports = []
[exit]
services = { 80 = "web.lan:8080", "22" = "unix:/run/ssh" }
allow_private = ["10.0.0.0/8", "::ffff:192.168.0.0/112"]
rules = ["deny tcp *:25", "allow x.example"]
policy = "web"
nameservers = ["::1", "127.0.0.1:5353"]
dial_timeout = "1m30s"
[names]
"blog" = "`+npub+`"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.LogLevel, want.Up.MTU = "debug", 9000
	want.Exit.Services = map[uint16]exit.Target{80: {Network: "tcp", Address: "web.lan:8080"}, 22: {Network: "unix", Address: "/run/ssh"}}
	want.Exit.AllowPrivate = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::ffff:192.168.0.0/112")}
	want.Exit.Rules = []exit.Rule{
		{Network: "tcp", Ports: []exit.PortRange{{First: 25, Last: 25}}}, {Allow: true, Domain: "x.example"},
	}
	want.Exit.Policy = "web"
	want.Up.EarlyPorts = nil
	want.Exit.Nameservers = []exit.Nameserver{{Addr: netip.MustParseAddrPort("[::1]:53")}, {Addr: netip.MustParseAddrPort("127.0.0.1:5353")}}
	want.Exit.DialTimeout = Duration(90 * time.Second)
	want.Names = map[string]string{"blog": npub}
	if diff := compare(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got.Up.EarlyPorts == nil {
		t.Error("an empty list of ports reads like none, which means the default")
	}
}

// What is wrong, and what the error must say: the line, the key and a word of
// the remedy.
func TestRefused(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"log_levle = \"info\"", `f:1: log_levle: unknown key; the nearest known one is log_level at the top level`},
		{"LOG_LEVEL = \"info\"", `f:1: LOG_LEVEL: unknown key`},
		{"\n[up]\n\nrelay = [\"ws://x\"]", `f:4: up.relay: unknown key; the nearest known one is relays in section [up]`},
		{"[exit]\nrelay = 1", `f:2: exit.relay: unknown key; the nearest known one is relays in section [exit]`},
		{"mtu = 1500", `f:1: mtu: unknown key; the nearest known one is mtu in section [up]`},
		{"[up]\nallow_private = []", `f:2: up.allow_private: unknown key; the nearest known one is allow_private in section [exit]`},
		{"[upp]\nmtu = 1500", `f:1: upp: unknown section; the nearest known one is [up]`},
		{"[exit.service]\n80 = \"x:1\"", `f:1: exit.service: unknown section; the nearest known one is [exit.services]`},
		{"x.y.z = 1", `f:1: x: unknown section`},
		{"up = 1", `f:1: up: want a section: write [up]`},
		{"[[up]]\nmtu = 1500", `f:1: up: want a section`},
		{"names = [1]", `f:1: names: want a section: write [names]`},
		{"[exit]\nservices = \"x\"", `f:2: exit.services: want a section: write [exit.services]`},
		{"log_level = 1", `f:1: log_level: want a text in quotes, not the number 1`},
		{"log_level = \"loud\"", `f:1: log_level: want debug, info, warn or error, not "loud"`},
		{"log_level = \"info\"\nlog_level = \"info\"", `f:2: `},
		{"[up]\ntrust = [\"" + npub + "\", \"npub1x\"]", `f:2: up.trust: element 2: want an npub`},
		{"[up]\ntrust_follows = [\"auto\"]", `f:2: up.trust_follows: element 1: want an npub`},
		{"[up]\nexit = \"automatic\"", `f:2: up.exit: `},
		{"[up]\nmtu = \"1500\"", `f:2: up.mtu: want a whole number, not a text in quotes`},
		{"[up]\nmtu = 1e3", `f:2: up.mtu: want a whole number, not the number 1000`},
		{"[up]\nmtu = 1279", `f:2: up.mtu: want a number from 1280 to 65535, not 1279`},
		{"[up]\nmtu = 9223372036854775807", `f:2: up.mtu: want a number from`},
		{"[up]\nmark = 0", `f:2: up.mark: want a mark other than 0`},
		{"[up]\nmark = -1", `f:2: up.mark: want a number from 0 to 4294967295, not -1`},
		{"[up]\nmark = 0x100000000", `f:2: up.mark: want a number from 0 to 4294967295`},
		{"[up]\ntable = 254", `f:2: up.table: want a number above 0`},
		{"[up]\ntable = 0", `f:2: up.table: want a number above 0`},
		{"[up]\nmode = \"fast\"", `f:2: up.mode: want auto or session or nws, not "fast"`},
		{"[up]\nnws_resolver = \"dns.example\"", `f:2: up.nws_resolver: want an IP address`},
		{"[up]\npublic_address = \":9333\"", `f:2: up.public_address: want host:port`},
		{"[exit]\nmode = \"nws\"", `f:2: exit.mode: want auto or session, not "nws"`},
		{"[up]\ndns = \"yes\"", `f:2: up.dns: want true or false, not a text in quotes`},
		{"[up]\ndns_manager = \"bind\"", `f:2: up.dns_manager: want "auto", or "resolved"`},
		{"[up]\ndns = 2026-01-01", `f:2: up.dns: want true or false, not a date or time`},
		{"[up]\nudp_idle = 120", `f:2: up.udp_idle: want a duration in quotes, such as "90s" or "2m", not the number 120`},
		{"[up]\nudp_idle = \"120\"", `f:2: up.udp_idle: want a duration above zero`},
		{"[up]\nudp_idle = \"-1s\"", `f:2: up.udp_idle: want a duration above zero`},
		{"[up]\nexit = \"nobody\"", `f:2: up.exit: name: neither`},
		{"[up]\nexit = \"blog.nostr\"", `f:2: up.exit: name: `},
		{"[up]\nrelays = \"ws://x\"", `f:2: up.relays: want a list in square brackets, not a text in quotes`},
		{"[up]\nrelays = [\"ws://x\", 1]", `f:2: up.relays: element 2: want a text`},
		{"[up]\nrelays = [\"ws://x\", \"https://x\"]", `f:2: up.relays: element 2: want a relay's URL such as wss://relay.example, not "https://x"`},
		{"[up]\nrelays = [\"wss://:443\"]", `f:2: up.relays: want a relay`},
		{"[up]\ndevice = \"a name of many letters\"", `f:2: up.device: want 1 to 15 letters`},
		{"[up]\ndevice = \"\"", `f:2: up.device: want 1 to 15`},
		{"[up]\ndevice = \"a/b\"", `f:2: up.device: want`},
		{"[names]\nblog = 1", `f:2: names.blog: want a text`},
		{"[names]\n\"b.c\" = \"" + npub + "\"", `f:2: names."b.c": name: petname`},
		{"[names]\nblog = \"npub1xx\"", `f:2: names.blog: name: petname "blog"`},
		{"[names]\nblog = \"" + npub + "\"\nBLOG = \"" + npub + "\"", `f:1: names: name: petname`},
		{"[exit]\nallow_private = [\"10.0.0.1\"]", `f:2: exit.allow_private: element 1: want a prefix such as`},
		{"[exit]\nallow_private = [\"10/8\"]", `f:2: exit.allow_private: element 1`},
		{"[up]\nearly_ports = [25, 0]", `f:2: up.early_ports: element 2: want a number from 1 to 65535, not 0`},
		{"[exit]\nrules = [\"allow *\", \"allow *:http\"]", `f:2: exit.rules: element 2: "http": want ports from 1`},
		{"[exit]\npolicy = \"opne\"", `f:2: exit.policy: want web or reduced or tor-default or open, not "opne"`},
		{"[exit]\nnameservers = [\"dns.example\"]", `f:2: exit.nameservers: element 1: want an IP address`},
		{"[exit]\nconnectr = true", `f:2: exit.connectr: want a text in quotes`},
		{"[exit]\nconnectr = \"yes\"", `f:2: exit.connectr: want off or tls or clear, not "yes"`},
		{"[exit]\npublic_address = \"198.51.100.7\"", `f:2: exit.public_address: want host:port`},
		{"[exit]\nmax_flows = 0", `f:2: exit.max_flows: want a number from 1`},
		{"[exit]\ndial_timeout = \"soon\"", `f:2: exit.dial_timeout: want a duration`},
		{"[exit]\nadmission = \"friends\"", `f:2: exit.admission: want open or allowlist or wot, not "friends"`},
		{"[exit]\ncontact = \"" + strings.Repeat("x", 129) + "\"", `f:2: exit.contact: 129 bytes, at most 128`},
		{"[exit]\nadmission = \"wot\"", `f:2: exit.admission: whose follow lists`},
		{"[exit]\nallow = [\"" + npub + "\"]", `f:2: exit.allow: this has no effect with admission = "open", which lets everybody in: set that to "allowlist"`},
		{"[exit]\nwot = [\"" + npub + "\"]", `f:2: exit.wot: this has no effect with admission = "open": set that to "wot"`},
		{"[exit]\nadmission = \"allowlist\"\nwot = [\"" + npub + "\"]", `f:3: exit.wot: this has no effect with admission = "allowlist"`},
		{"[exit]\nsecret_key = \"nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5\"", "f:2: exit.secret_key: want no secret key in here, but in a file of its own, of mode 0600, that key_file in [exit] names: `nws-vpn keygen FILE` makes a new one"},
		{"[exit]\nidentity = \"nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5\"", `f:2: exit.identity: want no secret key in here`},
		{"[exit.names.blog]\nPrivateKey = \"5b\"\nkey_file = \"k\"", `f:2: exit.names.blog.PrivateKey: want no secret key in here`},
		{"[up]\nnsec = \"\"", `f:2: up.nsec: want no secret key in here, but in a file of its own, of mode 0600, that identity_file in [up] names`},
		{"[relay]\nsecret = \"x\"", `f:2: relay.secret: unknown key`},
		{"[exit]\nallow = [\"alice\"]", `f:2: exit.allow: element 1: want an npub`},
		{"[up]\nidentity_file = \"a.key\"", `f:2: up.identity_file: name the exit that the identity is for`},
		{"[up]\nexit = \"auto\"\nidentity_file = \"a.key\"", `f:3: up.identity_file: name the exit that the identity is for`},
		{"[exit.services]\nhttp = \"x:1\"", `f:2: exit.services.http: want a port from 1 to 65535 as the key`},
		{"[exit.services]\n080 = \"x:1\"", `f:2: exit.services.080: want a port`},
		{"[exit.services]\n80 = 8080", `f:2: exit.services.80: want a text`},
		{"[exit.services]\n80 = \"8080\"", `f:2: exit.services.80: service target "8080": want host:port`},
		{"[relay]\nlisten = \"7777\"", `f:2: relay.listen: want host:port`},
		{"[relay]\nlisten = \"x:http\"", `f:2: relay.listen: want host:port`},
		{"[relay]\nmax_event_bytes = 100", `f:2: relay.max_event_bytes: want a number from 1024`},
		{"[relay]\nmax_connections = 0", `f:2: relay.max_connections: want`},
		{"[up\nmtu = 1", `f:1: `},
		{"\n\nmtu", `f:3: `},
		{"a = \"\xff\"", `f:1: `},
	} {
		c, err := Parse("f", []byte(tt.text))
		if err == nil {
			t.Errorf("%q is taken for %+v", tt.text, c)
			continue
		}
		if !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q:\n got %v\nwant %s…", tt.text, err, tt.want)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: more than one line: %v", tt.text, err)
		}
	}
}

func TestManyProblemsInTheOrderOfTheFile(t *testing.T) {
	_, err := Parse("f", []byte("[relay]\nlisten = 1\nlog_events = 2\n[up]\nmtu = true\nx = 1\n"))
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{"f:2: relay.listen", "f:3: relay.log_events", "f:5: up.mtu", "f:6: up.x"} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d of the error is not about %s:\n%v", i+1, want, err)
		}
	}
	var many strings.Builder
	for i := range 50 {
		fmt.Fprintf(&many, "k%d = 1\n", i)
	}
	_, err = Parse("f", []byte(many.String()))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != maxReported+1 || lines[maxReported] != "f: and 40 more" {
		t.Errorf("fifty problems make %d lines:\n%v", len(lines), err)
	}
}

func TestSecretsAreNotRepeated(t *testing.T) {
	const nsec = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
	hexKey := strings.Repeat("5b", 32)
	for _, text := range []string{
		"[exit]\nkey_file = \"" + nsec + "\"", "[exit]\nkey_file = \"" + hexKey + "\"",
		"[exit]\nkey_file = " + nsec, "key = \"" + nsec + "\"", nsec + " = 1", "[" + nsec + "]", nsec,
		"[up]\nexit = \"" + nsec + "\"", "[up]\nrelays = [\"" + nsec + "\"]", "[names]\nblog = \"" + nsec + "\"",
		"[relay]\nlisten = \"" + strings.ToUpper(nsec) + "\"", "log_level = \"" + nsec + "\"", "[exit]\nnameservers = [\"" + nsec + "\"]",
	} {
		_, err := Parse("f", []byte(text))
		if err == nil {
			t.Errorf("%q is taken", text)
			continue
		}
		if e := strings.ToLower(err.Error()); strings.Contains(e, nsec[5:20]) || strings.Contains(e, hexKey[:16]) {
			t.Errorf("a key is repeated: %v", err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nws.toml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that was named and is missing: %v", err)
	}
	if err := os.WriteFile(path, []byte("[up]\nmtu = 1400\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || c.Up.MTU != 1400 || c.Up.Device != Default().Up.Device {
		t.Errorf("%+v, %v", c, err)
	}
	if err := os.WriteFile(path, []byte("mtu = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), path+":1: mtu: ") {
		t.Errorf("a wrong file: %v", err)
	}
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a huge file: %v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a folder is read")
	}
	if _, err := os.Stat(DefaultPath); errors.Is(err, fs.ErrNotExist) {
		if c, err := Load(""); err != nil || compare(c, Default()) != "" {
			t.Errorf("without a file: %+v, %v", c, err)
		}
	}
}

func TestDefaultsAreValid(t *testing.T) {
	if _, err := Parse("f", nil); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	a, b := Default(), Default()
	a.Up.EarlyPorts[0] = 1
	if b.Up.EarlyPorts[0] == 1 || Default().Up.EarlyPorts[0] == 1 {
		t.Error("two defaults share a list")
	}
	if s := Duration(90 * time.Second).String(); s != "1m30s" {
		t.Errorf("a duration is written %q", s)
	}
}

func TestParseNameserver(t *testing.T) {
	for s, want := range map[string]string{
		"9.9.9.9": "9.9.9.9:53", "9.9.9.9:5353": "9.9.9.9:5353", "2620:fe::fe": "[2620:fe::fe]:53",
		"[2620:fe::fe]:54": "[2620:fe::fe]:54", "fe80::1%eth0": "[fe80::1%eth0]:53",
	} {
		if got, err := ParseNameserver(s); err != nil || got.String() != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "dns.example", "9.9.9.9:", "9.9.9.9:0", "9.9.9", "[::1]", "9.9.9.9:x"} {
		if got, err := ParseNameserver(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"mtu", "mut", 2}, {"relay", "relays", 1}, {"kitten", "sitting", 3}, {"same", "same", 0}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q to %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example(f)))
	f.Add([]byte(commented.ReplaceAllString(example(f), "$1")))
	for _, s := range []string{
		"", "up.mtu = 1500", "[[up]]", "[exit.services]\n80 = \"x:1\"", "names = {a.b = 1}", "[names]\n\"\" = 1", "x = [[1], {a = 2}]",
		"up = {mtu = 0x5dc, dns = true}", "a = 1979-05-27T07:32:00Z", "mtu = inf", "\x19", "[\"a\\nb\"]\n\"\\u0000\" = 1", "up.up.up = 1",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text)
		if (err == nil) != (c != nil) {
			t.Fatalf("%v beside %v", c, err)
		}
		if err != nil {
			if e := err.Error(); !strings.HasPrefix(e, "f:") || strings.Count(e, "\n") > maxReported {
				t.Fatalf("error %q", e)
			}
			return
		}
		// What was read passes its own check.
		var d decoder
		if d.check(c); len(d.problems) > 0 {
			t.Fatal(d.problems)
		}
	})
}
