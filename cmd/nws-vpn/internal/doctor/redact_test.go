package doctor

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secretText is full of what must not leave the machine; secrets lists it.
const secretText = `
log_level = "debug"
[up]
exit = "npub18m65m8m74gaxltaw56qtr5z8yjxfxsy8wcp8x9af2ddzq44jaafsg42xxg"
relays = ["wss://relay.alices-place.example:7447/x", "ws://203.0.113.9:7777", "ws://fritzbox:7777", "wss://relay.example/inbox/hidden?x=query", "ws://[fd00:a11c:e::5]:7777"]
exclude_domains = ["intranet", "corp.example"]
nsec = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
[exit]
key_file = "/home/alice/keys/exit.key"
contact = "call Alice on Signal"
services = { 22 = "fileserver:22", 80 = "unix:/srv/project/app.sock" }
[exit.services]
"22" = "nas:22"
[names]
lover = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
time=2026-11-21T10:00:00Z level=DEBUG msg=dial name=clinic.visited.org address=93.184.216.34:443
level=DEBUG msg=ask question="xn--bcher-kva.de. A" host=printer
level=INFO msg=x key=67dde3da7a3a7d0f2f1b7c2d5a5d0c9bd1c0e4f9f6f7f1c1c2c3c4c5c6c7c8c9 mac=52:54:00:AB:cd:ef
"exit": "paramour",
"exclude_users": [
  "bobby"
],
relay=wss://r.example/private-room err="dial tcp: lookup myhost on 192.168.1.1:53: lookup otherhost: no such host"
"token": "s3cr3t-Value", password: hunter2
dial tcp 2a02:8109:abcd::1234: connect: no route; via fe80::1ff:fe23:4567:890a%wlan0, 192.168.178.23/24, ::ffff:198.51.100.77
machine alices-laptop of Alice Liddell <alice.l@mail.example>
id 123e4567-e89b-12d3-a456-426614174000 C:\Users\Liddell\x
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg
-----END PRIVATE KEY-----
blog.nostr and npub18m65m8m74gaxltaw56qtr5z8yjxfxsy8wcp8x9af2ddzq44jaafsg42xxg.nostr
c2VjcmV0IGtleSBtYXRlcmlhbCBpbiBiYXNlNjQsIGxvbmcgZW5vdWdo
`

var secrets = []string{
	"npub18m", "nsec1", "vl029mgp", "alices-place", "203.0.113.9", "fritzbox", "a11c", "npub10e", "/alice", "alice", "signal",
	"lover", "clinic", "visited", "93.184", "bcher", "printer", "67dde3da", "52:54", "s3cr3t", "hunter2", "8109", "abcd::",
	"intranet", "corp.", "hidden", "query", "fileserver", "project", "nas:", "paramour", "bobby", "private-room", "myhost", "otherhost",
	"4567:890a", "192.168.178", "198.51.100", "liddell", "mail.example", "123e4567", "migh", "begin private", "blog.nostr", "c2vjcmv0",
}

func TestNothingSecretIsLeft(t *testing.T) {
	r := NewRedactor([]string{"alice", "Alice", "Liddell", "alices-laptop", "root", "al"})
	text := r.Redact(secretText)
	for _, s := range secrets {
		if strings.Contains(strings.ToLower(text), s) {
			t.Errorf("%q is left in\n%s", s, text)
		}
	}
	if strings.Contains(text, "alices-laptop") {
		t.Error("the machine's name is left")
	}
	for _, keep := range []string{"log_level", "7447", "level=DEBUG", "/24", "key_file", "no route", `"22" =`, "exclude_users", "%wlan0"} {
		if !strings.Contains(text, keep) {
			t.Errorf("%q, which helps, is gone from\n%s", keep, text)
		}
	}
}

func TestReplacementsAreConsistent(t *testing.T) {
	r := NewRedactor(nil)
	first := r.Redact("relay.one.example, 192.0.2.1 and relay.two.example")
	again := r.Redact("two: Relay.TWO.example one: relay.one.example at 192.0.2.1 or 192.0.2.2")
	if first != "[host-1], [public-ip4-1] and [host-2]" || again != "two: [host-2] one: [host-1] at [public-ip4-1] or [public-ip4-2]" {
		t.Errorf("got %q, %q", first, again)
	}
}

func TestWhatSaysNothingStays(t *testing.T) {
	r := NewRedactor([]string{"root", ""})
	for _, text := range []string{
		"/etc/resolv.conf: 127.0.0.53", "198.18.0.2, fd6e:7773:7670::2", "net.ipv4.conf.all.rp_filter = 2",
		`"to": "0.0.0.0/0"`, "::/0", "10:15:04", "5600: from all fwmark 0x4e000000/0xff000000 lookup 254",
		"/run/nws-vpn/up.log", "run as root", "boot with systemd.unified_cgroup_hierarchy=1", "1.5 ms", "ff02::1",
	} {
		if got := r.Redact(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func FuzzRedact(f *testing.F) {
	for line := range strings.Lines(secretText) {
		f.Add(line)
	}
	f.Add("nsec1")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			return // the expressions take their time, and more of it finds nothing more
		}
		const secret = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
		r := NewRedactor([]string{"alice"})
		got := r.Redact(text + "\n" + secret + " 203.0.113.77 host.of-alice.net\n")
		for _, s := range []string{secret, "203.0.113.77", "of-alice"} {
			if strings.Contains(got, s) && !strings.Contains(text, s) {
				t.Errorf("%q is left in %q", s, got)
			}
		}
	})
}

func TestBundle(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "up.log")
	long := strings.Repeat("a line of the log\n", 30000) + "the last line\n"
	if err := os.WriteFile(log, []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	tail := ReadTail("up.log", log)
	if len(tail.Text) > maxTail+100 || !strings.HasSuffix(tail.Text, "the last line\n") || !strings.HasPrefix(tail.Text, "(what was before") {
		t.Errorf("the tail has %d bytes and begins %.40q", len(tail.Text), tail.Text)
	}
	none := ReadTail("nws.toml", filepath.Join(dir, "missing"))
	path := filepath.Join(dir, "bundle.tar.gz")
	if err := WriteBundle(path, []File{tail, none}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	got := unpack(t, path)
	if got["nws-vpn-doctor/up.log"] != tail.Text || got["nws-vpn-doctor/nws.toml"] != "(there is none)\n" {
		t.Errorf("the bundle holds %d files", len(got))
	}
	if err := WriteBundle(path, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second bundle: %v", err)
	}
	if again := unpack(t, path); len(again) != 2 {
		t.Error("the first bundle was changed")
	}
}

func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(b)
	}
}
