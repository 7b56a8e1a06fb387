package platform

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// enterNamespaces moves the test into a network and a mount namespace of its
// own, with an uplink: eth0, 192.0.2.2/24 and 2001:db8::2/64, whose other end
// is in the returned namespace. The test's goroutine keeps its thread, which
// ends with it, and the namespaces with that.
//
// The network namespace is new; /run is empty, and so is /etc but for a
// resolv.conf.
func enterNamespaces(t *testing.T) *peer {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network and mount namespaces")
	}
	runtime.LockOSThread()
	must(t, unix.Unshare(unix.CLONE_NEWNET|unix.CLONE_NEWNS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"))
	must(t, unix.Mount("tmpfs", "/etc", "tmpfs", 0, "mode=755"))
	must(t, os.WriteFile("/etc/resolv.conf", []byte("search lan\nnameserver 192.0.2.53\n"), 0o640))
	must(t, os.Chown("/etc/resolv.conf", 7, 8))

	far := newPeer(t)
	changes, err := subscribe()
	must(t, err)
	defer changes.Close()
	linkUp(t, nil, "lo")
	must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: "eth0"},
		PeerName:      "wan",
		PeerNamespace: netlink.NsFd(far.fd),
	}))
	must(t, writeSysctl(addrGenMode("eth0"), 1))
	linkUp(t, nil, "eth0", "192.0.2.2/24", "2001:db8::2/64")
	far.run(t, func() error { return writeSysctl(addrGenMode("wan"), 1) })
	linkUp(t, far.handle, "lo")
	linkUp(t, far.handle, "wan", "192.0.2.1/24", "2001:db8::1/64", "203.0.113.9/32", "2001:db8:9::9/128")
	addRoute(t, "default", "192.0.2.1")
	addRoute(t, "::/0", "2001:db8::1")
	awaitAddress(t, changes, "2001:db8::2/128")
	return far
}

// awaitAddress waits until an IPv6 address, which the kernel makes usable in its
// own time, is.
func awaitAddress(t *testing.T, changes *os.File, local string) {
	t.Helper()
	must(t, changes.SetReadDeadline(time.Now().Add(20*time.Second)))
	for {
		routes, err := listRoutes(6, unix.RT_TABLE_LOCAL)
		must(t, err)
		if slices.ContainsFunc(routes, func(r netlink.Route) bool { return prefixOf(r.Dst, 6).String() == local }) {
			return
		}
		must(t, awaitMessages(changes))
	}
}

// peer is another network namespace.
type peer struct {
	fd     int
	handle *netlink.Handle
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	fds := make(chan int, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		fd := -1
		if err := unix.Unshare(unix.CLONE_NEWNET); err == nil {
			fd, _ = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		fds <- fd
	}()
	p := &peer{fd: <-fds}
	if p.fd < 0 {
		t.Fatal("cannot make a network namespace")
	}
	p.run(t, func() error {
		var err error
		p.handle, err = netlink.NewHandle()
		return err
	})
	t.Cleanup(func() {
		p.handle.Close()
		unix.Close(p.fd)
	})
	return p
}

// run calls fn on a thread in the namespace.
func (p *peer) run(t *testing.T, fn func() error) {
	t.Helper()
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(p.fd, unix.CLONE_NEWNET)
		if err == nil {
			err = fn()
		}
		errs <- err
	}()
	must(t, <-errs)
}

// linkUp brings a link up with addresses, in the namespace of h or in ours.
func linkUp(t *testing.T, h *netlink.Handle, name string, addrs ...string) {
	t.Helper()
	if h == nil {
		var err error
		h, err = netlink.NewHandle()
		must(t, err)
		defer h.Close()
	}
	link, err := h.LinkByName(name)
	must(t, err)
	must(t, h.LinkSetUp(link))
	for _, a := range addrs {
		n, err := netlink.ParseAddr(a)
		must(t, err)
		if n.IP.To4() == nil {
			n.Flags = unix.IFA_F_NODAD
		}
		must(t, h.AddrAdd(link, n))
	}
}

