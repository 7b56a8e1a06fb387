package keyfile

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr/nip19"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// A key made for these tests, in both forms.
var (
	testHex  = strings.Repeat("5b", 32)
	testNSec = func() string {
		s, err := nip19.EncodePrivateKey(testHex)
		if err != nil {
			panic(err)
		}
		return s
	}()
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCreateAndRead(t *testing.T) {
	key := envelopetest.NewKey(t)
	path := filepath.Join(t.TempDir(), "key")
	if err := Create(path, key); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	got, err := Read(path)
	if err != nil || got.NSec() != key.NSec() {
		t.Errorf("read %v, %v", got.Public(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), key.Public().NPub()) {
		t.Errorf("the file does not say whose key it holds: %v", err)
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	key, err := envelope.ParseSecretKey(testHex)
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "precious")
	if err := Create(path, key); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("an existing file: %v", err)
	}
	dangling := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(t.TempDir(), "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	if err := Create(dangling, key); err == nil {
		t.Error("a link is followed")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file is now %q, %v", text, err)
	}
	if err := Create(filepath.Join(t.TempDir(), "new"), envelope.SecretKey{}); err == nil {
		t.Error("no key is written")
	}
	if err := Create(filepath.Join(t.TempDir(), "none", "new"), key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
}

func TestForms(t *testing.T) {
	want, err := envelope.ParseSecretKey(testHex)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"nsec": testNSec + "\n", "hex": testHex, "upper-case hex": strings.ToUpper(testHex),
		"comments": "# mine\n\n \t# more\n  " + testNSec + " \r\n\n# end", "Windows line ends": "#\r\n" + testHex + "\r\n",
	} {
		got, err := Read(write(t, text))
		if err != nil || got.Public() != want.Public() {
			t.Errorf("%s: %v, %v", what, got.Public(), err)
		}
	}
}

func TestRefused(t *testing.T) {
	npub, err := nip19.EncodePublicKey(testHex)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                                "no key in it",
		"# " + testNSec:                   "no key in it",
		"\n# x\n" + testHex[1:]:           "line 3",
		testHex + "00":                    "line 1",
		testNSec[:50]:                     "line 1",
		testNSec[:60] + "qqq":             "line 1",
		"key = " + testHex:                "line 1",
		testHex + " # mine":               "line 1",
		npub:                              "line 1",
		testHex + "\n" + testNSec:         "line 2: a second key",
		strings.Repeat("00", 32):          "line 1",
		strings.Repeat("ff", 32):          "line 1",
		strings.Repeat("#\n", maxFile):    "longer than",
		"\xff\xfe" + testHex:              "line 1",
		hex.EncodeToString([]byte("key")): "line 1",
	} {
		path := write(t, text)
		_, err := Read(path)
		if err == nil {
			t.Errorf("%q is read", text)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, want the path and %q", text, err, want)
		}
		leaks(t, text, err)
	}
}

// leaks fails the test if err repeats a piece of text.
func leaks(t *testing.T, text string, err error) {
	t.Helper()
	const piece = 12
	for i := 0; i+piece <= len(text); i++ {
		if p := strings.TrimSpace(text[i : i+piece]); len(p) == piece && strings.Contains(err.Error(), p) {
			t.Errorf("the error repeats %q: %v", p, err)
			return
		}
	}
}

// leak check 55: a key file that others can read or write
func TestOnlyTheOwnersFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("mode bits mean nothing here")
	}
	for mode, ok := range map[fs.FileMode]bool{
		0o600: true, 0o400: true, 0o700: true, 0o640: false, 0o604: false, 0o644: false, 0o620: false, 0o610: false, 0o666: false,
	} {
		path := write(t, testNSec)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Read(path)
		if (err == nil) != ok {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if err != nil && !strings.Contains(err.Error(), "`chmod 600 "+path+"`") {
			t.Errorf("mode %04o: no remedy: %v", mode, err)
		}
		if err != nil {
			leaks(t, testNSec, err)
		}
	}
}

// What systemd hands over is readable by a group, as which it shows the access of
// the service's user. Elsewhere, and for others, that is refused as ever.
func TestCredentials(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("mode bits mean nothing here")
	}
	path := write(t, testNSec)
	dir := filepath.Dir(path)
	for _, c := range []struct {
		dir  string
		mode fs.FileMode
		ok   bool
	}{
		{dir, 0o440, true}, {dir + "/", 0o440, true}, {dir, 0o400, true}, {dir, 0o460, false}, {dir, 0o444, false}, {dir, 0o450, false},
		{"", 0o440, false}, {filepath.Dir(dir), 0o440, false}, {dir + "x", 0o440, false}, {".", 0o440, false},
	} {
		t.Setenv("CREDENTIALS_DIRECTORY", c.dir)
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); (err == nil) != c.ok {
			t.Errorf("mode %04o, credentials in %q: %v", c.mode, c.dir, err)
		}
	}
}

func TestDenied(t *testing.T) {
	denied := &fs.PathError{Op: "open", Path: "/etc/nws-vpn/blog.key", Err: fs.ErrPermission}
	t.Setenv("STATE_DIRECTORY", "")
	if err := Explain(denied); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chown") {
		t.Errorf("by hand: %v", err)
	}
	t.Setenv("STATE_DIRECTORY", "/var/lib/nws-vpn-exit:/var/lib/more")
	if err := Explain(denied); !strings.Contains(err.Error(), " /var/lib/nws-vpn-exit,") || !strings.Contains(err.Error(), "LoadCredential=") {
		t.Errorf("as a service: %v", err)
	}
	if err := Explain(fs.ErrNotExist); err != fs.ErrNotExist {
		t.Errorf("another error: %v", err)
	}
	if os.Geteuid() == 0 {
		return // who may read everything
	}
	path := write(t, testNSec)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || runtime.GOOS != "windows" && !strings.Contains(err.Error(), "LoadCredential=") {
		t.Errorf("a file of mode 0: %v", err)
	}
}

// leak check 55: a key file of another user
func TestForeignOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives a file to another user")
	}
	path := write(t, testNSec)
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "`chown 0 ") {
		t.Errorf("a stranger's file: %v", err)
	}
}

func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir); err == nil {
		t.Error("a folder is read")
	}
	if _, err := Read(os.DevNull); err == nil {
		t.Error("a device is read")
	}
	missing := filepath.Join(dir, "missing")
	if _, err := Read(missing); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "keygen "+missing) {
		t.Errorf("a missing file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", testNSec, testHex + "\n", "# c\r\n" + testNSec, testHex + "\n" + testHex, "\x00", testNSec[:20]} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := string(text)
		key, err := parse(text)
		if (err == nil) == key.IsZero() {
			t.Fatalf("key %v beside error %v", key, err)
		}
		if err != nil {
			return
		}
		again, err := parse([]byte(key.NSec()))
		if err != nil || again.Public() != key.Public() || string(text) != before {
			t.Fatalf("its nsec reads as %v, %v", again.Public(), err)
		}
	})
}
