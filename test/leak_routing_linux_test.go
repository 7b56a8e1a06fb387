package test

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// linkIndex is the number of one of the client's interfaces.
func (tun *tunnel) linkIndex(device string) (index int) {
	tun.t.Helper()
	err := tun.Client.Do(func() error {
		i, err := net.InterfaceByName(device)
		if err == nil {
			index = i.Index
		}
		return err
	})
	if err != nil {
		tun.t.Fatal(err)
	}
	return index
}

// routerLinkLocal is the router's address on the client's link.
func (tun *tunnel) routerLinkLocal() netip.Addr {
	tun.t.Helper()
	a, err := tun.Router.LinkLocal("client")
	if err != nil {
		tun.t.Fatal(err)
	}
	return a
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// works is reaches with patience, and reports to t.
func (tun *tunnel) works(t *testing.T, when string) {
	t.Helper()
	tun.with(t).within(func(tun *tunnel) { tun.reaches(when) })
}

func TestLeakRouting(t *testing.T) {
	tun := served(t)
	link, neighbour := tun.linkIndex("eth0"), tun.routerLinkLocal()
	plain, bound, marks := plainProbes(), boundProbes(link, neighbour), markProbes()
	dns, groups := dnsProbes(link), groupProbes(link)
	both := slices.Concat(plain, dns)
	wire := tun.judge()
	for name, value := range map[string]string{"accept_ra": "2", "accept_ra_rt_info_max_plen": "128"} {
		// Kernels without route information cannot be misled by it.
		if err := tun.Client.Sysctl("net/ipv6/conf/eth0/"+name, value); err != nil && name == "accept_ra" {
			t.Fatal(err)
		}
	}
	all := wire.prove(slices.Concat(plain, bound, marks, dns, groups)...)
	before := tun.snapshot()
	var up *netlab.Process
	wire.quiet(t, "while up begins", func() { up = tun.startUp() })
	all.silent(t, "up", both...)

	tun.check(1, "routes that a DHCP server pushes (option 121)", func(t *testing.T, tun *tunnel) {
		for _, w := range pushedRoutes {
			must(t, tun.Client.AddWay(w))
		}
		all.silent(t, "with the routes", slices.Concat(both, bound)...)
		tun.works(t, "with the routes")
		for _, w := range pushedRoutes {
			must(t, tun.Client.RemoveWay(w))
		}
	})
	tun.check(4, "router advertisements with routes and a new default router", func(t *testing.T, tun *tunnel) {
		must(t, tun.Router.SendFrame("client", nil, 0x86dd, netlab.ForgeAdvertisement(neighbour, 1800,
			netip.MustParsePrefix("2000::/3"), netip.MustParsePrefix("2001:db8:80::/48"), netip.MustParsePrefix(world.WebIP6+"/128"))))
		tun.await("the client believes the advertisement", func() bool {
			has, err := tun.Client.HasRoute(world.WebIP6 + "/128")
			must(t, err)
			return has
		})
		all.silent(t, "with the router", slices.Concat(both, bound)...)
		tun.works(t, "with the router")
		must(t, tun.Router.SendFrame("client", nil, 0x86dd, netlab.ForgeAdvertisement(neighbour, 0,
			netip.MustParsePrefix("2000::/3"), netip.MustParsePrefix("2001:db8:80::/48"), netip.MustParsePrefix(world.WebIP6+"/128"))))
		tun.await("the advertisement is taken back", func() bool {
			has, err := tun.Client.HasRoute(world.WebIP6 + "/128")
			must(t, err)
			return !has
		})
	})
	tun.check(6, "sockets bound to the uplink, raw sockets, IP_UNICAST_IF", func(t *testing.T, tun *tunnel) {
		all.silent(t, "up", bound...)
	})
	tun.check(7, "a forged mark", func(t *testing.T, tun *tunnel) {
		if tun.mayMark(nobody) {
			t.Error("a plain user sets the mark")
		}
		all.silent(t, "up", marks...)
	})
	tun.check(12, "an unknown address of the range for names", func(t *testing.T, tun *tunnel) {
		for _, to := range []string{"198.18.77.77:9", "198.19.255.254:9", "[fd6e:7773:7670:1::77]:9"} {
			wire.quiet(t, to, func() {
				c, err := tun.Client.DialContext(tun.ctx, "tcp", to)
				if err == nil {
					c.Close()
					t.Errorf("%s: somebody answers", to)
				}
			})
		}
	})
	tun.check(14, "redirects, martians, forged packets to the tunnel's address, arping", func(t *testing.T, tun *tunnel) {
		testForgedPackets(t, tun, wire)
	})
	tun.check(18, "without allow_lan the local network is closed, multicast too", func(t *testing.T, tun *tunnel) {
		all.silent(t, "up", groups...)
	})
	tun.check(39, "DNS to resolvers of all kinds", func(t *testing.T, tun *tunnel) {
		all.silent(t, "up", dns...)
	})
	tun.check(44, "an address of a name after down", func(t *testing.T, tun *tunnel) {
		testAddressAfterDown(t, tun, wire, up)
	})
	tun.restored(before)
	for _, p := range both {
		if seen, _ := wire.visible(p); !seen {
			t.Errorf("after down the probe %q does not go out", p.name)
		}
	}
}

// pushedRoutes are what a hostile DHCP server may have a client install.
var pushedRoutes = []netlab.Way{
	{To: "0.0.0.0/1", Device: "eth0", Via: world.RouterIP}, {To: "128.0.0.0/1", Device: "eth0", Via: world.RouterIP},
	{To: world.WebIP + "/32", Device: "eth0", Via: world.RouterIP}, {To: "8.8.8.8/32", Device: "eth0", Via: world.RouterIP},
	{To: "192.0.2.0/24", Device: "eth0"}, {To: "198.18.0.0/15", Device: "eth0", Via: world.RouterIP},
	{To: "2000::/3", Device: "eth0", Via: world.RouterIP6}, {To: world.WebIP6 + "/128", Device: "eth0", Via: world.RouterIP6},
}

// testForgedPackets has the router send what should not be answered. That the
// client answers the same to its own address shows that it would be seen.
func testForgedPackets(t *testing.T, tun *tunnel, wire *judge) {
	mac, err := tun.Client.HardwareAddr("eth0")
	must(t, err)
	own, err := tun.Router.HardwareAddr("client")
	must(t, err)
	addr := netip.MustParseAddr
	router, router6 := addr(world.RouterIP), addr(world.RouterIP6)
	web, web6 := addr(world.WebIP), addr(world.WebIP6)
	arp := 0
	wire.mu.Lock()
	wire.also = func(p netlab.Packet) bool {
		isAnswer := p.Ether == 0x0806 && len(p.Data) > 17 && p.Data[7] == 2 && strings.HasPrefix(netip.AddrFrom4([4]byte(p.Data[14:18])).String(), "198.18.")
		isAdvert := p.Protocol == unix.IPPROTO_ICMPV6 && p.Type == 136 && len(p.Data) >= 64 && p.Data[48] == 0xfd && p.Data[49] == 0x6e
		if isAnswer || isAdvert {
			arp++
		}
		return isAnswer || isAdvert
	}
	wire.mu.Unlock()
	to := func(ether uint16, packet []byte) {
		must(t, tun.Router.SendFrame("client", mac, ether, packet))
	}
	for _, target := range []string{"198.18.0.1", "198.18.0.2"} {
		tunnel := addr(target)
		wire.quiet(t, "forged packets to "+target, func() {
			for _, flags := range []uint8{netlab.SYN, netlab.SYN | netlab.ACK, netlab.ACK, netlab.RST} {
				for _, source := range []netip.Addr{web, router} {
					to(0x0800, netlab.ForgeTCP(netip.AddrPortFrom(source, 80), netip.AddrPortFrom(tunnel, 40000), flags))
				}
			}
			to(0x0800, netlab.ForgeUDP(netip.AddrPortFrom(web, 53), netip.AddrPortFrom(tunnel, 40000), []byte(probeText)))
			to(0x0800, netlab.ForgeUDP(netip.AddrPortFrom(router, 53), netip.AddrPortFrom(tunnel, 53), []byte(probeText)))
			to(0x0800, netlab.ForgeIP(web, tunnel, unix.IPPROTO_ICMP, 64, []byte{8, 0, 0, 0, 0, 1, 0, 1}))
			must(t, tun.Router.SendFrame("client", nil, 0x0806, netlab.ForgeARP(own, router, tunnel)))
			tun.sentinel(t)
		})
	}
	tunnel6 := addr("fd6e:7773:7670::1")
	wire.quiet(t, "forged packets on IPv6", func() {
		for _, flags := range []uint8{netlab.SYN, netlab.SYN | netlab.ACK} {
			to(0x86dd, netlab.ForgeTCP(netip.AddrPortFrom(web6, 80), netip.AddrPortFrom(tunnel6, 40000), flags))
		}
		to(0x86dd, netlab.ForgeIP(web6, tunnel6, unix.IPPROTO_ICMPV6, 64, []byte{128, 0, 0, 0, 0, 1, 0, 1}))
		must(t, tun.Router.SendFrame("client", nil, 0x86dd, netlab.ForgeSolicitation(own, router6, tunnel6)))
		tun.sentinel(t)
	})
	wire.quiet(t, "martians", func() {
		for _, source := range []string{"127.0.0.1", "198.18.0.1", world.ClientIP, "0.0.0.0", "240.0.0.1", "255.255.255.255", "224.0.0.1"} {
			to(0x0800, netlab.ForgeTCP(netip.AddrPortFrom(addr(source), 80), netip.MustParseAddrPort(world.ClientIP+":40000"), netlab.SYN|netlab.ACK))
			to(0x0800, netlab.ForgeUDP(netip.AddrPortFrom(addr(source), 53), netip.MustParseAddrPort("198.18.0.1:40000"), nil))
		}
		tun.sentinel(t)
	})
	about := netlab.ForgeUDP(netip.MustParseAddrPort(world.ClientIP+":1"), netip.MustParseAddrPort(web4), nil)
	wire.quiet(t, "redirects", func() {
		to(0x0800, netlab.ForgeRedirect(router, addr(world.ClientIP), addr("10.77.1.66"), about))
		tun.sentinel(t)
		_ = udp("", web4).send(tun)
		_ = tcp("", web4).send(tun)
	})
	if arp > 0 {
		t.Errorf("%d answers to who asks for the tunnel's addresses", arp)
	}
}

// sentinel makes sure that the client has taken what the router sent it before:
// it answers the router's question for its own address, which may be seen.
func (tun *tunnel) sentinel(t *testing.T) {
	t.Helper()
	mac, err := tun.Router.HardwareAddr("client")
	must(t, err)
	answered := make(chan struct{}, 16)
	s, err := tun.Client.Sniff("eth0", func(p netlab.Packet) {
		if p.Outgoing && p.Ether == 0x0806 && len(p.Data) > 7 && p.Data[7] == 2 {
			select {
			case answered <- struct{}{}:
			default:
			}
		}
	})
	must(t, err)
	ask := netlab.ForgeARP(mac, netip.MustParseAddr(world.RouterIP), netip.MustParseAddr(world.ClientIP))
	must(t, tun.Router.SendFrame("client", nil, 0x0806, ask))
	select {
	case <-answered:
	case <-tun.ctx.Done():
		t.Error("the client does not answer")
	}
	must(t, s.Close())
}

// testAddressAfterDown connects to the address that a name had in the tunnel.
func testAddressAfterDown(t *testing.T, tun *tunnel, wire *judge, up *netlab.Process) {
	answer := tun.run("dig", "+short", "+time=10", "+tries=2", tun.key+".nostr")
	address, err := netip.ParseAddr(answer)
	if err != nil {
		t.Fatalf("the exit's name has the address %q", answer)
	}
	tun.takeDown(up)
	wire.quiet(t, "after down", func() {
		c, err := tun.Client.DialContext(tun.ctx, "tcp", netip.AddrPortFrom(address, 80).String())
		if err == nil {
			c.Close()
			t.Error("somebody answers")
		} else if !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the program is told %v", err)
		}
	})
}

