package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// publicOnLink are probes to a network that only a liar would put on the link.
func publicOnLink() []probe {
	return []probe{
		udp("a public network on the link", world.LocalPublicIP+":7"), tcp("TCP to a public network on the link", world.LocalPublicIP+":7"),
		udp("a public network on the link on IPv6", "["+world.LocalPublicIP6+"]:7"), tcp("TCP to a public network on the link on IPv6", "["+world.LocalPublicIP6+"]:7"),
		udp("a public network on the link, bound", world.LocalPublicIP+":7", toDevice("eth0")),
		ping("ping a public network on the link", world.LocalPublicIP),
	}
}

// up starts the client with lines in the section [up] of its configuration.
func (tun *tunnel) startConfigured(lines string, args ...string) *netlab.Process {
	tun.t.Helper()
	return tun.startUp(append([]string{"--config", tun.configure(lines)}, args...)...)
}

// configure writes a configuration and returns its path.
func (tun *tunnel) configure(lines string) string {
	tun.t.Helper()
	const path = "/run/nws.toml"
	must(tun.t, tun.Client.WriteFile(path, []byte("[up]\n"+lines+"\n")))
	return path
}

func TestLeakLocalNetwork(t *testing.T) {
	tun := served(t)
	link := tun.linkIndex("eth0")
	must(t, tun.AddLocalPublic())
	must(t, tun.Client.AddAddress("eth0", world.LocalPublicNet))
	must(t, tun.Client.AddAddress("eth0", world.LocalPublicNet6))
	must(t, tun.ServeEcho(tun.Router, world.RouterIP, world.PortEcho))
	must(t, tun.ServeEcho(tun.Router, world.RouterIP6, world.PortEcho))
	wire := tun.judge()
	// What is beyond the router stays closed with allow_lan, and so does what
	// is private but not on the link.
	beyond := slices.DeleteFunc(slices.Concat(plainProbes(), boundProbes(link, tun.routerLinkLocal())), func(p probe) bool {
		a := p.to.Addr()
		return a.IsLinkLocalUnicast() || a.String() == world.RouterIP || a.String() == world.RouterIP6
	})
	far := groupProbes(link)[2:4] // multicast that routers pass on
	public := publicOnLink()
	dns := slices.DeleteFunc(dnsProbes(link), func(p probe) bool { return p.to.Addr().IsMulticast() || p.to.Port() == 137 })
	all := wire.prove(slices.Concat(beyond, public, far, dns)...)

	tun.startUp()
	tun.check(2, "a public network on the link, allow_lan off", func(t *testing.T, tun *tunnel) {
		all.silent(t, "allow_lan off", public...)
	})
	tun.check(18, "allow_lan off: the neighbours are closed", func(t *testing.T, tun *tunnel) {
		wire.quiet(t, "the router", func() {
			if c, err := tun.Client.DialContext(tun.ctx, "tcp", world.RouterIP+":7"); err == nil {
				c.Close()
				t.Error("the router can be reached")
			}
		})
	})
	tun.down()
	tun.startConfigured("allow_lan = true")
	wire.allow(toNeighbours)
	tun.check(2, "a public network on the link, allow_lan on", func(t *testing.T, tun *tunnel) {
		all.silent(t, "allow_lan on", public...)
	})
	tun.check(18, "allow_lan opens what is on the link and private, and nothing else", func(t *testing.T, tun *tunnel) {
		all.silent(t, "allow_lan on", slices.Concat(beyond, far)...)
		for _, ip := range []string{world.RouterIP, world.RouterIP6} {
			for _, network := range []string{"tcp", "udp"} {
				if err := echoes(tun, tun.Client, network, net.JoinHostPort(ip, world.PortEcho)); err != nil {
					t.Errorf("the neighbour %s: %v", ip, err)
				}
			}
		}
		tun.works(t, "allow_lan on")
	})
	tun.check(39, "allow_lan: DNS to the network's resolver is refused", func(t *testing.T, tun *tunnel) {
		wire.allow(nil)
		all.silent(t, "allow_lan on", dns...)
	})
}

// toNeighbours are packets that allow_lan lets out.
func toNeighbours(p netlab.Packet) bool {
	a := p.Destination.Addr()
	return netip.MustParsePrefix("10.77.1.0/24").Contains(a) || netip.MustParsePrefix("fd77:1::/64").Contains(a) || a.IsLinkLocalUnicast() ||
		a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast() || a.String() == "239.255.255.250" || a.String() == "255.255.255.255"
}

// echoes sends a text from a host to an echo server and reads it back.
func echoes(tun *tunnel, h *netlab.Host, network, address string) error {
	ctx, cancel := context.WithTimeout(tun.ctx, patience)
	defer cancel()
	c, err := h.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	return talk(c)
}

// talk sends a text and reads it back.
func talk(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, probeText); err != nil {
		return err
	}
	buf := make([]byte, len(probeText))
	if _, err := io.ReadFull(c, buf); err != nil {
		return err
	}
	if string(buf) != probeText {
		return fmt.Errorf("the echo is %q", buf)
	}
	return nil
}

// sshPort stands for a server on the client that is reached from outside.
const sshPort = "2222"

