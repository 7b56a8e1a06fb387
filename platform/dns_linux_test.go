package platform

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stubLink has the resolver's file lead to systemd-resolved.
func stubLink(t *testing.T) {
	t.Helper()
	must(t, os.Remove("/etc/resolv.conf"))
	must(t, os.Symlink("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf"))
	putFake("/run/systemd/resolve/stub-resolv.conf", "# made by systemd-resolved\nnameserver 127.0.0.53\n")
}

// managers are the machines on which programs ask for names in different ways.
var managers = []struct {
	name string
	make func(t *testing.T)
	want string
	// What the uplink's servers are, before and after another network.
	uplink, roamed string
	roam           func(t *testing.T)
	// What takes the tunnel's servers away.
	tamper func(t *testing.T, c *configurator)
	// The resolver's file after both.
	after string
}{
	{
		name: "systemd-resolved", want: DNSResolved,
		tamper: func(t *testing.T, c *configurator) {
			b, err := openBus(c.env)
			must(t, err)
			defer b.close()
			must(t, b.call(resolvedName, resolvedPath, resolvedManager+".RevertLink", []any{indexOf("nws0")}))
		},
		make:   func(t *testing.T) { stubLink(t); startBus(t, "resolved") },
		uplink: "[192.0.2.53 fe80::53%eth0 9.9.9.9]", roamed: "[203.0.113.53 fe80::53%eth0 9.9.9.9]",
		roam:  func(t *testing.T) { tellFake(t, resolvedName, resolvedPath, "203.0.113.53") },
		after: "127.0.0.53",
	},
	{
		name: "an older systemd-resolved", want: DNSResolved,
		tamper: func(t *testing.T, c *configurator) {
			b, err := openBus(c.env)
			must(t, err)
			defer b.close()
			must(t, b.call(resolvedName, resolvedPath, resolvedManager+".RevertLink", []any{indexOf("nws0")}))
		},
		make:   func(t *testing.T) { stubLink(t); startBus(t, "resolved old") },
		uplink: "[192.0.2.53 fe80::53%eth0 9.9.9.9]", roamed: "[203.0.113.53 fe80::53%eth0 9.9.9.9]",
		roam:  func(t *testing.T) { tellFake(t, resolvedName, resolvedPath, "203.0.113.53") },
		after: "127.0.0.53",
	},
	{
		name: "NetworkManager", want: DNSNetworkManager,
		tamper: func(t *testing.T, c *configurator) {
			b, err := openNM(c.env)
			must(t, err)
			defer b.close()
			must(t, writeNMGlobal(b, nmGlobal{}))
		},
		make:   func(t *testing.T) { startBus(t, "nm") },
		uplink: "[192.0.2.53 fe80::53%eth0 198.51.100.53]", roamed: "[203.0.113.53 fe80::53%eth0 198.51.100.53]",
		roam:  func(t *testing.T) { tellFake(t, nmName, nmPath, "203.0.113.53") },
		after: "203.0.113.53",
	},
	{
		name: "NetworkManager's dnsmasq", want: DNSNetworkManager,
		tamper: func(t *testing.T, c *configurator) {
			b, err := openNM(c.env)
			must(t, err)
			defer b.close()
			must(t, writeNMGlobal(b, nmGlobal{}))
		},
		make:   func(t *testing.T) { startBus(t, "nm dnsmasq") },
		uplink: "[192.0.2.53 fe80::53%eth0 198.51.100.53]", roamed: "[203.0.113.53 fe80::53%eth0 198.51.100.53]",
		roam:  func(t *testing.T) { tellFake(t, nmName, nmPath, "203.0.113.53") },
		after: "127.0.0.1",
	},
	{
		name: "openresolv", want: DNSResolvconf,
		tamper: func(t *testing.T, c *configurator) { must(t, runResolvconf(c.env, nil, "-d", "nws0.nws-vpn")) },
		make:   func(t *testing.T) { fakeResolvconf(t, openresolv) },
		uplink: "[192.0.2.53]", roamed: "[203.0.113.53]",
		roam:  func(t *testing.T) { registerEth0(t, "203.0.113.53") },
		after: "203.0.113.53",
	},
	{
		name: "resolvconf", want: DNSResolvconf,
		tamper: func(t *testing.T, c *configurator) { must(t, runResolvconf(c.env, nil, "-d", "tun.nws0.nws-vpn")) },
		make:   func(t *testing.T) { fakeResolvconf(t, debianResolv) },
		uplink: "[192.0.2.53]", roamed: "[203.0.113.53]",
		roam:  func(t *testing.T) { registerEth0(t, "203.0.113.53") },
		after: "203.0.113.53",
	},
	{
		name: "file", want: DNSFile,
		tamper: func(t *testing.T, _ *configurator) {
			must(t, os.WriteFile("/etc/resolv.conf", []byte("nameserver 192.0.2.53\n"), 0o644))
		},
		make:   func(t *testing.T) {},
		uplink: "[192.0.2.53]", roamed: "[203.0.113.53]",
		roam: func(t *testing.T) {
			must(t, os.WriteFile("/etc/resolv.conf", []byte("nameserver 203.0.113.53\n"), 0o644))
		},
		after: "203.0.113.53",
	},
	{
		name: "mounted file", want: DNSFile,
		tamper: func(t *testing.T, _ *configurator) {
			must(t, os.WriteFile("/etc/resolv.conf", []byte("nameserver 192.0.2.53\n"), 0o644))
		},
		make: func(t *testing.T) {
			must(t, os.WriteFile("/etc/behind.conf", []byte("nameserver 192.0.2.53\n"), 0o644))
			must(t, unix.Mount("/etc/behind.conf", "/etc/resolv.conf", "", unix.MS_BIND, ""))
		},
		uplink: "[192.0.2.53]", roamed: "[203.0.113.53]",
		roam: func(t *testing.T) {
			must(t, os.WriteFile("/etc/resolv.conf", []byte("nameserver 203.0.113.53\n"), 0o644))
		},
		after: "203.0.113.53",
	},
}

