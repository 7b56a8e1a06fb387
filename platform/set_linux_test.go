package platform

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestSetAndDown(t *testing.T) {
	enterNamespaces(t)
	before := snapshot(t)
	tun := openTUN(t, "nws0")
	withTUN := snapshot(t)
	dir := stateDir(t)
	c, err := New(dir, Options{Log: testLog(t)})
	must(t, err)
	must(t, c.Set(testConfig()))
	checkUp(t)
	if got, want := c.UplinkDNS(), []netip.Addr{netip.MustParseAddr("192.0.2.53")}; !slices.Equal(got, want) {
		t.Errorf("uplink's name servers are %v, want %v", got, want)
	}
	if len(c.Notes()) != 0 {
		t.Errorf("notes: %q", c.Notes())
	}

	must(t, c.Set(Config{}))
	if d := diff(withTUN, snapshot(t)); d != "" {
		t.Errorf("down left a difference:\n%s", d)
	}
	if _, err := os.Stat(dir + "/journal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("down left a journal: %v", err)
	}
	must(t, c.Set(testConfig()))
	checkUp(t)
	must(t, c.Close())
	must(t, c.Close())
	tun.Close()
	if d := diff(before, snapshot(t)); d != "" {
		t.Errorf("close left a difference:\n%s", d)
	}
	if err := c.Set(testConfig()); err == nil {
		t.Error("set after close: no error")
	}
}

// checkUp compares what testConfig makes with what it should make, read back
// from the kernel.
func checkUp(t *testing.T) {
	t.Helper()
	now := snapshot(t)
	for _, family := range []string{"4", "6"} {
		for _, want := range []string{
			"rule " + family + " 5600: from all fwmark 0x4e000000/0xff000000 lookup 254 proto 78\n",
			"rule " + family + " 5610: from all fwmark 0x4e000000/0xff000000 proto 78\n",
			"rule " + family + " 5620: from all lookup 20055 proto 78\n",
			"route " + family + " table 20055 type 7 ", // the guard
			"route " + family + " table 20055 type 1 ", // to the device
			" metric 4294967295 proto 78\n",
		} {
			if !strings.Contains(now, want) {
				t.Errorf("up lacks %q", want)
			}
		}
	}
	for _, want := range []string{
		"198.18.0.1/32\n", "fd6e:7773:7670::1/128\n",
		"ipv4/conf/all/src_valid_mark 1\n", "ipv4/conf/all/arp_ignore 2\n",
	} {
		if !strings.Contains(now, want) {
			t.Errorf("up lacks %q", want)
		}
	}
	if strings.Contains(now, " table 254 type 1 198.18.") || strings.Contains(now, " table 254 type 1 fd6e:") {
		t.Error("up put a prefix route into main")
	}
	link, err := netlink.LinkByName("nws0")
	must(t, err)
	if link.Attrs().MTU != 1400 || !isUp(link.Attrs()) {
		t.Errorf("the device has MTU %d and flags %v", link.Attrs().MTU, link.Attrs().Flags)
	}
	checkNames(t)
	if t.Failed() {
		t.Fatal(now)
	}
}

// recorder is a hook that keeps the points it has seen.
type recorder struct{ points []string }

func (r *recorder) step(point string) error {
	r.points = append(r.points, point)
	return nil
}

