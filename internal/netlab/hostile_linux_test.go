package netlab

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/await"
)

// pair is two hosts on one link, and a sniffer of what a sends.
func pair(t *testing.T) (a, b *Host, seen func() []Packet) {
	t.Helper()
	lab, a := newTestHost(t)
	b, err := lab.Host("b")
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Link(Port(a, "eth0", "10.1.0.2/24", "fd01::2/64"), Port(b, "eth0", "10.1.0.1/24", "fd01::1/64")); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var list []Packet
	s, err := a.Sniff("eth0", func(p Packet) {
		mu.Lock()
		defer mu.Unlock()
		if p.Outgoing {
			p.Data = bytes.Clone(p.Data)
			list = append(list, p)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return a, b, func() []Packet {
		s.Sync()
		mu.Lock()
		defer mu.Unlock()
		return list
	}
}

func send(h *Host, to, text string) error {
	c, err := h.DialContext(context.Background(), "udp", to)
	if err == nil {
		_, err = c.Write([]byte(text))
		c.Close()
	}
	return err
}

func TestSyncHasSeenAll(t *testing.T) {
	a, _, seen := pair(t)
	for i := range 50 {
		mark := "mark " + strings.Repeat("x", i) + "."
		if err := send(a, "10.1.0.1:9", mark); err != nil {
			t.Fatal(err)
		}
		// The first waits for the neighbour's address. What the kernel sends by itself
		// may come after a probe.
		isProbe := func(p Packet) bool { return bytes.HasSuffix(p.Data, []byte(mark)) }
		if list := seen(); i > 0 && !slices.ContainsFunc(list, isProbe) {
			t.Fatalf("probe %d is not among the %d frames seen", i, len(list))
		}
	}
}

func TestUsers(t *testing.T) {
	_, h := newTestHost(t)
	mark := func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if unix.Getuid() != 65534 {
			return errors.New("another user")
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 1)
	}
	if err := h.DoAs(User{ID: 65534}, mark); err != unix.EPERM {
		t.Errorf("a plain user sets a mark: %v", err)
	}
	if err := h.DoAs(User{65534, []int{unix.CAP_NET_RAW}}, mark); err != nil {
		t.Errorf("with CAP_NET_RAW: %v", err)
	}
	if err := h.Do(func() error { return nil }); err != nil || unix.Getuid() != 0 {
		t.Errorf("the process is user %d, %v", unix.Getuid(), err)
	}
}

func TestForgedPacketsAreTakenForReal(t *testing.T) {
	a, b, seen := pair(t)
	mac, err := a.HardwareAddr("eth0")
	if err != nil {
		t.Fatal(err)
	}
	own, err := b.HardwareAddr("eth0")
	if err != nil {
		t.Fatal(err)
	}
	var from, to = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")
	var from6, to6 = netip.MustParseAddr("fd01::1"), netip.MustParseAddr("fd01::2")
	server, err := a.ListenPacket("udp", "10.1.0.2:5000")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, f := range []struct {
		name  string
		ether uint16
		to    net.HardwareAddr
		data  []byte
	}{
		{"SYN", 0x0800, mac, ForgeTCP(netip.AddrPortFrom(from, 1), netip.AddrPortFrom(to, 2), SYN)},
		{"SYN on IPv6", 0x86dd, mac, ForgeTCP(netip.AddrPortFrom(from6, 1), netip.AddrPortFrom(to6, 2), SYN)},
		{"SYN and ACK", 0x0800, mac, ForgeTCP(netip.AddrPortFrom(from, 1), netip.AddrPortFrom(to, 3), SYN|ACK)},
		{"ARP", 0x0806, nil, ForgeARP(own, from, to)},
		{"solicitation", 0x86dd, nil, ForgeSolicitation(own, from6, to6)},
	} {
		before := len(seen())
		if err := b.SendFrame("eth0", f.to, f.ether, f.data); err != nil {
			t.Fatal(err)
		}
		await.That(t, f.name+" is answered", func() bool { return len(seen()) > before })
	}
	udp := ForgeUDP(netip.MustParseAddrPort("10.1.0.1:4000"), netip.MustParseAddrPort("10.1.0.2:5000"), []byte("forged"))
	if err := b.SendFrame("eth0", mac, 0x0800, udp); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, who, err := server.ReadFrom(buf); err != nil || string(buf[:n]) != "forged" || who.String() != "10.1.0.1:4000" {
		t.Errorf("got %q from %v, %v", buf[:n], who, err)
	}
}

func TestAdvertisementsAreBelieved(t *testing.T) {
	a, b, _ := pair(t)
	for name, value := range map[string]string{"accept_ra": "2", "accept_ra_rt_info_max_plen": "128"} {
		if err := a.Sysctl("net/ipv6/conf/eth0/"+name, value); err != nil {
			t.Skip("this kernel has no such setting:", err)
		}
	}
	linkLocal, err := b.LinkLocal("eth0")
	if err != nil {
		t.Fatal(err)
	}
	ra := ForgeAdvertisement(linkLocal, 600, netip.MustParsePrefix("2001:db8:5::/48"))
	if err := b.SendFrame("eth0", nil, 0x86dd, ra); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"::/0", "2001:db8:5::/48"} {
		await.That(t, "there is a route to "+to, func() bool {
			has, err := a.HasRoute(to)
			if err != nil {
				t.Fatal(err)
			}
			return has
		})
	}
}

func TestBadCable(t *testing.T) {
	lab, a := newTestHost(t)
	b, err := lab.Host("b")
	if err != nil {
		t.Fatal(err)
	}
	c, err := lab.Cable(Port(a, "eth0", "10.1.0.2/24"), Port(b, "eth0", "10.1.0.1/24"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := b.ListenPacket("udp", "10.1.0.1:5000")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var mu sync.Mutex
	got := map[string]int{}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, _, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			mu.Lock()
			got[string(buf[:n])]++
			mu.Unlock()
		}
	}()
	arrived := func(text string) int {
		mu.Lock()
		defer mu.Unlock()
		return got[text]
	}
	transfer := func(f Fault, text string) int {
		t.Helper()
		c.Set(f)
		for range 200 {
			if err := send(a, "10.1.0.1:5000", text); err != nil {
				t.Fatal(err)
			}
		}
		end := "end " + text[:3]
		await.That(t, "the end arrives", func() bool {
			if err := send(a, "10.1.0.1:5000", end); err != nil {
				t.Error(err)
			}
			return arrived(end) > 0
		})
		return arrived(text)
	}
	if n := transfer(Fault{}, "all"); n != 200 {
		t.Errorf("a good cable carried %d of 200", n)
	}
	if n := transfer(Fault{Loss: 0.5}, "half"); n == 0 || n == 200 {
		t.Errorf("a lossy cable carried %d of 200", n)
	}
	if n := transfer(Fault{Duplicate: 0.5}, "double"); n <= 200 {
		t.Errorf("a cable that duplicates carried %d of 200", n)
	}
	if n := transfer(Fault{MTU: 1000}, strings.Repeat("long", 300)); n != 0 {
		t.Errorf("%d packets longer than the MTU passed", n)
	}
	start := time.Now()
	c.Set(Fault{Delay: 50 * time.Millisecond})
	if err := send(a, "10.1.0.1:5000", "late"); err != nil {
		t.Fatal(err)
	}
	await.That(t, "the late one arrives", func() bool { return arrived("late") > 0 })
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("a delay of 50 ms took %v", took)
	}
	listener, err := b.Listen("tcp", "10.1.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if conn, err := a.DialContext(t.Context(), "tcp", "10.1.0.1:80"); err != nil {
		t.Error("TCP over a cable:", err)
	} else {
		conn.Close()
	}
}

