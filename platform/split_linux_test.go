package platform

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// way is where a datagram comes out.
type way string

const (
	onWire   way = "on the wire"
	inTunnel way = "in the tunnel"
	nowhere  way = "nowhere"
)

// ways sends a datagram with each of the probes and tells where it comes out.
// Two marked datagrams, one behind it on the wire and one on the TUN, show that
// it has arrived nowhere else.
type ways struct {
	wire *sniffer
	tun  *os.File
	n    int
}

func (w *ways) of(t *testing.T, send func(payload string) error) way {
	t.Helper()
	w.n++
	payload := "way " + strings.Repeat("x", w.n) + "."
	err := send(payload)
	if contains(w.wire.frames(t), payload) {
		return onWire
	}
	if w.tun == nil || err != nil {
		return nowhere
	}
	must(t, w.tun.SetReadDeadline(time.Now()))
	buf := make([]byte, 2048)
	for {
		must(t, w.tun.SetReadDeadline(time.Now().Add(short)))
		n, err := w.tun.Read(buf)
		if err != nil {
			return nowhere
		}
		if bytes.Contains(buf[:n], []byte(payload)) {
			return inTunnel
		}
	}
}

func to4(dst string) func(string) error { return udp4(dst, nothing) }
func to6(dst string) func(string) error { return udp6(dst, nothing) }

// secondNetwork gives the uplink a private network, on its link.
func secondNetwork(t *testing.T, far *peer, mine, theirs string) {
	t.Helper()
	linkUp(t, nil, "eth0", mine)
	linkUp(t, far.handle, "wan", theirs)
}

// leak check 18: on the link and private, with and without the filter
func TestLocalNetwork(t *testing.T) {
	far := enterNamespaces(t)
	secondNetwork(t, far, "10.9.0.2/24", "10.9.0.1/24")
	secondNetwork(t, far, "fd09::2/64", "fd09::1/64")
	wire := newSniffer(t, far)
	w := &ways{wire: wire, tun: openTUN(t, "nws0")}
	for _, dst := range []string{"10.9.0.1:9", "192.0.2.1:53"} {
		must(t, to4(dst)("warm"))
	}
	must(t, to6("[fd09::1]:9")("warm"))
	wire.frames(t)
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	for _, filter := range []Filter{FilterOff, FilterOn} {
		for _, tc := range []struct {
			name string
			send func(string) error
			lan  way
		}{
			{"private, on the link", to4("10.9.0.1:9"), onWire},
			{"private, on the link, IPv6", to6("[fd09::1]:9"), onWire},
			{"private, behind a gateway", to4("10.10.0.1:9"), inTunnel},
			{"private, behind a gateway, IPv6", to6("[fd10::1]:9"), inTunnel},
			{"public, on the link", to4("192.0.2.1:9"), inTunnel},
			{"public", to4("203.0.113.9:9"), inTunnel},
		} {
			for _, lan := range []bool{false, true} {
				want := inTunnel
				if lan {
					want = tc.lan
				}
				cfg := testConfig()
				cfg.Filter, cfg.AllowLAN = filter, lan
				must(t, c.Set(cfg))
				if got := w.of(t, tc.send); got != want {
					t.Errorf("filter %v, %s, allowed %v: %s", filter, tc.name, lan, got)
				}
			}
		}
	}
	// The filter and the permission are still on: names are not for neighbours.
	for _, send := range []func(string) error{to4("10.9.0.1:53"), to6("[fd09::1]:53"), to4("10.9.0.1:853")} {
		if got := w.of(t, send); got != nowhere {
			t.Errorf("a question to a resolver on the link: %s", got)
		}
	}
}