func TestSetIsIdempotentAndRepairs(t *testing.T) {
	enterNamespaces(t)
	openTUN(t, "nws0")
	rec := new(recorder)
	c, err := open(stateDir(t), testLog(t), testEnv(rec.step))
	must(t, err)
	defer c.Close()
	must(t, c.Set(testConfig()))
	up := snapshot(t)

	rec.points = nil
	must(t, c.Set(testConfig()))
	if want := []string{"before verifying"}; !slices.Equal(rec.points, want) {
		t.Errorf("the same Set did %q, want %q", rec.points, want)
	}

	// Another program takes some of it away.
	must(t, (&ruleChange{Family: 6, Priority: 5620, Table: DefaultTable}).undo(nil))
	must(t, (&routeChange{Family: 4, Table: DefaultTable}).undo(nil))
	must(t, writeSysctl(arpIgnore, 0))
	must(t, c.Set(testConfig()))
	if d := diff(up, snapshot(t)); d != "" {
		t.Errorf("set did not repair:\n%s", d)
	}

	// Another Config changes what differs and nothing else.
	rec.points = nil
	cfg := testConfig()
	cfg.DNS = nil
	cfg.Addresses = cfg.Addresses[:1]
	must(t, c.Set(cfg))
	want := []string{
		"before verifying",
		"before undoing replace the resolver's file",
		"rename over /etc/resolv.conf",
		"after undoing replace the resolver's file",
		"before undoing ip -6 route add default dev nws0 metric 1024 table 20055",
		"after undoing ip -6 route add default dev nws0 metric 1024 table 20055",
		"before undoing ip addr add fd6e:7773:7670::1/128 dev nws0 noprefixroute",
		"after undoing ip addr add fd6e:7773:7670::1/128 dev nws0 noprefixroute",
		"before the journal", "after the journal",
	}
	if !slices.Equal(rec.points, want) {
		t.Errorf("less of it was done by:\n%s\nwant:\n%s", strings.Join(rec.points, "\n"), strings.Join(want, "\n"))
	}
}

// failer is a hook that fails once, at the n-th point.
type failer struct {
	n    int
	seen int
	at   string
}

var errInjected = errors.New("injected")

func (f *failer) step(point string) error {
	f.seen++
	if f.seen == f.n {
		f.at = point
		return errInjected
	}
	return nil
}

// leak check 24: a change that fails, at every step
func TestFailAtEveryStep(t *testing.T) {
	enterNamespaces(t)
	openTUN(t, "nws0")
	before := snapshot(t)
	for n := 1; ; n++ {
		dir := stateDir(t)
		f := &failer{n: n}
		c, err := open(dir, testLog(t), testEnv(f.step))
		must(t, err)
		err = c.Set(filterConfig())
		if err != nil {
			if !errors.Is(err, errInjected) {
				t.Errorf("%s: the error does not name its cause: %v", f.at, err)
			}
			if d := diff(before, snapshot(t)); d != "" {
				t.Errorf("%s: half of it is left:\n%s", f.at, d)
			}
			must(t, c.Set(filterConfig()))
		}
		if f.at == "" || err != nil {
			checkUp(t)
		} else if !canDegrade(f.at) {
			t.Errorf("%s: no error", f.at)
		}
		inSet := f.at != ""
		if err := c.Close(); (err != nil) != (f.at != "" && !inSet) {
			t.Errorf("%s: close says %v", f.at, err)
		}
		must(t, cleanUp(dir, testLog(t), testEnv(nil), false))
		if d := diff(before, snapshot(t)); d != "" {
			t.Fatalf("%s: a difference is left:\n%s", f.at, d)
		}
		if f.at == "" {
			t.Logf("%d points", n-1)
			if n < 60 {
				t.Error("these are too few")
			}
			return
		}
	}
}

// canDegrade reports whether a tunnel comes up although a point failed.
func canDegrade(point string) bool {
	return strings.Contains(point, "resolv") || strings.Contains(point, "sysctl")
}

// TestFailedSetKeepsWhatWasInForce changes a tunnel that is up: no point of
// failure may open it.
func TestFailedSetKeepsWhatWasInForce(t *testing.T) {
	enterNamespaces(t)
	openTUN(t, "nws0")
	f := new(failer)
	rec := new(recorder)
	c, err := open(stateDir(t), testLog(t), testEnv(func(p string) error {
		_ = rec.step(p)
		return f.step(p)
	}))
	must(t, err)
	defer c.Close()
	must(t, c.Set(filterConfig()))
	up := snapshot(t)
	other := filterConfig()
	other.MTU = 1300
	other.Table = 4711
	for n := 1; ; n++ {
		*f, *rec = failer{n: n}, recorder{}
		err := c.Set(other)
		if f.at == "" {
			must(t, err)
			break
		}
		for _, p := range rec.points {
			if strings.Contains(p, "before undoing ip -4 rule") && !strings.HasSuffix(p, "lookup 4711") && err != nil && !strings.Contains(f.at, "undoing") {
				t.Errorf("%s: a rule in force was undone: %s", f.at, p)
			}
		}
		must(t, c.Set(filterConfig()))
		if d := diff(up, snapshot(t)); d != "" {
			t.Fatalf("%s: the old state does not come back:\n%s", f.at, d)
		}
	}
}

