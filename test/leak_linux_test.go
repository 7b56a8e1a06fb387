package test

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// watch sniffs the client's cable. Its function ends that and returns the
// packets that are neither the relay's nor the link's own, and how many of
// them, and of the relay's, hold the mark.
func (tun *tunnel) watch(mark string) func() (strange []string, marked int) {
	tun.t.Helper()
	var mu sync.Mutex
	var strange []string
	marked := 0
	relays := []string{net.JoinHostPort(world.RelayIP, world.RelayPort), net.JoinHostPort(world.RelayIP6, world.RelayPort)}
	s, err := tun.Client.Sniff("eth0", func(p netlab.Packet) {
		mu.Lock()
		defer mu.Unlock()
		if bytes.Contains(p.Data, []byte(mark)) {
			marked++
		}
		peer := p.Source
		if p.Outgoing {
			peer = p.Destination
		}
		ofRelay := p.Protocol == unix.IPPROTO_TCP && (peer.String() == relays[0] || peer.String() == relays[1])
		if !p.Local() && !ofRelay && len(strange) < 20 {
			strange = append(strange, p.String())
		}
	})
	if err != nil {
		tun.t.Fatal(err)
	}
	return func() ([]string, int) {
		if err := s.Close(); err != nil {
			tun.t.Fatal(err)
		}
		return strange, marked
	}
}

// probe sends the mark everywhere: TCP and UDP, port 53 and others, IPv4 and
// IPv6. Whether anything answers does not matter.
func (tun *tunnel) probe(mark string) {
	tun.t.Helper()
	for _, address := range []string{
		net.JoinHostPort(world.WebIP, world.PortEcho), net.JoinHostPort(world.WebIP6, world.PortEcho),
		net.JoinHostPort(world.DNSIP, world.PortDNS), net.JoinHostPort(world.RouterIP, world.PortDNS), "192.0.2.7:9",
	} {
		if c, err := tun.Client.DialContext(tun.ctx, "udp", address); err == nil {
			_, _ = c.Write([]byte(mark)) // refused is as good as lost
			c.Close()
		}
	}
	for _, ip := range []string{world.WebIP, world.WebIP6} {
		if c, err := tun.Client.DialContext(tun.ctx, "tcp", net.JoinHostPort(ip, world.PortEcho)); err == nil {
			_, _ = c.Write([]byte(mark))
			_, _ = c.Read(make([]byte, len(mark)))
			c.Close()
		}
	}
	tun.runAny("dig", "", "+time=1", "+tries=1", "@"+world.RouterIP, mark+".example")
}

func TestNothingGoesPastTheTunnel(t *testing.T) {
	const mark = "probe-of-the-leak-test"
	tun := newTunnel(t)
	end := tun.watch(mark)
	tun.probe(mark)
	// Five datagrams, a question, and two connections with their echoes.
	if strange, marked := end(); marked < 8 || len(strange) < 8 {
		t.Fatalf("the judge sees too little with the VPN off: %d marked packets, %q", marked, strange)
	}

	tun.startRelay()
	tun.startExit()
	end = tun.watch(mark)
	up := tun.startUp()
	tun.probe(mark)
	if err := tun.download("http://"+world.WebIP+"/file?size=1000000", 1_000_000); err != nil {
		t.Error(err)
	}
	tun.takeDown(up)
	if strange, marked := end(); marked > 0 || len(strange) > 0 {
		t.Errorf("%d marked packets on the wire; not of the relay: %s", marked, strings.Join(strange, "\n"))
	}
}

func TestRelayNameIsLookedUpOutside(t *testing.T) {
	tun := served(t)
	// Its name is known to the uplink's resolver only.
	p, err := tun.Start(tun.Client, world.Options{}, "up", "--exit", tun.key, "--relay", "ws://"+world.RelayName+":"+world.RelayPort, "--state-dir", world.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	tun.started("up", p, nil)
	if _, err := p.WaitLine(tun.ctx, func(l string) bool { return strings.HasPrefix(l, "connected") }); err != nil {
		t.Fatal(err)
	}
	tun.reaches("by a relay that has a name")
}
