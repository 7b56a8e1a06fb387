package test

import (
	"net/netip"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// TestRelayWithinTheClient: an exit is reached over a relay of the client's own,
// which the kill switch lets in, and nothing else leaves.
func TestRelayWithinTheClient(t *testing.T) {
	tun := newTunnel(t)
	const address = world.ClientIP + ":" + world.RelayPort
	exit, err := tun.StartNobody(world.Options{}, "exit", "--key", tun.keyFile, "--relay", "ws://"+address,
		"--allow-private", "203.0.113.0/24", "--dns", world.DNSIP)
	tun.started("exit", exit, err)
	wire := tun.judge()
	wire.relays = nil
	all := wire.prove(plainProbes()...)
	wire.mu.Lock()
	wire.answers = netip.MustParseAddrPort(address)
	wire.mu.Unlock()
	before := tun.snapshot()
	for _, killSwitch := range []string{"on", "off"} {
		up, err := tun.Start(tun.Client, world.Options{}, "up", "--exit", tun.key, "--relay-listen", address, "--kill-switch", killSwitch, "--state-dir", world.StateDir)
		tun.started("up", up, err)
		tun.awaitLine(up, "connected to")
		if relay := tun.status()["relay"]; relay != "ws://"+address {
			t.Errorf("the relay is %v", relay)
		}
		wire.quiet(t, "kill switch "+killSwitch, func() { tun.works(t, "over our own relay") })
		if killSwitch == "on" {
			all.silent(t, "over our own relay", plainProbes()...)
		}
		tun.undone(up, before)
	}
	res, err := tun.Run(tun.ctx, tun.Client, "up", "--exit", tun.key, "--relay-listen", address, "--refuse-inbound", "--state-dir", world.StateDir)
	if err != nil || res.Code == 0 {
		t.Errorf("up ended with code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.restored(before)
}

// TestRelayWithMembers: the client is let in with a key that the relay's operator
// knows, and not without.
func TestRelayWithMembers(t *testing.T) {
	tun := newTunnel(t)
	const file, config = "/run/relay.key", "/run/nws.toml"
	member, err := tun.Keygen(tun.ctx, tun.Client, file)
	must(t, err)
	tun.startRelay("--member", tun.key, "--member", member)
	tun.startExit()
	before := tun.snapshot()
	res, err := tun.Run(tun.ctx, tun.Client, append(tun.upArgs(), "--state-dir", world.StateDir)...)
	if err != nil || res.Code == 0 {
		t.Errorf("a stranger's up ended with code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.restored(before)
	must(t, tun.Client.WriteFile(config, []byte("[up]\nrelay_key_file = \""+file+"\"\n")))
	up := tun.startUp("--config", config)
	tun.works(t, "as a member")
	tun.takeDown(up)
}
