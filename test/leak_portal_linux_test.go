package test

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// TestLeakPortal: the router answers for the whole internet: port 80 with its
// login, 443 with a reset, and every name is its own.
func TestLeakPortal(t *testing.T) {
	tun := served(t)
	wire, probes := tun.proven()
	before := tun.snapshot()
	leave := tun.enterPortal()
	router := netip.MustParseAddr(world.RouterIP)
	wire.allow(func(p netlab.Packet) bool {
		// The network's resolver, the false relay, and the look for a portal.
		ports := map[uint8][]uint16{unix.IPPROTO_UDP: {53}, unix.IPPROTO_TCP: {7777, 80}}
		for _, port := range ports[p.Protocol] {
			if p.Destination == netip.AddrPortFrom(router, port) {
				return true
			}
		}
		return false
	})
	tun.check(35, "the whole internet is a portal's: status says so, and nothing else leaves", func(t *testing.T, tun *tunnel) {
		wire.quiet(t, "behind the portal", func() {
			up, err := tun.Start(tun.Client, world.Options{}, "up", "--exit", tun.key, "--relay", "ws://"+world.RelayName+":"+world.RelayPort, "--retry", "--state-dir", world.StateDir)
			tun.started("up", up, err)
			tun.awaitLine(up, "ask for a login")
			if portal, _ := tun.status()["portal"].(string); !strings.Contains(portal, "login.isp.example") {
				t.Errorf("status says of the portal: %q", portal)
			}
			stop := wire.repeatedly(probes[:4])
			wire.silent(t, "behind the portal", probes...)
			stop()
			leave()
			tun.recovers()
			tun.await("the portal is forgotten", func() bool { return tun.status()["portal"] == nil })
			wire.silent(t, "afterwards", probes...)
			tun.takeDown(up)
		})
		tun.restored(before)
	})
}

// enterPortal puts the client behind a captive portal, until leave.
func (tun *tunnel) enterPortal() (leave func()) {
	tun.t.Helper()
	tun.Uplink.Replace(world.Zone{world.RelayName: {Addresses: []netip.Addr{netip.MustParseAddr(world.RouterIP)}}})
	must(tun.t, tun.Router.AnswerForAll("client"))
	login, err := tun.Router.ListenForAll("tcp4", ":80")
	must(tun.t, err)
	site := &http.Server{Handler: http.RedirectHandler("http://login.isp.example/", http.StatusFound)}
	secure, err := tun.Router.ListenForAll("tcp4", ":443")
	must(tun.t, err)
	done := make(chan struct{}, 2)
	go func() { _ = site.Serve(login); done <- struct{}{} }()
	go func() {
		for {
			c, err := secure.Accept()
			if err != nil {
				done <- struct{}{}
				return
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	tun.t.Cleanup(func() {
		site.Close()
		secure.Close()
		<-done
		<-done
	})
	return func() {
		must(tun.t, tun.Router.RemoveRule(netlab.Rule{Priority: 99, Table: 99}))
		tun.Uplink.Replace(world.Zone{world.RelayName: {Addresses: []netip.Addr{netip.MustParseAddr(world.RelayIP)}}})
	}
}
