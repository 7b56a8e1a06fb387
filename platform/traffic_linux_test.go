package platform

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sniffer sees every frame that comes in from the client, on the other end of
// its uplink.
type sniffer struct {
	file   *os.File
	fences int
}

func newSniffer(t *testing.T, far *peer) *sniffer {
	t.Helper()
	s := new(sniffer)
	far.run(t, func() error {
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)) // htons
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
		if err != nil {
			return err
		}
		s.file = os.NewFile(uintptr(fd), "sniffer")
		wan, err := net.InterfaceByName("wan")
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: wan.Index})
	})
	t.Cleanup(func() { s.file.Close() })
	return s
}

// frames returns what has come in since the last call. It sends a marked packet
// after it and waits for that: frames keep their order.
func (s *sniffer) frames(t *testing.T) [][]byte {
	t.Helper()
	s.fences++
	fence := fmt.Sprintf("fence %d of the test", s.fences)
	must(t, probe{dst: "203.0.113.9:9", marked: true}.send(fence))
	must(t, s.file.SetReadDeadline(time.Now().Add(20*time.Second)))
	var frames [][]byte
	for {
		buf := make([]byte, 2048)
		n, err := s.file.Read(buf)
		if err != nil {
			t.Fatalf("wait for a marked packet on the wire: %v", err)
		}
		if bytes.Contains(buf[:n], []byte(fence)) {
			return frames
		}
		frames = append(frames, buf[:n])
	}
}

func contains(frames [][]byte, payload string) bool {
	for _, f := range frames {
		if bytes.Contains(f, []byte(payload)) {
			return true
		}
	}
	return false
}

// probe is a way to send a datagram.
type probe struct {
	name   string
	dst    string
	marked bool
	bind   string // source address
}

func (p probe) send(payload string) error {
	d := net.Dialer{}
	if p.marked {
		d.Control = Control(0)
	}
	if p.bind != "" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(p.bind))
	}
	conn, err := d.Dial("udp", p.dst)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(payload))
	return err
}

// awaitTUN reads packets from the TUN until one has the payload.
func awaitTUN(t *testing.T, tun *os.File, payload string) {
	t.Helper()
	must(t, tun.SetReadDeadline(time.Now().Add(20*time.Second)))
	buf := make([]byte, 2048)
	for {
		n, err := tun.Read(buf)
		if err != nil {
			t.Fatalf("wait for %q on the TUN: %v", payload, err)
		}
		if bytes.Contains(buf[:n], []byte(payload)) {
			return
		}
	}
}

// probes are what programs that know nothing of the tunnel send.
var probes = []probe{
	{name: "IPv4", dst: "203.0.113.9:4000"},
	{name: "IPv4 DNS", dst: "203.0.113.9:53"},
	{name: "IPv4 on link", dst: "192.0.2.1:4000"},
	{name: "IPv4 name server on link", dst: "192.0.2.1:53"},
	{name: "IPv4 from the uplink's address", dst: "203.0.113.9:4000", bind: "192.0.2.2:0"},
	{name: "IPv6", dst: "[2001:db8:9::9]:4000"},
	{name: "IPv6 on link", dst: "[2001:db8::1]:4000"},
	{name: "IPv6 from the uplink's address", dst: "[2001:db8:9::9]:53", bind: "[2001:db8::2]:0"},
}

// sendAll sends every probe and returns the frames on the wire. The payloads
// are the label and the probe's name.
func sendAll(t *testing.T, s *sniffer, label string, check func(p probe, payload string, err error)) [][]byte {
	t.Helper()
	for _, p := range probes {
		payload := fmt.Sprintf("probe %s: %s.", label, p.name)
		check(p, payload, p.send(payload))
	}
	return s.frames(t)
}