func TestLeakRelayAtTheWeb(t *testing.T) {
	tun := newTunnel(t)
	const shared, name = "203.0.113.99", "shared.isp.example"
	relayAt := netip.AddrPortFrom(netip.MustParseAddr(shared), 7777)
	must(t, tun.Internet.AddAddress("eth0", shared+"/24"))
	must(t, tun.ServeEcho(tun.Internet, shared, world.PortEcho))
	must(t, tun.ServeHTTP(tun.Internet, shared+":"+world.PortWeb, world.Handler("the web")))
	relay, err := tun.StartRelayAt(tun.ctx, tun.Internet, relayAt.String())
	tun.started("relay", relay, err)
	tun.Uplink.Replace(world.Zone{name: {Addresses: []netip.Addr{relayAt.Addr()}}})
	tun.startExit("--relay", "ws://"+relayAt.String())
	wire := tun.judge()
	wire.relays = []netip.AddrPort{relayAt}
	wire.also = func(p netlab.Packet) bool {
		return p.Source.Port() >= relayProbePort && p.Source.Port() < relayProbePort+10
	}
	probes := append(plainProbes(), udp("the relay's address", shared+":7"), tcp("TCP to the relay's address", shared+":7"), tcp("web at the relay's address", shared+":80"))
	own := relayProbes(relayAt.String())
	all := wire.prove(slices.Concat(probes, own)...)
	tun.check(3, "a relay's name leads to the address of a web server", func(t *testing.T, tun *tunnel) {
		wire.allow(func(p netlab.Packet) bool { // the name is looked up outside
			return p.Protocol == unix.IPPROTO_UDP && p.Destination.String() == world.RouterIP+":53"
		})
		wire.quiet(t, "up", func() {
			p, err := tun.Start(tun.Client, world.Options{}, "up", "--exit", tun.key, "--relay", "ws://"+name+":7777", "--state-dir", world.StateDir)
			tun.started("up", p, err)
			_, err = p.WaitLine(tun.ctx, func(l string) bool { return strings.HasPrefix(l, "connected") })
			must(t, err)
		})
		wire.allow(nil)
		all.silent(t, "up", probes...)
		wire.quiet(t, "a request to the relay's address", func() {
			if got, err := tun.get("http://" + shared + "/"); err != nil || got != "hello from the web" {
				t.Errorf("%q, %v", got, err)
			}
		})
	})
	tun.check(15, "a program's own packets to the relay", func(t *testing.T, tun *tunnel) {
		all.silent(t, "up", own...)
	})
}

