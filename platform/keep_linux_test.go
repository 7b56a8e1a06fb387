package platform

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// keeping is a Keep that runs in the test's namespaces.
type keeping struct {
	lines chan string
	done  chan error
	stop  context.CancelFunc
}

func startKeep(t *testing.T, c Configurator) *keeping {
	t.Helper()
	k := &keeping{lines: make(chan string, 1000), done: make(chan error, 1)}
	var ctx context.Context
	ctx, k.stop = context.WithCancel(t.Context())
	var spaces []*os.File
	for _, name := range []string{"net", "mnt"} {
		f, err := os.Open("/proc/thread-self/ns/" + name)
		must(t, err)
		spaces = append(spaces, f)
	}
	go func() {
		runtime.LockOSThread() // the namespaces are the thread's, which ends here
		err := unix.Unshare(unix.CLONE_FS)
		for _, f := range spaces {
			err = errors.Join(err, unix.Setns(int(f.Fd()), 0), f.Close())
		}
		if err == nil {
			err = c.Keep(ctx, func(what string) { k.lines <- what })
		}
		k.done <- err
	}()
	return k
}

// await waits for a line with a text.
func (k *keeping) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(long)
	for {
		select {
		case l := <-k.lines:
			if strings.Contains(l, "\n") {
				t.Errorf("%q is more than a line", l)
			}
			if strings.Contains(l, text) {
				return
			}
		case err := <-k.done:
			t.Fatalf("waiting for %q, Keep ends with %v", text, err)
		case <-late:
			t.Fatalf("%q is not reported", text)
		}
	}
}

func (k *keeping) end(t *testing.T) {
	t.Helper()
	k.stop()
	if err := <-k.done; !errors.Is(err, context.Canceled) {
		t.Errorf("Keep ends with %v", err)
	}
}

// flushChain empties one of our chains, as `nft flush chain` does.
func flushChain(name string) error {
	conn, err := nftConn()
	if err != nil {
		return err
	}
	conn.FlushChain(&nftables.Chain{Name: name, Table: ourTable()})
	return conn.Flush()
}

// flushRuleset deletes every table.
func flushRuleset() error {
	conn, err := nftConn()
	if err != nil {
		return err
	}
	conn.FlushRuleset()
	return conn.Flush()
}

// addForeignRule opens our filter from within.
func addForeignRule() error {
	conn, err := nftConn()
	if err != nil {
		return err
	}
	conn.InsertRule(&nftables.Rule{Table: ourTable(), Chain: &nftables.Chain{Name: "output", Table: ourTable()}, Exprs: accept.exprs})
	return conn.Flush()
}

// TestKeepPutsBack changes one thing after the other from outside. A relay's
// connection and one from outside live through all of it.
//
// leak check 22: each thing in force, removed and put back
func TestKeepPutsBack(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)
	warmNeighbours(t, wire)
	far.run(t, func() error { echoServer(t, "203.0.113.9:7777"); return nil })
	echoServer(t, "192.0.2.2:22")
	openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	cfg := filterConfig()
	must(t, c.Set(cfg))
	up := snapshot(t)
	relay := dialMarked(t, "203.0.113.9:7777")
	guest, err := far.visit(t, "192.0.2.2:22", long)
	must(t, err)
	k := startKeep(t, c)
	link, err := netlink.LinkByName("nws0")
	must(t, err)
	addr, err := netlink.ParseAddr("198.18.0.1/32")
	must(t, err)
	for _, tc := range []struct {
		name string
		do   func() error
		want string
	}{
		{"a rule", func() error { return (&ruleChange{Family: 4, Priority: 5620, Table: DefaultTable}).undo(nil) }, "ip -4 rule add pref 5620"},
		{"all rules and guards", flushRules, "ip -6 rule add pref 5600"},
		{"a route", func() error {
			return (&routeChange{Family: 6, Table: DefaultTable, Device: "nws0", Index: link.Attrs().Index}).undo(nil)
		}, "ip -6 route add default dev nws0"},
		{"the packet filter", flushRuleset, "nft add table inet nws-vpn"},
		{"a chain", func() error { return flushChain("output") }, "nft add table inet nws-vpn"},
		{"a rule in the packet filter", addForeignRule, "nft add table inet nws-vpn"},
		{"an address", func() error { return netlink.AddrDel(link, addr) }, "ip addr add 198.18.0.1/32"},
		{"the device is down", func() error { return netlink.LinkSetDown(link) }, "ip link set nws0 up"},
		{"a setting", func() error { return writeSysctl(arpIgnore, 0) }, "arp_ignore"},
		{"the resolver's file", func() error { return os.WriteFile("/etc/resolv.conf", []byte("nameserver 192.0.2.66\n"), 0o644) }, "resolver"},
		{"the resolver's file, replaced", func() error {
			return errors.Join(os.WriteFile("/etc/new", nil, 0o644), os.Rename("/etc/new", "/etc/resolv.conf"))
		}, "resolver"},
	} {
		must(t, tc.do())
		k.await(t, tc.want)
		if err := errors.Join(relay.say(long), guest.say(long)); err != nil {
			t.Errorf("%s: a connection is interrupted: %v", tc.name, err)
		}
	}
	must(t, c.Set(cfg)) // waits for Keep, and does nothing
	times := regexp.MustCompile(`Mtime:{[^}]*}`)
	if d := diff(times.ReplaceAllString(up, ""), times.ReplaceAllString(snapshot(t), "")); d != "" {
		t.Errorf("not all is put back:\n%s", d)
	}
	if seen := sendAll(t, wire, "kept", func(probe, string, error) {}); contains(seen, "probe kept") {
		t.Error("a probe is on the wire")
	}
	k.end(t)
}