func registerEth0(t *testing.T, server string) {
	t.Helper()
	must(t, runResolvconf(testEnv(nil), []byte("nameserver "+server+"\n"), "-a", "eth0.dhcp"))
}

// TestDNSManagers puts a tunnel up and down on each, then again, with the
// machine in another network before it goes down: that network's servers stay.
//
// leak check 36: systemd-resolved, NetworkManager and resolvconf on a bus of the test's own
func TestDNSManagers(t *testing.T) {
	for _, m := range managers {
		t.Run(m.name, func(t *testing.T) {
			enterNamespaces(t)
			m.make(t)
			before := snapshot(t)
			dir := stateDir(t)
			tun := openTUN(t, "nws0")
			c, err := open(dir, testLog(t), testEnv(nil))
			must(t, err)
			must(t, c.Set(testConfig()))
			if got := c.DNSManager(); got != m.want || len(c.notes) > 0 {
				t.Errorf("the manager is %q, want %q; notes %q", got, m.want, c.notes)
			}
			checkUp(t)
			for _, ch := range c.applied {
				if ok, err := ch.inForce(c.env); !ok || err != nil {
					t.Errorf("%s is not in force: %v", ch, err)
				}
			}
			uplink(t, c, m.uplink)
			must(t, c.Close())
			tun.Close()
			if d := diff(before, snapshot(t)); d != "" {
				t.Errorf("down left a difference:\n%s", d)
			}

			tun = openTUN(t, "nws0")
			c, err = open(dir, testLog(t), testEnv(nil))
			must(t, err)
			must(t, c.Set(testConfig()))
			m.roam(t)
			uplink(t, c, m.roamed)
			must(t, c.Set(testConfig()))
			checkUp(t)
			uplink(t, c, m.roamed)
			must(t, c.Close())
			tun.Close()
			text, err := os.ReadFile("/etc/resolv.conf")
			must(t, err)
			if got := parseResolvConf(text); len(got) != 1 || got[0].String() != m.after {
				t.Errorf("after roaming and down, the resolver's file names %v, want %s", got, m.after)
			}
			if b, err := os.ReadFile("/run/resolved.links"); err == nil {
				t.Errorf("systemd-resolved was left with %q", b)
			}
		})
	}
}

func uplink(t *testing.T, c *configurator, want string) {
	t.Helper()
	if got := fmt.Sprint(c.UplinkDNS()); got != want {
		t.Errorf("the uplink's servers are %s, want %s", got, want)
	}
}