func TestExcludeAndInclude(t *testing.T) {
	far := enterNamespaces(t)
	w := &ways{wire: newSniffer(t, far), tun: openTUN(t, "nws0")}
	warmNeighbours(t, w.wire)
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	reserved := prefixes("198.18.0.0/15", "fd6e:7773:7670::/48")
	web, web6, other, other6 := to4("203.0.113.9:80"), to6("[2001:db8:9::9]:80"), to4("198.51.100.1:80"), to6("[2001:db8:a::1]:80")
	name, name6 := to4("198.18.3.4:80"), to6("[fd6e:7773:7670::99]:80")
	asOther := func(send func(string) error) func(string) error { return asUser(1234, send) }
	for _, filter := range []Filter{FilterOff, FilterOn} {
		for _, tc := range []struct {
			what       string
			edit       func(*Config)
			send       func(string) error
			up, closed way
		}{
			{"excluded network", func(c *Config) { c.Exclude = prefixes("203.0.113.0/24") }, web, onWire, onWire},
			{"excluded network, IPv6", func(c *Config) { c.Exclude = prefixes("2001:db8:9::/48") }, web6, onWire, onWire},
			{"beside an excluded network", func(c *Config) { c.Exclude = prefixes("203.0.113.0/24") }, other, inTunnel, nowhere},
			{"reserved, in an excluded network", func(c *Config) { c.Exclude = prefixes("198.0.0.0/8") }, name, inTunnel, nowhere},
			{"included network", func(c *Config) { c.Include = prefixes("203.0.113.0/24", "2001:db8:9::/48") }, web, inTunnel, nowhere},
			{"included network, IPv6", func(c *Config) { c.Include = prefixes("2001:db8:9::/48") }, web6, inTunnel, nowhere},
			{"beside an included network", func(c *Config) { c.Include = prefixes("203.0.113.0/24") }, other, onWire, onWire},
			{"beside an included network, IPv6", func(c *Config) { c.Include = prefixes("203.0.113.0/24") }, other6, onWire, onWire},
			{"reserved, not included", func(c *Config) { c.Include = prefixes("203.0.113.0/24") }, name6, inTunnel, nowhere},
			{"excluded user", func(c *Config) { c.ExcludeUIDs = []uint32{1234} }, asOther(web), onWire, onWire},
			{"excluded user, IPv6", func(c *Config) { c.ExcludeUIDs = []uint32{1234} }, asOther(web6), onWire, onWire},
			{"excluded user, reserved", func(c *Config) { c.ExcludeUIDs = []uint32{1234} }, asOther(name), inTunnel, nowhere},
			{"beside an excluded user", func(c *Config) { c.ExcludeUIDs = []uint32{1234} }, web, inTunnel, nowhere},
			{"included user", func(c *Config) { c.IncludeUIDs = []uint32{1234} }, asOther(web), inTunnel, nowhere},
			{"included user, IPv6", func(c *Config) { c.IncludeUIDs = []uint32{1234} }, asOther(web6), inTunnel, nowhere},
			{"beside an included user", func(c *Config) { c.IncludeUIDs = []uint32{1234} }, web, onWire, onWire},
			{"beside an included user, reserved", func(c *Config) { c.IncludeUIDs = []uint32{1234} }, name, inTunnel, nowhere},
		} {
			cfg := testConfig()
			cfg.Filter, cfg.Reserved = filter, reserved
			tc.edit(&cfg)
			must(t, c.Set(cfg))
			if got := w.of(t, tc.send); got != tc.up {
				t.Errorf("filter %v, %s: %s, want %s", filter, tc.what, got, tc.up)
			}
			cfg.Device = ""
			must(t, c.Set(cfg))
			if got := w.of(t, tc.send); got != tc.closed {
				t.Errorf("filter %v, %s, closed: %s, want %s", filter, tc.what, got, tc.closed)
			}
		}
	}
}

// TestReservedNeverLeaves sends to addresses that only the tunnel knows by ways
// around it: with the mark, and after the tunnel is down.
func TestReservedNeverLeaves(t *testing.T) {
	far := enterNamespaces(t)
	w := &ways{wire: newSniffer(t, far)}
	warmNeighbours(t, w.wire)
	marked := udp4("198.18.3.4:80", setMarkOption)
	plain, plain6 := to4("198.18.3.4:80"), to6("[fd6e:7773:7670::99]:80")
	for _, send := range []func(string) error{marked, plain, plain6} {
		if got := w.of(t, send); got != onWire {
			t.Fatalf("without a tunnel: %s", got)
		}
	}
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	cfg := Config{Filter: FilterOn, Reserved: prefixes("198.18.0.0/15", "fd6e:7773:7670::/48"), Linger: time.Second}
	must(t, c.Set(cfg))
	if got := w.of(t, marked); got != nowhere {
		t.Errorf("marked: %s", got)
	}
	// Down, and up again before the time is over: the tunnel is not hindered.
	cfg.Linger = time.Hour
	must(t, c.Set(cfg))
	must(t, c.Set(Config{}))
	for _, send := range []func(string) error{marked, plain, plain6} {
		if err := send("soon after"); err == nil {
			t.Error("after down: no error")
		}
		if got := w.of(t, send); got != nowhere {
			t.Errorf("after down: %s", got)
		}
	}
	if got := w.of(t, to4("203.0.113.9:80")); got != onWire {
		t.Errorf("after down, to the rest: %s", got)
	}
	cfg.Linger = time.Second
	must(t, c.Set(cfg))
	if list := blocked(t); list != 0 {
		t.Errorf("up again: %d networks are still refused", list)
	}
	must(t, c.Set(Config{}))
	if blocked(t) != 2 {
		t.Errorf("down again: %d networks are refused", blocked(t))
	}
	// The kernel lifts it by itself.
	for late := time.Now().Add(long); blocked(t) > 0; {
		if time.Now().After(late) {
			t.Fatal("it does not end")
		}
	}
	if got := w.of(t, plain); got != onWire {
		t.Errorf("some time after down: %s", got)
	}
}