// dialMarked connects as the daemon does to a relay.
func dialMarked(t *testing.T, address string) *visitor {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	conn, err := (&net.Dialer{Control: Control(0)}).DialContext(ctx, "tcp", address)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return &visitor{conn: conn, r: bufio.NewReader(conn)}
}

// TestKeepReportsAnotherVPN has another VPN come up while ours is.
func TestKeepReportsAnotherVPN(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)
	warmNeighbours(t, wire)
	openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	must(t, c.Set(filterConfig()))
	k := startKeep(t, c)
	foreign := netlink.NewRule()
	foreign.Priority, foreign.Table = 100, unix.RT_TABLE_MAIN
	must(t, netlink.RuleAdd(foreign))
	k.await(t, "rule 100: from all lookup 254 of another program comes before")
	// It pulls everything past the tunnel, and the filter stops it there.
	if seen := sendAll(t, wire, "pulled", func(probe, string, error) {}); contains(seen, "probe pulled") {
		t.Error("a probe is on the wire")
	}
	k.end(t)
}

func TestKeepTellsThatTheDeviceIsGone(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)
	warmNeighbours(t, wire)
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	for _, how := range []string{"deleted", "closed", "another of that name"} {
		tun := openTUN(t, "nws0")
		must(t, c.Set(filterConfig()))
		k := startKeep(t, c)
		link, err := netlink.LinkByName("nws0")
		must(t, err)
		if how == "deleted" {
			must(t, netlink.LinkDel(link))
		}
		tun.Close()
		if how == "another of that name" {
			defer openTUN(t, "nws0").Close()
		}
		var gone *DeviceGoneError
		if err := <-k.done; !errors.As(err, &gone) || gone.Device != "nws0" {
			t.Errorf("%s: Keep ends with %v", how, err)
		}
		k.stop()
		cfg := filterConfig()
		cfg.Device = ""
		must(t, c.Set(cfg))
		if seen := sendAll(t, wire, how, func(probe, string, error) {}); contains(seen, "probe "+how) {
			t.Errorf("%s: a probe is on the wire", how)
		}
	}
}

// TestKeepFollowsTheNetwork roams while the local network is allowed.
func TestKeepFollowsTheNetwork(t *testing.T) {
	far := enterNamespaces(t)
	secondNetwork(t, far, "10.9.0.2/24", "10.9.0.1/24")
	w := &ways{wire: newSniffer(t, far), tun: openTUN(t, "nws0")}
	c, err := open(stateDir(t), testLog(t), testEnv(nil))
	must(t, err)
	defer c.Close()
	cfg := filterConfig()
	cfg.AllowLAN = true
	must(t, c.Set(cfg))
	k := startKeep(t, c)
	eth, err := netlink.LinkByName("eth0")
	must(t, err)
	old, err := netlink.ParseAddr("10.9.0.2/24")
	must(t, err)
	must(t, netlink.AddrDel(eth, old))
	secondNetwork(t, far, "10.7.0.2/24", "10.7.0.1/24")
	follows := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		f := find(c.applied, (&filterChange{}).String()).(*filterChange)
		return fmt.Sprint(f.Spec.LAN) == "[{eth0 10.7.0.0/24}]"
	}
	for late := time.Now().Add(long); !follows(); {
		if time.Now().After(late) {
			t.Fatal("it does not follow")
		}
		runtime.Gosched()
	}
	if got := w.of(t, to4("10.7.0.1:9")); got != onWire {
		t.Errorf("the new network: %s", got)
	}
	if got := w.of(t, to4("10.9.0.1:9")); got != inTunnel {
		t.Errorf("the old network: %s", got)
	}
	k.end(t)
}

// TestFightsAreBounded looks at what is taken away again and again, with a clock
// of the test's.
func TestFightsAreBounded(t *testing.T) {
	k := &keeper{fights: make(map[string]*fight), told: make(map[string]bool)}
	lost := []change{&filterChange{}}
	now := time.Unix(1000, 0)
	puts, truces := 0, 0
	for range 600 { // ten minutes, a look a second
		put, lines := k.fight(lost, now)
		puts += len(put)
		for _, l := range lines {
			if strings.Contains(l, "keeps taking") {
				truces++
			}
		}
		now = now.Add(time.Second)
	}
	if puts != 90 || truces != 18 {
		t.Errorf("put back %d times, %d truces", puts, truces)
	}
	// Another thing is not affected, and what happens seldom is no fight.
	k = &keeper{fights: make(map[string]*fight), told: make(map[string]bool)}
	for range 20 {
		if put, _ := k.fight(lost, now); len(put) != 1 {
			t.Fatal("not put back")
		}
		now = now.Add(2 * fightMemory)
	}
}