// TestDNSManagerThatFails: the tunnel is up, and says what it could not do.
func TestDNSManagerThatFails(t *testing.T) {
	for _, tc := range []struct {
		name  string
		asked string
		make  func(t *testing.T)
		want  string // of the note
	}{
		{"systemd-resolved refuses", "", func(t *testing.T) { stubLink(t); startBus(t, "resolved refuses") }, "the fake refuses"},
		{"NetworkManager refuses", "", func(t *testing.T) { startBus(t, "nm refuses") }, "the fake refuses"},
		{"no systemd-resolved", DNSResolved, func(t *testing.T) { startBus(t) }, "not running"},
		{"no NetworkManager", DNSNetworkManager, func(t *testing.T) { startBus(t) }, "not running"},
		{"no bus", DNSResolved, func(t *testing.T) {}, "no such file"},
		{"no resolvconf", DNSResolvconf, func(t *testing.T) {}, "no program resolvconf"},
		{"systemd-resolved has another such link", "", func(t *testing.T) { stubLink(t); startBus(t, "resolved catches") }, "eth0 too"},
		{"read-only mount", "", func(t *testing.T) {
			must(t, os.WriteFile("/etc/behind.conf", []byte("nameserver 192.0.2.53\n"), 0o644))
			must(t, unix.Mount("/etc/behind.conf", "/etc/resolv.conf", "", unix.MS_BIND, ""))
			must(t, unix.Mount("", "/etc/resolv.conf", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		}, "read-only file system"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			enterNamespaces(t)
			tc.make(t)
			before := snapshot(t)
			tun := openTUN(t, "nws0")
			e := testEnv(nil)
			e.dns.programDirs = []string{"/usr/local/sbin"} // not this machine's
			c, err := open(stateDir(t), testLog(t), e)
			must(t, err)
			cfg := testConfig()
			cfg.DNSManager = tc.asked
			must(t, c.Set(cfg))
			if n := c.Notes(); len(n) != 1 || !strings.Contains(n[0], tc.want) || strings.Contains(n[0], "\n") {
				t.Errorf("notes are %q, want %q in one", n, tc.want)
			}
			must(t, c.Close())
			tun.Close()
			if d := diff(before, snapshot(t)); d != "" {
				t.Errorf("down left a difference:\n%s", d)
			}
		})
	}
}

// TestDNSServiceThatHangs waits for it only so long, and then does without.
func TestDNSServiceThatHangs(t *testing.T) {
	enterNamespaces(t)
	stubLink(t)
	startBus(t, "resolved hangs")
	openTUN(t, "nws0")
	e := testEnv(nil)
	e.dns.busTimeout = 300 * time.Millisecond
	c, err := open(stateDir(t), testLog(t), e)
	must(t, err)
	must(t, c.Set(testConfig()))
	if got, _ := managerOf(c.applied); got != DNSFile {
		t.Errorf("the manager is %q", got)
	}
	must(t, c.Close())
	if target, err := os.Readlink("/etc/resolv.conf"); err != nil || !strings.Contains(target, "stub") {
		t.Errorf("the link is %q, %v", target, err)
	}
}

// TestDNSServiceElsewhere has the bus of another network namespace in the file
// system, as containers have: its services are left alone.
func TestDNSServiceElsewhere(t *testing.T) {
	far := enterNamespaces(t)
	stubLink(t)
	startBus(t)
	mounts, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(mounts)
	must(t, unix.Setns(far.fd, unix.CLONE_NEWNET))
	stop := startService(t, "resolved")
	must(t, unix.Setns(mounts, unix.CLONE_NEWNET))
	openTUN(t, "nws0")
	c, err := open(stateDir(t), testLog(t), testEnv(nil))
	must(t, err)
	must(t, c.Set(testConfig()))
	if got, _ := managerOf(c.applied); got != DNSFile {
		t.Errorf("the manager is %q", got)
	}
	if b, err := os.ReadFile("/run/resolved.links"); err == nil {
		t.Errorf("the service of another namespace was told %q", b)
	}

	// One that belongs here takes its place, and the file goes back.
	stop()
	startService(t, "resolved")
	must(t, c.Set(testConfig()))
	if got, _ := managerOf(c.applied); got != DNSResolved {
		t.Errorf("after systemd-resolved came back, the manager is %q", got)
	}
	checkUp(t)
	must(t, c.Close())
	runtime.KeepAlive(far)
}

// TestNMThatIsGone leaves what it remembers on the list, until it is back: also
// when the machine was started anew in between.
func TestNMThatIsGone(t *testing.T) {
	enterNamespaces(t)
	startBus(t)
	stop := startService(t, "nm")
	before := snapshot(t)
	dir := stateDir(t)
	tun := openTUN(t, "nws0")
	c, err := open(dir, testLog(t), testEnv(nil))
	must(t, err)
	must(t, c.Set(testConfig()))
	stop()
	if err := c.Close(); err == nil || !strings.Contains(err.Error(), "start it first") {
		t.Errorf("down without NetworkManager: %v", err)
	}
	tun.Close()
	j, err := readJournal(dir)
	must(t, err)
	if len(j.Changes) != 1 {
		t.Fatalf("the journal lists %v", j.Changes)
	}
	j.Boot = "another"
	must(t, writeJournal(dir, j))
	if err := CleanUp(dir, testLog(t)); err == nil {
		t.Error("repair without NetworkManager: no error")
	}

	// A tunnel comes up all the same, and takes over.
	tun = openTUN(t, "nws0")
	c, err = open(dir, testLog(t), testEnv(nil))
	must(t, err)
	must(t, c.Set(testConfig()))
	startService(t, "nm")
	must(t, c.Close())
	tun.Close()
	cleanUpTwice(t, dir)
	if d := diff(before, snapshot(t)); d != "" {
		t.Errorf("down left a difference:\n%s", d)
	}
}

// TestNMChangedByOthers leaves alone what somebody has configured since.
func TestNMChangedByOthers(t *testing.T) {
	enterNamespaces(t)
	startBus(t, "nm")
	openTUN(t, "nws0")
	c, err := open(stateDir(t), testLog(t), testEnv(nil))
	must(t, err)
	must(t, c.Set(testConfig()))
	theirs := nmGlobal{Domains: map[string]nmDomain{"*": {Servers: []string{"192.0.2.77"}}}}
	b, err := openNM(c.env)
	must(t, err)
	must(t, writeNMGlobal(b, theirs))
	b.close()
	must(t, c.Close())
	text, err := os.ReadFile("/etc/resolv.conf")
	must(t, err)
	if got := parseResolvConf(text); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("192.0.2.77")}) {
		t.Errorf("after down, the servers are %v", got)
	}
}