func TestSecondInstance(t *testing.T) {
	enterNamespaces(t)
	dir := stateDir(t)
	c, err := New(dir, Options{Log: testLog(t)})
	must(t, err)
	_, err = New(dir, Options{Log: testLog(t)})
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() || locked.Dir != dir {
		t.Fatalf("the second New says %v", err)
	}
	if !strings.Contains(err.Error(), "nws-vpn down") {
		t.Errorf("no remedy in %q", err)
	}
	for name, clean := range map[string]func(string, *slog.Logger) error{"CleanUp": CleanUp, "Unlock": Unlock} {
		if err := clean(dir, testLog(t)); !errors.As(err, &locked) {
			t.Errorf("%s of a tunnel that has changed nothing yet says %v", name, err)
		}
		if err := clean(filepath.Join(dir, "none"), testLog(t)); err != nil {
			t.Errorf("%s of a directory that is not there says %v", name, err)
		}
	}
	must(t, c.Close())
	c, err = New(dir, Options{Log: testLog(t)})
	must(t, err)
	openTUN(t, "nws0")
	must(t, c.Set(testConfig()))
	if err := CleanUp(dir, testLog(t)); !errors.As(err, &locked) {
		t.Errorf("CleanUp of a tunnel that is up says %v", err)
	}
	checkUp(t)

	// Another state directory does not help.
	other, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	openTUN(t, "nws1")
	cfg := testConfig()
	cfg.Device = "nws1"
	if err := other.Set(cfg); err == nil || !strings.Contains(err.Error(), "another state directory") {
		t.Errorf("a second tunnel says %v", err)
	}
	must(t, other.Close())
	checkUp(t)
	must(t, c.Close())
}

func TestMachineLacks(t *testing.T) {
	enterNamespaces(t)
	dir := stateDir(t)
	check := func(want ...string) {
		t.Helper()
		_, err := New(dir, Options{Log: testLog(t)})
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("error is %v, want %q in it", err, w)
			}
		}
	}
	must(t, os.Chmod(dir, 0o777))
	check("can be written by others")
	must(t, os.Chmod(dir, 0o700))

	must(t, unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, ""))
	check("/dev/net/tun", "modprobe tun", "--device")
	must(t, os.WriteFile("/dev/net/tun", nil, 0o600))
	must(t, unix.Mount("/dev/null", "/dev/net/tun", "", unix.MS_BIND, ""))
	must(t, unix.Unmount("/dev/net/tun", 0))
	must(t, unix.Unmount("/dev/net", 0))

	// Last, as it does not come back: the thread loses the capability.
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	must(t, unix.Capget(&hdr, &data[0]))
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	must(t, unix.Capset(&hdr, &data[0]))
	check("CAP_NET_ADMIN", "root")
}

func TestSetRefuses(t *testing.T) {
	enterNamespaces(t)
	openTUN(t, "nws0")
	before := snapshot(t)
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	for _, tc := range []struct {
		name  string
		spoil func(*Config)
		want  string
	}{
		{"no such device", func(c *Config) { c.Device = "nws9" }, "there is no device nws9"},
		{"not a TUN", func(c *Config) { c.Device = "eth0" }, "not a TUN"},
		{"address on the uplink", func(c *Config) { c.Addresses[0] = netip.MustParsePrefix("192.0.2.2/32") }, "reaches by eth0"},
		{"address in the uplink's network", func(c *Config) { c.Addresses[0] = netip.MustParsePrefix("192.0.2.77/32") }, "192.0.2.77 lies in 192.0.2.0/24, which this machine already reaches by eth0: choose another"},
		{"address in the uplink's IPv6 network", func(c *Config) { c.Addresses[1] = netip.MustParsePrefix("2001:db8::77/128") }, "lies in 2001:db8::/64"},
	} {
		cfg := testConfig()
		tc.spoil(&cfg)
		if err := c.Set(cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error is %v, want %q in it", tc.name, err, tc.want)
		}
		if d := diff(before, snapshot(t)); d != "" {
			t.Errorf("%s: a refused Set left a difference:\n%s", tc.name, d)
		}
	}
}
