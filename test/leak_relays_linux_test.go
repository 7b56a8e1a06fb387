package test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// badRelays are what may listen in a relay's place.
var badRelays = []struct {
	name string
	talk func(net.Conn) error // nil: nobody listens
}{
	{"dead", nil},
	{"silent after accept", func(c net.Conn) error { _, err := io.Copy(io.Discard, c); return err }},
	{"resets", func(c net.Conn) error { return c.(*net.TCPConn).SetLinger(0) }},
	{"garbage", func(c net.Conn) error { _, err := c.Write(make([]byte, 4096)); return err }},
	{"resets in the middle of a frame", func(c net.Conn) error {
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			return err
		}
		_, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n\x81\x7e\xff")
		return err
	}},
	{"has no room", func(c net.Conn) error {
		_, err := io.WriteString(c, "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
		return err
	}},
}

func TestLeakBadRelays(t *testing.T) {
	tun := newTunnel(t)
	relay := tun.startRelay()
	tun.startExit()
	wire, probes := tun.proven()
	tun.startUp()
	for _, bad := range badRelays {
		tun.check(29, "the only relay: "+bad.name, func(t *testing.T, tun *tunnel) {
			wire.quiet(t, bad.name, func() {
				tun.kill(relay)
				stop := func() {}
				if bad.talk != nil {
					stop = tun.impostor(bad.talk)
				}
				tun.within(func(tun *tunnel) {
					tun.await("the loss is noticed", func() bool { return tun.status()["state"] != "connected" })
				})
				if state := tun.status()["state"]; state != "connecting" && state != "blocked" {
					t.Errorf("the state is %v", state)
				}
				wire.silent(t, bad.name, probes...)
				stop()
				relay = tun.startRelay()
				tun.recovers()
			})
		})
	}
}

// impostor listens in the relay's place until the returned function is called.
func (tun *tunnel) impostor(talk func(net.Conn) error) (stop func()) {
	tun.t.Helper()
	var l net.Listener
	tun.await("the relay's port is free", func() (ok bool) {
		var err error
		l, err = tun.Relay.Listen("tcp", world.RelayIP+":"+world.RelayPort)
		return err == nil
	})
	done := make(chan struct{})
	var open []net.Conn
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open = append(open, c)
			go func() { _ = talk(c); c.Close() }()
		}
	}()
	return func() {
		l.Close()
		<-done
		for _, c := range open {
			c.Close()
		}
	}
}

func TestLeakExitInTrouble(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	exit := tun.startExit()
	wire, probes := tun.proven()
	tun.startUp()
	tun.check(30, "the exit loses its uplink, and gets it back", func(t *testing.T, tun *tunnel) {
		way := netlab.Way{To: "0.0.0.0/0", Device: "eth0", Via: "10.77.3.1"}
		wire.quiet(t, "without an uplink", func() {
			// The way to the relay stays, that to the internet goes.
			must(t, tun.Exit.AddWay(netlab.Way{To: "10.77.2.0/24", Device: "eth0", Via: "10.77.3.1"}))
			must(t, tun.Exit.RemoveWay(way))
			tun.within(func(tun *tunnel) {
				_, err := tun.Client.DialContext(tun.ctx, "tcp", web4)
				if err == nil || tun.ctx.Err() != nil {
					t.Errorf("a program is told %v", err)
				}
			})
			wire.silent(t, "without an uplink", probes...)
			must(t, tun.Exit.AddWay(way))
			tun.recovers()
		})
	})
	tun.check(30, "the exit vanishes, and comes back", func(t *testing.T, tun *tunnel) {
		wire.quiet(t, "without an exit", func() {
			tun.kill(exit)
			wire.silent(t, "without an exit", probes...)
			tun.startExit()
			tun.recovers()
		})
	})
}

func TestLeakRelayNames(t *testing.T) {
	tun := served(t)
	const name = "moving.isp.example"
	zone := func(ip string) world.Zone {
		return world.Zone{name: {Addresses: []netip.Addr{netip.MustParseAddr(ip)}}}
	}
	tun.Uplink.Replace(zone(world.RelayIP))
	const second = "10.77.2.3"
	must(t, tun.Relay.AddAddress("eth0", second+"/24"))
	wire := tun.judge()
	wire.relays = append(wire.relays, netip.MustParseAddrPort(second+":7777"), netip.MustParseAddrPort(second+":80"), netip.MustParseAddrPort(world.WebIP+":7777"))
	probes := plainProbes()
	all := wire.prove(probes...)
	wire.allow(func(p netlab.Packet) bool {
		return p.Protocol == unix.IPPROTO_UDP && p.Destination.String() == world.RouterIP+":53"
	})
	up := tun.startUpNamed(name)
	tun.check(31, "the relay's address changes", func(t *testing.T, tun *tunnel) {
		wire.quiet(t, "moving", func() {
			tun.works(t, "before")
			p, err := tun.StartRelayAt(tun.ctx, tun.Relay, second+":7777")
			tun.started("relay", p, err)
			exit, err := tun.StartExit(tun.ctx, tun.keyFile, world.Options{Args: []string{"--relay", "ws://" + second + ":7777", "--state-dir", "/run/second.state"}})
			tun.started("exit", exit, err)
			tun.Uplink.Replace(zone(second))
			tun.kill(tun.processes["relay"])
			tun.recovers()
			wire.allow(nil)
			all.silent(t, "moved", probes...)
		})
	})
	tun.takeDown(up)
	tun.check(31, "a poisoned name, and a false certificate", func(t *testing.T, tun *tunnel) {
		site := httptest.NewUnstartedServer(http.NotFoundHandler())
		defer site.Close()
		l, err := tun.Internet.Listen("tcp", world.WebIP+":7777")
		must(t, err)
		site.Listener.Close()
		site.Listener = l
		site.TLS = &tls.Config{}
		site.StartTLS()
		wire.settle()
		tun.Uplink.Replace(zone(world.WebIP))
		wire.allow(func(p netlab.Packet) bool {
			return p.Protocol == unix.IPPROTO_UDP && p.Destination.String() == world.RouterIP+":53"
		})
		wire.quiet(t, "poisoned", func() {
			res, err := tun.Run(tun.ctx, tun.Client, "up", "--exit", tun.key, "--relay", "wss://"+name+":7777", "--state-dir", world.StateDir)
			if err != nil || res.Code == 0 || !strings.Contains(res.Output, "certificate") {
				t.Errorf("up ended with code %d, %v: %s", res.Code, err, res.Output)
			}
		})
	})
}

