package platform

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestResolverDegrades has a resolver's file that cannot be replaced: the tunnel
// comes up all the same, says so, and goes without a trace.
//
// leak check 36: files that cannot be replaced
func TestResolverDegrades(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T)
		want  string
	}{
		{"read-only /etc", func(t *testing.T) {
			must(t, unix.Mount("", "/etc", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		}, "read-only file system"},
		{"link in a read-only /etc", func(t *testing.T) {
			must(t, os.Remove("/etc/resolv.conf"))
			must(t, os.Symlink("/run/stub.conf", "/etc/resolv.conf"))
			must(t, unix.Mount("", "/etc", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		}, "read-only file system"},
		{"immutable", func(t *testing.T) { makeImmutable(t, "/etc/resolv.conf") }, "chattr -i"},
		{"a directory", func(t *testing.T) {
			must(t, os.Remove("/etc/resolv.conf"))
			must(t, os.Mkdir("/etc/resolv.conf", 0o755))
		}, "neither a file nor a link"},
		{"too large", func(t *testing.T) {
			must(t, os.WriteFile("/etc/resolv.conf", make([]byte, maxResolvConf+1), 0o644))
		}, "larger than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			enterNamespaces(t)
			tc.spoil(t)
			etc := func() string {
				entries, err := os.ReadDir("/etc")
				must(t, err)
				b, _ := readBounded("/etc/resolv.conf")
				return fmt.Sprint(entries, string(b))
			}
			before := etc()
			openTUN(t, "nws0")
			dir := stateDir(t)
			c, err := New(dir, Options{Log: testLog(t)})
			must(t, err)
			needs := testConfig()
			needs.DNSNeeded = true
			if err := c.Set(needs); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("when it must be replaced, Set says %v, want %q", err, tc.want)
			}
			if rules, err := listRules(4); err != nil || len(rules) != 3 {
				t.Errorf("and leaves %d rules, %v", len(rules), err)
			}
			for range 2 {
				must(t, c.Set(testConfig()))
				if n := c.Notes(); len(n) != 1 || !strings.Contains(n[0], "/etc/resolv.conf") || !strings.Contains(n[0], tc.want) {
					t.Errorf("notes are %q, want %q in the only one", n, tc.want)
				}
				rules, err := listRules(4)
				must(t, err)
				if len(rules) != 6 {
					t.Errorf("the tunnel has %d rules", len(rules))
				}
				if now := etc(); now != before {
					t.Errorf("/etc was %q and is %q", before, now)
				}
			}
			must(t, c.Close())
			if now := etc(); now != before {
				t.Errorf("after close, /etc was %q and is %q", before, now)
			}
		})
	}
}

// makeImmutable does what chattr +i does, on a file that goes with the test.
func makeImmutable(t *testing.T, path string) {
	t.Helper()
	const immutable = 0x10 // FS_IMMUTABLE_FL
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if errors.Is(err, unix.ENOTTY) {
		t.Skip("needs Linux 6.6: a tmpfs that knows immutable files")
	}
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|immutable)))
}

// TestResolverOfAnotherNetwork has another program write the file while the
// tunnel is up, as a DHCP client does when the machine moves.
//
// leak check 38: a backup of another network is not restored
func TestResolverOfAnotherNetwork(t *testing.T) {
	enterNamespaces(t)
	openTUN(t, "nws0")
	dir := stateDir(t)
	c, err := New(dir, Options{Log: testLog(t)})
	must(t, err)
	must(t, c.Set(testConfig()))
	const roamed = "nameserver 203.0.113.53\n"
	check := func(when, content, uplink string) {
		t.Helper()
		if b, err := os.ReadFile("/etc/resolv.conf"); err != nil || !strings.HasSuffix(string(b), content) {
			t.Errorf("%s, the file is %q, %v", when, b, err)
		}
		if got := fmt.Sprint(c.UplinkDNS()); got != "["+uplink+"]" {
			t.Errorf("%s, the uplink's name servers are %s, want %s", when, got, uplink)
		}
	}
	check("up", "nameserver 198.18.0.2\n", "192.0.2.53")
	must(t, os.WriteFile("/etc/resolv.conf", []byte(roamed), 0o600))
	check("roamed", roamed, "203.0.113.53")

	// Down leaves it; and so does a repair after a crash.
	journal, err := os.ReadFile(dir + "/journal")
	must(t, err)
	must(t, c.Close())
	check("closed", roamed, "203.0.113.53")
	must(t, os.WriteFile(dir+"/journal", journal, 0o600))
	must(t, CleanUp(dir, testLog(t)))
	check("cleaned up", roamed, "203.0.113.53")

	// A Set takes the file again, and then down puts back the new one.
	c, err = New(dir, Options{Log: testLog(t)})
	must(t, err)
	must(t, c.Set(testConfig()))
	must(t, os.WriteFile("/etc/resolv.conf", []byte("nameserver 203.0.113.54\n"), 0o600))
	must(t, c.Set(testConfig()))
	check("set again", "nameserver 198.18.0.2\n", "203.0.113.54")
	must(t, c.Close())
	check("closed again", "nameserver 203.0.113.54\n", "203.0.113.54")
}

