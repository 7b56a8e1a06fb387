package test

import (
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// await asks the client again and again until it is content.
func (tun *tunnel) await(what string, content func() bool) {
	tun.t.Helper()
	for !content() {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-tun.ctx.Done():
			tun.t.Fatalf("it does not happen that %s", what)
		}
	}
}

// TestRelayForgets: a relay that comes back empty is told of the exit and of its
// certificate again.
func TestRelayForgets(t *testing.T) {
	tun := newTunnel(t)
	relay := tun.startRelay()
	tun.startExit("--announce", "--service", "443=tls:"+world.ServiceAddress)
	known := func() bool {
		if len(tun.exits()) != 1 {
			return false
		}
		res, err := tun.Run(tun.ctx, tun.Client, "cert", tun.key+".nostr", "--relay", world.RelayURL)
		return err == nil && res.Code == 0
	}
	tun.await("the exit is known", known)
	tun.kill(relay)
	tun.startRelay()
	tun.await("the exit is known again", known)
}

// TestExitLosesIPv6: what an exit announces follows its network.
func TestExitLosesIPv6(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	tun.startExit("--announce")
	reaches := func(ipv6 bool) func() bool {
		return func() bool {
			x := tun.exits()[tun.key]
			return x != nil && x["ipv4"] == true && x["ipv6"] == ipv6
		}
	}
	tun.await("both families are announced", reaches(true))
	res, err := tun.Exit.Run(tun.ctx, netlab.CommandOptions{}, needProgram(t, "ip"), "-6", "route", "del", "default")
	if err != nil || res.Code != 0 {
		t.Fatalf("ip: %v: %s", err, res.Output)
	}
	tun.await("IPv6 is not announced any more", reaches(false))
}