func TestLeakInbound(t *testing.T) {
	tun := served(t)
	ips := []string{world.ClientIP, world.ClientIP6}
	for _, ip := range ips {
		must(t, tun.ServeTCP(tun.Client, net.JoinHostPort(ip, sshPort), func(c net.Conn) error { _, err := io.Copy(c, c); return err }))
	}
	session := func(t *testing.T, ip string) net.Conn {
		ctx, cancel := context.WithTimeout(tun.ctx, patience)
		defer cancel()
		c, err := tun.Internet.DialContext(ctx, "tcp", net.JoinHostPort(ip, sshPort))
		must(t, err)
		t.Cleanup(func() { c.Close() })
		must(t, talk(c))
		return c
	}
	wire := tun.judge()
	all := wire.prove(plainProbes()...)
	wire.allow(func(p netlab.Packet) bool {
		return p.Protocol == unix.IPPROTO_TCP && fmt.Sprint(p.Source.Port()) == sshPort
	})
	tun.check(17, "sessions from outside, older and newer than up", func(t *testing.T, tun *tunnel) {
		var sessions []net.Conn
		for _, ip := range ips {
			sessions = append(sessions, session(t, ip))
		}
		wire.quiet(t, "up", func() { tun.startUp() })
		for _, ip := range ips {
			sessions = append(sessions, session(t, ip))
		}
		for i, c := range sessions {
			if err := talk(c); err != nil {
				t.Errorf("session %d, %s: %v", i, c.RemoteAddr(), err)
			}
		}
		all.silent(t, "up", plainProbes()...)
		// A program may not take such a session for a way out.
		wire.quiet(t, "from the server's port", func() {
			p := tcp("TCP from the server's port", web4, option(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), option(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), from(world.ClientIP+":2223"))
			_ = p.send(tun)
		})
		tun.down()
		for i, c := range sessions {
			if err := talk(c); err != nil {
				t.Errorf("after down: session %d, %s: %v", i, c.RemoteAddr(), err)
			}
		}
	})
	tun.check(17, "with inbound = false nothing answers", func(t *testing.T, tun *tunnel) {
		old := session(t, world.ClientIP)
		wire.allow(nil)
		wire.quiet(t, "inbound = false", func() {
			tun.startConfigured("inbound = false")
			_, err := io.WriteString(old, probeText)
			must(t, err)
			mac, err := tun.Client.HardwareAddr("eth0")
			must(t, err)
			syn := netlab.ForgeTCP(netip.MustParseAddrPort(world.RouterIP+":4000"), netip.MustParseAddrPort(world.ClientIP+":"+sshPort), netlab.SYN)
			must(t, tun.Router.SendFrame("client", mac, 0x0800, syn))
			tun.sentinel(t)
		})
	})
}

func TestLeakContainers(t *testing.T) {
	tun := served(t)
	container, err := tun.AddContainer()
	must(t, err)
	inside := func(list []probe) []probe {
		for i := range list {
			list[i].host = func(*tunnel) *netlab.Host { return container }
			list[i].name = "in the container: " + list[i].name
		}
		return list
	}
	probes := inside(slices.Concat(slices.DeleteFunc(plainProbes(), func(p probe) bool {
		return p.as.ID != 0 || strings.Contains(p.name, "the router")
	}), []probe{udp("DNS", world.DNSIP+":53"), tcp("DNS over TCP", world.DNSIP+":53"), udp("DNS of the network", world.RouterIP+":53")}))
	wire := tun.judge()
	all := wire.prove(probes...)
	before := tun.snapshot()
	web := &http.Client{Transport: &http.Transport{DialContext: container.DialContext, DisableKeepAlives: true}}
	tun.check(16, "a container's packets go into the tunnel", func(t *testing.T, tun *tunnel) {
		wire.quiet(t, "up", func() { tun.startUp() })
		all.silent(t, "up", probes...)
		for _, ip := range []string{world.WebIP, world.WebIP6} {
			wire.quiet(t, "a download", func() {
				ctx, cancel := context.WithTimeout(tun.ctx, patience)
				defer cancel()
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(ip, world.PortWeb)+"/file?size=100000", nil)
				must(t, err)
				resp, err := web.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				digest, _, err := world.Digest(resp.Body)
				if err != nil || digest != world.FileDigest(100_000) {
					t.Errorf("the download has the digest %s, %v", digest, err)
				}
			})
		}
		asked := len(tun.Beyond.Asked())
		res, err := container.Run(tun.ctx, netlab.CommandOptions{}, needProgram(t, "dig"), "+short", "+time=10", "+tries=2", world.WebName)
		if err != nil || strings.TrimSpace(res.Stdout) != world.WebIP || len(tun.Beyond.Asked()) == asked {
			t.Errorf("a name: %q, %v", res.Output, err)
		}
		tun.down()
		tun.restored(before)
	})
	tun.check(16, "with forward = \"block\" they go nowhere", func(t *testing.T, tun *tunnel) {
		tun.startConfigured(`forward = "block"`)
		all.silent(t, "blocked", probes...)
		c, err := container.DialContext(tun.ctx, "tcp", web4)
		if err == nil {
			c.Close()
			t.Error("the container reaches the web")
		}
		tun.works(t, "outside the container")
	})
}