// TestResolverEditedOrRemoved has somebody touch our own file: the old one comes
// back all the same, or the machine would be left without names.
func TestResolverEditedOrRemoved(t *testing.T) {
	for _, tc := range []struct {
		name  string
		touch func(t *testing.T)
	}{
		{"edited", func(t *testing.T) {
			must(t, os.WriteFile("/etc/resolv.conf", []byte(resolvHeader+"nameserver 198.18.0.2\noptions edns0\n"), 0o644))
		}},
		{"removed", func(t *testing.T) { must(t, os.Remove("/etc/resolv.conf")) }},
		{"emptied", func(t *testing.T) { must(t, os.Truncate("/etc/resolv.conf", 0)) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			enterNamespaces(t)
			before := snapshot(t)
			tun := openTUN(t, "nws0")
			c, err := New(stateDir(t), Options{Log: testLog(t)})
			must(t, err)
			must(t, c.Set(testConfig()))
			tc.touch(t)
			must(t, c.Close())
			tun.Close()
			if d := diff(before, snapshot(t)); d != "" {
				t.Errorf("close left a difference:\n%s", d)
			}
		})
	}
}

func TestUplinkServersBehindAForwarder(t *testing.T) {
	enterNamespaces(t)
	dir := stateDir(t)
	stub := dir + "/stub"
	behind := dir + "/behind"
	must(t, os.WriteFile(stub, []byte("nameserver 127.0.0.53\noptions edns0 trust-ad\n"), 0o644))
	must(t, os.WriteFile("/etc/resolv.conf", []byte("nameserver 127.0.0.53\n"), 0o644))
	e := testEnv(nil)
	e.dns.uplinkFiles = []string{dir + "/missing", stub, behind}
	for _, tc := range []struct{ text, want string }{
		{"nameserver 127.0.0.1\n", "[127.0.0.53]"}, // no better is known
		{"nameserver 192.0.2.53\nnameserver fe80::1%eth0\n", "[192.0.2.53 fe80::1%eth0]"},
	} {
		must(t, os.WriteFile(behind, []byte(tc.text), 0o644))
		if got := fmt.Sprint(uplinkServers(e, nil)); got != tc.want {
			t.Errorf("behind %q: %s, want %s", tc.text, got, tc.want)
		}
	}
	// A file of ours whose journal is gone names no uplink.
	must(t, os.WriteFile("/etc/resolv.conf", []byte(resolvHeader+"nameserver 198.18.0.2\n"), 0o644))
	if got := fmt.Sprint(uplinkServers(testEnv(nil), nil)); got != "[]" {
		t.Errorf("of our own file: %s", got)
	}
	must(t, os.Remove("/etc/resolv.conf"))
	must(t, os.Symlink(behind, "/etc/resolv.conf"))
	if got := fmt.Sprint(uplinkServers(e, nil)); got != "[192.0.2.53 fe80::1%eth0]" {
		t.Errorf("through a link: %s", got)
	}
}

// TestExtendedAttributesComeBack is about labels and access lists.
//
// leak check 36: mode, owner and attributes come back
func TestExtendedAttributesComeBack(t *testing.T) {
	enterNamespaces(t)
	must(t, unix.Setxattr("/etc/resolv.conf", "trusted.nws-vpn-test", []byte("label"), 0))
	before := snapshot(t)
	if !strings.Contains(before, "trusted.nws-vpn-test") {
		t.Fatal("the snapshot does not see it")
	}
	tun := openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	must(t, c.Set(testConfig()))
	must(t, c.Close())
	tun.Close()
	if d := diff(before, snapshot(t)); d != "" {
		t.Errorf("close left a difference:\n%s", d)
	}
}