func TestAHostThatAnswersForAll(t *testing.T) {
	a, b, _ := pair(t)
	if err := errors.Join(a.Route("0.0.0.0/0", "10.1.0.1"), b.Forward()); err != nil {
		t.Fatal(err)
	}
	l, err := b.ListenForAll("tcp4", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, answers := range []bool{false, true} {
		c, err := a.DialContext(t.Context(), "tcp", "203.0.113.7:80")
		if err == nil {
			c.Close()
		}
		if (err == nil) != answers {
			t.Errorf("a connection to elsewhere: %v", err)
		}
		if !answers {
			if err := b.AnswerForAll("eth0"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestLinksRulesAndRoutesChange(t *testing.T) {
	a, _, _ := pair(t)
	before, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	way := Way{To: "0.0.0.0/0", Device: "eth0", Via: "10.1.0.1", Metric: 5}
	rule := Rule{Priority: 100, Table: 254}
	for _, c := range []struct {
		name         string
		make, unmake func() error
	}{
		{"route", func() error { return a.AddWay(way) }, func() error { return a.RemoveWay(way) }},
		{"rule", func() error { return a.AddRule(rule) }, func() error { return a.RemoveRule(rule) }},
		{"flush", func() error { return a.AddRule(rule) }, func() error { _, err := a.FlushRules(); return err }},
		{"address", func() error { return a.AddAddress("eth0", "192.0.2.1/24") }, func() error { return a.RemoveAddress("eth0", "192.0.2.1/24") }},
		{"name", func() error { return a.RenameLink("eth0", "wan0") }, func() error { return a.RenameLink("wan0", "eth0") }},
		{"filter", func() error { return a.AddFilter("others") }, func() error { _, err := a.FlushFilters(); return err }},
		{"bridge", func() error { return a.Bridge("br0", []string{"172.30.0.1/24"}) }, func() error { return a.RemoveLink("br0") }},
	} {
		if err := c.make(); err != nil {
			t.Fatal(c.name, err)
		}
		if now, err := a.Snapshot(); err != nil || now == before {
			t.Errorf("%s: nothing changed, %v", c.name, err)
		}
		if err := c.unmake(); err != nil {
			t.Fatal(c.name, err)
		}
		if now, err := a.Snapshot(); err != nil || now != before {
			t.Errorf("%s: not undone, %v:\n%s\nbefore:\n%s", c.name, err, now, before)
		}
	}
}