func (tun *tunnel) startUpNamed(name string) *netlab.Process {
	tun.t.Helper()
	p, err := tun.Start(tun.Client, world.Options{}, "up", "--exit", tun.key, "--relay", "ws://"+name+":7777", "--state-dir", world.StateDir)
	tun.started("up", p, err)
	tun.awaitLine(p, "connected to")
	return p
}

func TestLeakRoaming(t *testing.T) {
	tun := served(t)
	wire, probes := tun.proven()
	up := tun.startUp()
	tun.check(32, "another address and gateway in mid-download", func(t *testing.T, tun *tunnel) {
		wire.quiet(t, "roaming", func() {
			finish := tun.startDownload("20000000", 20_000_000)
			must(t, tun.Client.SetLink("eth0", false))
			must(t, tun.Client.RemoveAddress("eth0", world.ClientIP+"/24"))
			must(t, tun.Client.AddAddress("eth0", "10.79.1.2/24"))
			must(t, tun.Router.AddAddress("client", "10.79.1.1/24"))
			must(t, tun.Client.SetLink("eth0", true))
			must(t, tun.Client.Route("0.0.0.0/0", "10.79.1.1"))
			if err := finish(); err != nil {
				t.Error("the download:", err)
			}
			wire.silent(t, "elsewhere", probes[:8]...)
			tun.works(t, "elsewhere")
			if got, err := tun.Client.ReadFile("/etc/resolv.conf"); err != nil || !strings.Contains(string(got), "198.18.") {
				t.Errorf("resolv.conf is %q, %v", got, err)
			}
		})
	})
	tun.check(33, "stopped for a while, as in sleep", func(t *testing.T, tun *tunnel) {
		wire.quiet(t, "asleep", func() {
			must(t, up.Signal(syscall.SIGSTOP))
			must(t, tun.Client.SetLink("eth0", false))
			must(t, tun.Client.SetLink("eth0", true))
			must(t, tun.Client.Route("0.0.0.0/0", "10.79.1.1"))
			wire.silent(t, "asleep", probes[:8]...)
			must(t, up.Signal(syscall.SIGCONT))
			tun.recovers()
		})
	})
}

// leak check 33 is open: the clocks of a time namespace are set before its first process, and the wall clock is in none: nothing jumps for a process that runs already. How a jump is noticed is tested without a machine

func TestLeakBadLink(t *testing.T) {
	t.Parallel() // it waits more than it works
	tun := served(t)
	cable, err := tun.AddBadUplink("eth1", 7)
	must(t, err)
	must(t, tun.Client.RemoveWay(netlab.Way{To: "0.0.0.0/0", Device: "eth0", Via: world.RouterIP}))
	must(t, tun.Client.AddWay(netlab.Way{To: "0.0.0.0/0", Device: "eth1", Via: world.Router2IP}))
	wire := tun.judge("eth0", "eth1")
	all := wire.prove(plainProbes()[:4]...)
	tun.startUp()
	for _, c := range []struct {
		what  string
		fault netlab.Fault
		size  int
	}{
		{"5 % lost, 1 % twice, some out of order", netlab.Fault{Loss: 0.05, Duplicate: 0.01, Reorder: 0.02, Delay: 5 * time.Millisecond}, 1_000_000},
		{"300 ms", netlab.Fault{Delay: 150 * time.Millisecond}, 100_000},
		// It says nothing: that the relay is silent shows after some seconds, and
		// it is dialed anew, with small segments.
		{"no packet over 1280 bytes", netlab.Fault{MTU: 1280}, 200_000},
	} {
		tun.check(34, "a bad link: "+c.what, func(t *testing.T, tun *tunnel) {
			cable.Set(c.fault)
			defer cable.Set(netlab.Fault{})
			wire.quiet(t, c.what, func() {
				begun := time.Now()
				if err := tun.download(fmt.Sprintf("http://%s/file?size=%d", world.WebIP, c.size), int64(c.size)); err != nil {
					t.Error(err)
				}
				t.Logf("%d bytes took %v", c.size, time.Since(begun).Round(time.Millisecond))
				all.silent(t, c.what, plainProbes()[:4]...)
			})
		})
	}
}