// addRoute adds a route to main, by a gateway or, with an empty one, on eth0's
// link.
func addRoute(t *testing.T, dst, gateway string) {
	t.Helper()
	link, err := netlink.LinkByName("eth0")
	must(t, err)
	r := &netlink.Route{LinkIndex: link.Attrs().Index}
	if dst == "default" {
		dst = "0.0.0.0/0"
	}
	r.Dst, err = netlink.ParseIPNet(dst)
	must(t, err)
	if gateway != "" {
		r.Gw = net.ParseIP(gateway)
	}
	must(t, netlink.RouteAdd(r))
}

// openTUN makes a TUN that lives until the file is closed.
func openTUN(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := tryOpenTUN(name)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func tryOpenTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// stateDir makes a state directory in the test's own /run, which is in memory:
// the disk's speed is not what is tested.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "state")
	must(t, err)
	return dir
}

// testConfig is a Config as `up` makes it.
func testConfig() Config {
	return Config{
		Device:    "nws0",
		MTU:       1400,
		Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/32"), netip.MustParsePrefix("fd6e:7773:7670::1/128")},
		DNS:       []netip.Addr{netip.MustParseAddr("198.18.0.2")},
	}
}

// filterConfig is a Config as `up` makes it with the kill switch on.
func filterConfig() Config {
	c := testConfig()
	c.Filter = FilterOn
	return c
}

// testEnv is the machine's, in the test's namespaces; hook, if any, sees every
// step.
func testEnv(hook func(point string) error) *env {
	e := machineEnv()
	e.dns.uplinkFiles = nil
	if hook != nil {
		e.step = hook
	}
	return e
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// snapshot is the machine as text: rules, routes, addresses, sysctls and /etc.
func snapshot(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, family := range []int{4, 6} {
		rules, err := listRules(family)
		must(t, err)
		for i := range rules {
			fmt.Fprintf(&b, "rule %d %s proto %d\n", family, describeRule(&rules[i]), rules[i].Protocol)
		}
		routes, err := listRoutes(family, 0)
		must(t, err)
		var lines []string
		for _, r := range routes {
			if family == 6 && r.Table == unix.RT_TABLE_LOCAL && prefixOf(r.Dst, 6).Addr().IsPrivate() {
				continue // the tunnel's address gets it some time after it is there
			}
			lines = append(lines, fmt.Sprintf("route %d table %d type %d %s dev %d via %s src %s metric %d proto %d\n",
				family, r.Table, r.Type, prefixOf(r.Dst, family), r.LinkIndex, r.Gw, r.Src, r.Priority, r.Protocol))
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
		addrs, err := listAddrs(family)
		must(t, err)
		for _, a := range addrs {
			fmt.Fprintf(&b, "addr %d %s\n", a.LinkIndex, a.IPNet)
		}
	}
	settings, err := filepath.Glob(sysctlRoot + "ipv[46]/conf/*/[a-z]*")
	must(t, err)
	settings = append(settings, sysctlRoot+markAccepted, sysctlRoot+markReflected4, sysctlRoot+markReflected6)
	for _, name := range settings {
		if v, err := os.ReadFile(name); err == nil && !strings.Contains(name, "/conf/nws") && !strings.HasSuffix(name, "stable_secret") {
			fmt.Fprintf(&b, "%s %s\n", strings.TrimPrefix(name, sysctlRoot), bytes.TrimSpace(v))
		}
	}
	tables, err := readFilters()
	must(t, err)
	for _, table := range tables {
		fmt.Fprintf(&b, "nft %+v\n", table)
	}
	entries, err := os.ReadDir("/etc")
	must(t, err)
	for _, e := range entries {
		f, err := readFile("/etc/" + e.Name())
		must(t, err)
		fmt.Fprintf(&b, "/etc/%s %+v\n", e.Name(), f)
	}
	return b.String()
}

// diff shows the lines that only one of two texts has.
func diff(before, after string) string {
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	var out strings.Builder
	for _, l := range a {
		if !slices.Contains(b, l) {
			fmt.Fprintf(&out, "-%s\n", l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			fmt.Fprintf(&out, "+%s\n", l)
		}
	}
	if out.Len() == 0 && before != after {
		return "the same lines in another order or number"
	}
	return out.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
