package platform

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// newKeeper is a Keep that looks when the test says so.
func newKeeper(c *configurator, told *[]string) *keeper {
	report := func(s string) {
		if told != nil {
			*told = append(*told, s)
		}
	}
	return &keeper{c: c, report: report, fights: make(map[string]*fight), told: make(map[string]bool)}
}

// TestKeepNames has the tunnel's servers taken away, once and again and again.
func TestKeepNames(t *testing.T) {
	for _, m := range managers {
		t.Run(m.name, func(t *testing.T) {
			enterNamespaces(t)
			m.make(t)
			openTUN(t, "nws0")
			c, err := open(stateDir(t), testLog(t), testEnv(nil))
			must(t, err)
			must(t, c.Set(testConfig()))
			var told []string
			k := newKeeper(c, &told)
			now := time.Now()
			must(t, k.look(now))
			if len(told) > 0 {
				t.Errorf("nothing has happened, and Keep says %q", told)
			}
			for i := range maxFights {
				m.tamper(t, c)
				must(t, k.look(now))
				checkUp(t)
				if len(told) < i+1 {
					t.Errorf("Keep put the servers back and says %q", told)
				}
			}
			if last := told[len(told)-1]; !strings.Contains(last, "left alone") {
				t.Errorf("after %d fights, Keep says %q", maxFights, told)
			}

			// The machine is in another network when Keep has given up.
			m.tamper(t, c)
			m.roam(t)
			must(t, k.look(now))
			uplink(t, c, m.roamed)
			must(t, c.Close())
			text, err := os.ReadFile("/etc/resolv.conf")
			must(t, err)
			if got := parseResolvConf(text); len(got) != 1 || got[0].String() != m.after {
				t.Errorf("after down, the resolver's file names %v, want %s", got, m.after)
			}
		})
	}
}

// TestKeepAgainstADHCPClient has one write the file while the machine moves: our
// file comes back, and goes to make room for the new one.
//
// leak check 37: put back, then left alone with a warning
func TestKeepAgainstADHCPClient(t *testing.T) {
	enterNamespaces(t)
	openTUN(t, "nws0")
	c, err := open(stateDir(t), testLog(t), testEnv(nil))
	must(t, err)
	must(t, c.Set(testConfig()))
	k := startKeep(t, c)
	must(t, os.WriteFile("/etc/resolv.conf.dhcp", []byte("nameserver 203.0.113.53\n"), 0o644))
	must(t, os.Rename("/etc/resolv.conf.dhcp", "/etc/resolv.conf"))
	k.await(t, "resolver's file")
	k.end(t)
	// It may have been about to be put back when it was written.
	must(t, newKeeper(c, nil).look(time.Now()))
	checkUp(t)
	uplink(t, c, "[203.0.113.53]")
	must(t, c.Close())
	if b, err := os.ReadFile("/etc/resolv.conf"); string(b) != "nameserver 203.0.113.53\n" {
		t.Errorf("after down, the file is %q, %v", b, err)
	}
}

// TestFileWrittenInBetween has a DHCP client write the file after it was read,
// and before it is replaced.
func TestFileWrittenInBetween(t *testing.T) {
	enterNamespaces(t)
	openTUN(t, "nws0")
	const theirs = "nameserver 203.0.113.53\n"
	c, err := open(stateDir(t), testLog(t), testEnv(func(point string) error {
		if point != "before replace the resolver's file" {
			return nil
		}
		return os.WriteFile("/etc/resolv.conf", []byte(theirs), 0o644)
	}))
	must(t, err)
	must(t, c.Set(testConfig()))
	if n := c.Notes(); len(n) != 1 || !strings.Contains(n[0], errWritten.Error()) {
		t.Errorf("notes are %q", n)
	}
	must(t, c.Close())
	if b, err := os.ReadFile("/etc/resolv.conf"); string(b) != theirs {
		t.Errorf("after down, the file is %q, %v", b, err)
	}
}

// TestNetworks lists what is in the way of the tunnel's addresses, and not what
// the tunnel made.
func TestNetworks(t *testing.T) {
	enterNamespaces(t)
	addRoute(t, "198.18.7.0/24", "192.0.2.1")
	addRoute(t, "128.0.0.0/1", "192.0.2.1")
	openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	must(t, c.Set(testConfig()))
	list, err := Networks("nws0")
	must(t, err)
	for text, want := range map[string]bool{
		"192.0.2.0/24": true, "2001:db8::/64": true, "198.18.7.0/24": true,
		"128.0.0.0/1": false, "0.0.0.0/0": false, "198.18.0.1/32": false, "fd6e:7773:7670::1/128": false,
	} {
		if got := slices.Contains(list, netip.MustParsePrefix(text)); got != want {
			t.Errorf("%s among %v: %v", text, list, got)
		}
	}
	must(t, c.Close())
}