// relayProbes are sent to the address and port that the tunnel's own
// connections go to, from ports that can be told from theirs.
func relayProbes(to string) []probe {
	list := []probe{
		udp("UDP to the relay", to), tcp("TCP to the relay", to), tcp("TCP to the relay, bound", to, toDevice("eth0")),
		tcp("TCP to the relay by nobody", to).by(nobody, ""), tcp("TCP to the relay, bound, by nobody", to, toDevice("eth0")).by(nobody, ""),
		tcp("TCP to the relay with the mark", to, marked(0x4e000000)).by(rawNobody, "by nobody with CAP_NET_RAW"),
	}
	for i := range list {
		own := netip.AddrPortFrom(netip.MustParseAddr(world.ClientIP), uint16(relayProbePort+i))
		list[i].prepare = append(list[i].prepare, option(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), from(own.String()))
	}
	return list
}

const relayProbePort = 45450

func TestLeakExitWithoutIPv6(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	must(t, tun.Exit.RemoveWay(netlab.Way{To: "::/0", Device: "eth0", Via: "fd77:3::1"}))
	tun.startExit()
	probes := slices.DeleteFunc(plainProbes(), func(p probe) bool { return p.to.Addr().Is4() })
	all := tun.judge().prove(probes...)
	tun.check(5, "an exit without IPv6", func(t *testing.T, tun *tunnel) {
		tun.startUp()
		all.silent(t, "up", probes...)
		c, err := tun.Client.DialContext(tun.ctx, "tcp", web6)
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("a program is told %v", err)
		}
		tun.works(t, "on IPv4")
	})
}

func TestLeakConnectionsOlderThanUp(t *testing.T) {
	tun := served(t)
	wire := tun.judge()
	var old []net.Conn
	for _, ip := range []string{world.WebIP, world.WebIP6} {
		c := tun.dial(ip, world.PortEcho)
		if wire.during(func() { must(t, talk(c)) }) == 0 {
			t.Fatal("with the VPN off, the connection is not seen on the wire")
		}
		old = append(old, c)
	}
	tun.check(13, "a TCP connection opened before up", func(t *testing.T, tun *tunnel) {
		wire.quiet(t, "up", func() {
			tun.startUp()
			for _, c := range old {
				if err := talk(c); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
					t.Errorf("the program is told %v", err)
				}
				c.Close()
			}
			tun.works(t, "a new one")
		})
	})
}