func blocked(t *testing.T) int {
	t.Helper()
	list, err := netlink.XfrmPolicyList(unix.AF_UNSPEC)
	must(t, err)
	return len(list)
}

// container is a namespace behind a bridge of ours, which forwards.
func container(t *testing.T) *peer {
	t.Helper()
	box := newPeer(t)
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(box.fd)}))
	br, err := netlink.LinkByName("br0")
	must(t, err)
	veth, err := netlink.LinkByName("veth0")
	must(t, err)
	must(t, netlink.LinkSetMaster(veth, br))
	linkUp(t, nil, "veth0")
	linkUp(t, nil, "br0", "172.30.0.1/24")
	linkUp(t, box.handle, "eth0", "172.30.0.2/24")
	must(t, box.handle.RouteAdd(&netlink.Route{Gw: net.ParseIP("172.30.0.1")}))
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	return box
}

// leak check 16: forwarded packets in every state
func TestForwarded(t *testing.T) {
	far := enterNamespaces(t)
	box := container(t)
	wan, err := far.handle.LinkByName("wan")
	must(t, err)
	back, err := netlink.ParseIPNet("172.30.0.0/24")
	must(t, err)
	must(t, far.handle.RouteAdd(&netlink.Route{LinkIndex: wan.Attrs().Index, Dst: back, Gw: net.ParseIP("192.0.2.2")}))
	w := &ways{wire: newSniffer(t, far), tun: openTUN(t, "nws0")}
	inBox := func(dst string) func(string) error {
		return func(p string) error {
			var err error
			box.run(t, func() error { err = sendUDP(dst, p); return nil })
			return err
		}
	}
	web := inBox("203.0.113.9:80")
	if got := w.of(t, web); got != onWire {
		t.Fatalf("without a tunnel: %s", got)
	}
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	for _, tc := range []struct {
		name string
		edit func(*Config)
		send func(string) error
		want way
	}{
		{"into the tunnel", func(*Config) {}, web, inTunnel},
		{"DNS too", func(*Config) {}, inBox("192.0.2.1:53"), inTunnel},
		{"blocked", func(c *Config) { c.ForwardBlock = true }, web, nowhere},
		{"closed", func(c *Config) { c.Device = "" }, web, nowhere},
		{"excluded", func(c *Config) { c.Exclude = prefixes("203.0.113.0/24") }, web, onWire},
		{"excluded, but blocked", func(c *Config) { c.Exclude, c.ForwardBlock = prefixes("203.0.113.0/24"), true }, web, nowhere},
	} {
		cfg := filterConfig()
		tc.edit(&cfg)
		must(t, c.Set(cfg))
		if got := w.of(t, tc.send); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
	cfg := filterConfig()
	cfg.ForwardBlock = true
	must(t, c.Set(cfg))
	box.run(t, func() error {
		conn, err := net.DialTimeout("tcp", "203.0.113.9:80", long)
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("blocked, a program in the container is told %v", err)
		}
		return nil
	})
	for _, strict := range []int{0, 1, 2} {
		must(t, writeSysctl(rpFilter, strict))
		must(t, c.Set(filterConfig()))
		checkAnswerFromTunnel(t, box, w.tun)
		checkHostAndContainer(t, box)
	}
}

// checkHostAndContainer has the machine talk with its container: that stays
// within the machine.
func checkHostAndContainer(t *testing.T, box *peer) {
	t.Helper()
	var l net.Listener
	box.run(t, func() error {
		var err error
		l, err = net.Listen("tcp", "172.30.0.2:8080")
		return err
	})
	defer l.Close()
	conn, err := net.DialTimeout("tcp", "172.30.0.2:8080", long)
	if err != nil {
		t.Errorf("the machine to its container: %v", err)
		return
	}
	conn.Close()
}