// leak check 1: more specific routes in main
func TestTrafficGoesIntoTheTunnelOrNowhere(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)

	// First, that the judge can see.
	seen := sendAll(t, wire, "off", func(p probe, _ string, err error) { must(t, err) })
	for _, p := range probes {
		if !contains(seen, "probe off: "+p.name+".") {
			t.Fatalf("%s: without a tunnel, the probe is not seen on the wire", p.name)
		}
	}

	tun := openTUN(t, "nws0")
	dir := stateDir(t)
	c, err := New(dir, Options{Log: testLog(t)})
	must(t, err)
	must(t, c.Set(testConfig()))
	inTunnel := func(label string) {
		t.Helper()
		seen := sendAll(t, wire, label, func(p probe, payload string, err error) {
			must(t, err)
			awaitTUN(t, tun, payload)
		})
		if contains(seen, "probe "+label) {
			t.Errorf("%s: a probe is on the wire", label)
		}
	}
	inTunnel("up")

	// What a DHCP server (option 121) or a router may put into main.
	for _, dst := range []string{"0.0.0.0/1", "128.0.0.0/1", "203.0.113.0/24", "203.0.113.9/32"} {
		addRoute(t, dst, "192.0.2.1")
	}
	addRoute(t, "192.0.2.1/32", "")
	for _, dst := range []string{"2000::/3", "2001:db8:9::/48", "2001:db8:9::9/128"} {
		addRoute(t, dst, "2001:db8::1")
	}
	inTunnel("more specific routes in main")

	for _, p := range probes {
		p.marked = true
		payload := "marked probe: " + p.name + "."
		must(t, p.send(payload))
		if !contains(wire.frames(t), payload) {
			t.Errorf("%s: marked, the probe is not on the wire", p.name)
		}
	}

	// The TUN goes, as when the process is killed.
	tun.Close()
	refused := func(label string) {
		t.Helper()
		seen := sendAll(t, wire, label, func(p probe, payload string, err error) {
			if !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) {
				t.Errorf("%s: %s: the program is told %v", label, p.name, err)
			}
		})
		if contains(seen, "probe "+label) {
			t.Errorf("%s: a probe is on the wire", label)
		}
	}
	refused("without the TUN")

	must(t, c.Close())
	seen = sendAll(t, wire, "down", func(p probe, _ string, err error) { must(t, err) })
	if !contains(seen, "probe down") {
		t.Error("after down, nothing goes out")
	}
}

// TestNoWindowBetweenCrashAndRestart kills a tunnel that is up, then starts
// another: from one to the other no probe may get out.
//
// leak check 20: probes at every step of taking over
func TestNoWindowBetweenCrashAndRestart(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)
	dir := stateDir(t)
	all := runVictim(t, dir, 0)
	for at, p := range all {
		if p == "before verifying" { // of Set: everything is in force
			runVictim(t, dir, at+1)
			break
		}
	}
	closed := func(label string) {
		t.Helper()
		if seen := sendAll(t, wire, label, func(probe, string, error) {}); contains(seen, "probe "+label) {
			t.Errorf("%s: a probe is on the wire", label)
		}
		if seen := bypassAll(t, wire, label, func(bypass, error) {}); len(seen) != 0 {
			t.Errorf("%s: on the wire: %v", label, seen)
		}
	}
	closed("killed")
	e := testEnv(func(point string) error {
		closed("taken over " + point)
		return nil
	})
	c, err := open(dir, testLog(t), e)
	must(t, err)
	closed("opened")
	if got := fmt.Sprint(c.UplinkDNS()); got != "[192.0.2.53]" {
		t.Errorf("after a crash, the uplink's name servers are %s", got)
	}
	openTUN(t, "nws0")
	must(t, c.Set(filterConfig()))
	closed("up")
	checkUp(t)
	e.step = func(string) error { return nil }
	must(t, c.Close())
}

func TestFamilyWithoutAddressIsRefused(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)
	tun := openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	cfg := testConfig()
	cfg.Addresses = cfg.Addresses[:1]
	must(t, c.Set(cfg))
	seen := sendAll(t, wire, "IPv4 only", func(p probe, payload string, err error) {
		if strings.HasPrefix(p.name, "IPv4") {
			must(t, err)
			awaitTUN(t, tun, payload)
		} else if err == nil {
			t.Errorf("%s: not refused", p.name)
		}
	})
	if contains(seen, "probe IPv4 only") {
		t.Error("a probe is on the wire")
	}
}

