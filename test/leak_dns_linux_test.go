package test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

func TestLeakNames(t *testing.T) {
	tun := served(t)
	wire := tun.judge()
	all := wire.prove(plainProbes()[:4]...)
	up := tun.startUp()
	asked := len(tun.Uplink.Asked())
	tun.check(42, "the canary of browsers' own DNS", func(t *testing.T, tun *tunnel) {
		if out := tun.run("dig", "+time=10", "+tries=2", "use-application-dns.net"); !strings.Contains(out, "NXDOMAIN") {
			t.Errorf("the answer is %s", out)
		}
	})
	tun.check(38, "another network's resolver comes while up, then down", func(t *testing.T, tun *tunnel) {
		const other = "# of another network\nnameserver 10.79.1.1\n"
		wire.quiet(t, "roaming", func() {
			must(t, tun.Client.WriteFile("/etc/resolv.conf", []byte(other)))
			tun.within(func(tun *tunnel) {
				tun.await("the file is put right", func() bool {
					got, err := tun.Client.ReadFile("/etc/resolv.conf")
					return err == nil && strings.Contains(string(got), "198.18.")
				})
			})
			tun.run("dig", "+short", "+time=10", "+tries=2", world.WebName)
			tun.takeDown(up)
		})
		if got, err := tun.Client.ReadFile("/etc/resolv.conf"); err != nil || string(got) != other {
			t.Errorf("after down, resolv.conf is %q, %v", got, err)
		}
	})
	if n := len(tun.Uplink.Asked()); n > asked {
		t.Errorf("the network's resolver was asked %q", tun.Uplink.Asked()[asked:])
	}
	tun.check(45, "the range for names is routed already", func(t *testing.T, tun *tunnel) {
		taken := netip.MustParsePrefix("198.18.0.0/15")
		must(t, tun.Client.AddWay(netlab.Way{To: taken.String(), Device: "eth0", Via: world.RouterIP}))
		wire.settle()
		up := tun.startUp()
		answer := tun.run("dig", "@"+world.DNSIP, "+short", "+time=10", "+tries=2", tun.key+".nostr")
		if a, err := netip.ParseAddr(answer); err != nil || taken.Contains(a) {
			t.Errorf("the exit's name has the address %q", answer)
		}
		if !strings.Contains(up.Output(), "fake addresses") {
			t.Errorf("up does not say so: %s", up.Output())
		}
		all.silent(t, "up", plainProbes()[:4]...)
		tun.works(t, "up")
		tun.takeDown(up)
	})
}