// TestBridgeWithAnUplink has a bridge that leads to a network, not to containers
// only: it is an uplink like others.
func TestBridgeWithAnUplink(t *testing.T) {
	for _, tc := range []struct {
		ports   string
		gateway bool
		want    string
	}{
		{"virtual", false, "[{br0 172.30.0.0/24}]"},
		{"virtual", true, "[]"},
		{"one is not", false, "[]"},
	} {
		f := plainFacts()
		f.names[5] = "br0"
		f.routes[4] = append(f.routes[4], route("172.30.0.0/24", mainTable, 5), route("169.254.0.0/16", mainTable, 5), route("192.0.2.0/24", mainTable, 5), route("10.9.0.0/24", mainTable, 2))
		if f.bridges = []string{"br0"}; tc.ports == "virtual" {
			f.localBridges = f.bridges
		}
		if tc.gateway {
			r := route("0.0.0.0/0", mainTable, 5)
			r.Gw = net.ParseIP("172.30.0.254")
			f.routes[4] = append(f.routes[4], r)
		}
		if got := fmt.Sprint(f.containers()); got != tc.want {
			t.Errorf("ports %s, gateway %v: %s, want %s", tc.ports, tc.gateway, got, tc.want)
		}
	}
}

// checkAnswerFromTunnel has the container ask, and the tunnel answer; what
// nobody asked for does not come out of the tunnel.
func checkAnswerFromTunnel(t *testing.T, box *peer, tun *os.File) {
	t.Helper()
	var conn net.PacketConn
	box.run(t, func() error {
		var err error
		if conn, err = net.ListenPacket("udp4", "172.30.0.2:4000"); err != nil {
			return err
		}
		_, err = conn.WriteTo([]byte("question"), &net.UDPAddr{IP: net.ParseIP("203.0.113.9"), Port: 53})
		return err
	})
	defer conn.Close()
	awaitTUN(t, tun, "question")
	for _, p := range [][]byte{packet4("203.0.113.10", "172.30.0.2", 53, 4000, "unasked"), packet4("203.0.113.9", "172.30.0.2", 53, 4000, "answer")} {
		_, err := tun.Write(p)
		must(t, err)
	}
	must(t, conn.SetReadDeadline(time.Now().Add(long)))
	buf := make([]byte, 100)
	n, _, err := conn.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "answer" {
		t.Errorf("the container reads %q, %v", buf[:n], err)
	}
}

// TestBypassCgroup uses the root of all cgroups, as a test may not make one: so
// every program leaves directly.
func TestBypassCgroup(t *testing.T) {
	far := enterNamespaces(t)
	w := &ways{wire: newSniffer(t, far), tun: openTUN(t, "nws0")}
	warmNeighbours(t, w.wire)
	c, err := open(stateDir(t), testLog(t), testEnv(nil))
	must(t, err)
	defer c.Close()
	cfg := filterConfig()
	cfg.BypassCgroup = "/nws-vpn-test-that-is-not-there"
	err = c.Set(cfg)
	root, rerr := cgroupRoot()
	if rerr != nil {
		if err == nil || !strings.Contains(err.Error(), "mount -t cgroup2") {
			t.Errorf("without cgroups of version 2: %v", err)
		}
		t.Skip("no cgroups of version 2 are mounted here")
	}
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "mkdir ") {
		t.Errorf("a cgroup that is not there: %v", err)
	}
	cfg.BypassCgroup = ""
	cfg.Reserved = prefixes("198.18.0.0/15")
	must(t, c.Set(cfg))
	var st unix.Stat_t
	must(t, unix.Stat(root, &st))
	f := *find(c.applied, (&filterChange{}).String()).(*filterChange)
	f.Spec.Cgroup = &cgroup{Path: "/", ID: st.Ino}
	must(t, f.apply(nil))
	if ok, err := f.inForce(nil); !ok || err != nil {
		t.Fatalf("in force: %v, %v", ok, err)
	}
	again := f // one that was made anew under the same name
	again.Spec.Cgroup = &cgroup{Path: "/", ID: st.Ino + 1}
	if ok, err := again.inForce(nil); ok || err != nil {
		t.Errorf("with another cgroup of that name, in force: %v, %v", ok, err)
	}
	for dst, want := range map[string]way{"203.0.113.9:80": onWire, "[2001:db8:9::9]:80": onWire, "198.18.0.2:53": inTunnel} {
		send := func(p string) error { return sendUDP(dst, p) }
		if got := w.of(t, send); got != want {
			t.Errorf("%s: %s, want %s", dst, got, want)
		}
	}
	must(t, sendUDP("203.0.113.9:80", "whose address"))
	for _, f := range w.wire.frames(t) {
		if bytes.Contains(f, []byte("whose address")) && !bytes.Equal(f[26:30], []byte{192, 0, 2, 2}) {
			t.Errorf("it leaves from %v", f[26:30])
		}
	}
}
