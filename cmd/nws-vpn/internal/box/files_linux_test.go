package box

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestNSSwitch(t *testing.T) {
	for _, test := range []struct{ name, old, want string }{
		{"empty", "", "hosts: files dns\n"},
		{"resolved first", "passwd: files systemd\nhosts: resolve [!UNAVAIL=return] files dns\nnetworks: files\n",
			"passwd: files systemd\n\nnetworks: files\nhosts: files dns\n"},
		{"spaces, twice, no last newline", "\t hosts :mdns4\nHOSTS: x\n#hosts: mdns\nhosts:nis", "\nHOSTS: x\n#hosts: mdns\nhosts: files dns\n"},
		{"no colon", "hosts mdns4 dns\n hosts\nhostsx: y\n", "\n\nhostsx: y\nhosts: files dns\n"},
		{"none", "passwd: files", "passwd: files\nhosts: files dns\n"},
	} {
		if got := string(nsSwitch([]byte(test.old))); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func FuzzNSSwitch(f *testing.F) {
	f.Add("passwd: files\nhosts: resolve\n")
	f.Add("\nhosts:\nhosts:")
	f.Add("hosts")
	f.Fuzz(func(t *testing.T, old string) {
		n := 0
		for line := range strings.Lines(string(nsSwitch([]byte(old)))) {
			first := strings.FieldsFunc(strings.TrimLeft(line, " \t\v\f\r"), func(r rune) bool { return strings.ContainsRune(" \t\v\f\r\n", r) })
			if len(first) > 0 && (first[0] == "hosts" || strings.HasPrefix(first[0], "hosts:")) {
				n++
				if line != "hosts: files dns\n" {
					t.Errorf("%q became %q", old, line)
				}
			}
		}
		if n != 1 {
			t.Errorf("%q has %d ways to look hosts up", old, n)
		}
	})
}

func TestResolvConf(t *testing.T) {
	got := string(resolvConf([]netip.Addr{netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("fd00::2")}))
	if !strings.HasSuffix(got, "\nnameserver 198.18.0.2\nnameserver fd00::2\n") {
		t.Errorf("got %q", got)
	}
}

func TestBusPaths(t *testing.T) {
	for address, want := range map[string][]string{
		"":                                       nil,
		"unix:path=/run/user/1000/bus":           {"/run/user/1000/bus"},
		"unix:path=/tmp/a%20b,guid=0f":           {"/tmp/a b"},
		"unix:guid=0f,path=/tmp/x;unix:path=/y":  {"/tmp/x", "/y"},
		"unix:abstract=/tmp/dbus-x,guid=00":      nil,
		"tcp:host=localhost,port=1;unix:path=/z": {"/z"},
		"unix:path=relative":                     nil,
		"unix:path=%2ftmp%2Fx%":                  {"/tmp/x%"},
	} {
		if got := busPaths(address); !slices.Equal(got, want) {
			t.Errorf("%q names %q, want %q", address, got, want)
		}
	}
}

func TestHidden(t *testing.T) {
	env := map[string]string{"XDG_RUNTIME_DIR": "/run/other/", "HOME": "/home/u", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/tmp/bus"}
	dirs, files := hidden(1000, func(name string) string { return env[name] })
	for _, want := range []string{"/run/nscd", "/var/run/nscd", "/run/systemd/resolve", "/run/dbus", "/run/avahi-daemon", "/run/user/1000/systemd", "/run/other/systemd"} {
		if !slices.Contains(dirs, want) {
			t.Errorf("%s is not hidden", want)
		}
	}
	for _, want := range []string{"/run/user/1000/bus", "/run/other/bus", "/tmp/bus", "/home/u/.gnupg/S.dirmngr", "/run/docker.sock"} {
		if !slices.Contains(files, want) {
			t.Errorf("%s is not hidden", want)
		}
	}
	for _, path := range slices.Concat(dirs, files) {
		if !strings.HasPrefix(path, "/") {
			t.Errorf("%q is no absolute path", path)
		}
	}
	// Nothing of the environment is taken for a path that is none.
	dirs, files = hidden(1000, func(string) string { return "relative" })
	for _, path := range slices.Concat(dirs, files) {
		if strings.Contains(path, "relative") {
			t.Errorf("%q is hidden", path)
		}
	}
}