// TestIPv6SwitchedOff is a machine with IPv6 off for new devices, but on for the
// uplink: it must be refused there, not let past.
func TestIPv6SwitchedOff(t *testing.T) {
	far := enterNamespaces(t)
	wire := newSniffer(t, far)
	must(t, writeSysctl("ipv6/conf/default/disable_ipv6", 1))
	openTUN(t, "nws0")
	before := snapshot(t)
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	must(t, c.Set(testConfig()))
	if n := c.Notes(); len(n) != 1 || !strings.Contains(n[0], "IPv6 is switched off") {
		t.Errorf("notes are %q", n)
	}
	seen := sendAll(t, wire, "IPv6 off", func(p probe, payload string, err error) {
		if strings.HasPrefix(p.name, "IPv6") && err == nil {
			t.Errorf("%s: not refused", p.name)
		}
	})
	if contains(seen, "probe IPv6 off") {
		t.Error("a probe is on the wire")
	}
	must(t, c.Close())
	if d := diff(before, snapshot(t)); d != "" {
		t.Errorf("close left a difference:\n%s", d)
	}
}

// TestStrictReversePath connects to a relay where packets must come in by the
// way the answer would go out: each combination of the two settings.
//
// leak check 10: all nine combinations of rp_filter
func TestStrictReversePath(t *testing.T) {
	far := enterNamespaces(t)
	var listener net.Listener
	far.run(t, func() error {
		var err error
		listener, err = net.Listen("tcp", "203.0.113.9:7777")
		return err
	})
	defer listener.Close()
	dial := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		conn, err := (&net.Dialer{Control: Control(DefaultMark)}).DialContext(ctx, "tcp", "203.0.113.9:7777")
		if err == nil {
			conn.Close()
		}
		return err
	}
	openTUN(t, "nws0")
	c, err := New(stateDir(t), Options{Log: testLog(t)})
	must(t, err)
	defer c.Close()
	for _, all := range []int{0, 1, 2} {
		for _, own := range []int{0, 1, 2} {
			must(t, writeSysctl(rpFilter, all))
			must(t, writeSysctl("ipv4/conf/eth0/rp_filter", own))
			// The packet filter needs no looser check.
			none := filterConfig()
			none.Device = ""
			for _, cfg := range []Config{none, filterConfig()} {
				must(t, c.Set(cfg))
				if err := dial(20 * time.Second); err != nil {
					t.Errorf("with the filter, device %q, all %d, eth0 %d: %v", cfg.Device, all, own, err)
				}
				if v, err := readSysctl(rpFilter); err != nil || v != all {
					t.Errorf("with the filter, all %d became %d, %v", all, v, err)
				}
			}
			must(t, c.Set(testConfig()))
			if err := dial(20 * time.Second); err != nil {
				t.Errorf("all %d, eth0 %d: %v", all, own, err)
			}
			if all == 1 && own == 1 {
				// That the check would have caught it.
				must(t, writeSysctl(rpFilter, 1))
				if dial(300*time.Millisecond) == nil {
					t.Error("a strict check lets the relay's answer in")
				}
				must(t, writeSysctl(rpFilter, 2))
			}
			must(t, c.Set(Config{}))
			if v, err := readSysctl(rpFilter); err != nil || v != all {
				t.Errorf("all %d, eth0 %d: after down, all is %d, %v", all, own, v, err)
			}
		}
	}
}

func TestControlMarksTheSocket(t *testing.T) {
	enterNamespaces(t)
	for _, tc := range []struct{ mark, want uint32 }{{0, DefaultMark}, {0x1234, 0x1234}} {
		conn, err := (&net.ListenConfig{Control: Control(tc.mark)}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		must(t, err)
		raw, err := conn.(*net.UDPConn).SyscallConn()
		must(t, err)
		must(t, raw.Control(func(fd uintptr) {
			got, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK)
			if err != nil || uint32(got) != tc.want {
				t.Errorf("mark %#x: the socket has %#x, %v", tc.mark, got, err)
			}
		}))
		conn.Close()
	}
	// The thread loses its capabilities, and ends with the test.
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	must(t, unix.Capset(&hdr, &none[0]))
	_, err := (&net.Dialer{Control: Control(0)}).Dial("udp", "127.0.0.1:9")
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("without the capability: %v", err)
	}
}
