package test

import (
	"slices"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// leak check 8 is open: WireGuard itself is no part of every kernel that runs the tests; its rules are what is tested

func TestLeakOtherPrograms(t *testing.T) {
	tun := served(t)
	link := tun.linkIndex("eth0")
	probes := slices.Concat(plainProbes(), dnsProbes(link), boundProbes(link, tun.routerLinkLocal()))
	wire := tun.judge()
	all := wire.prove(probes...)
	tun.check(8, "a foreign rule before ours", func(t *testing.T, tun *tunnel) {
		up := tun.startUp()
		rule := netlab.Rule{Priority: 100, Table: 254}
		must(t, tun.Client.AddRule(rule))
		all.silent(t, "with the rule", probes...)
		tun.within(func(tun *tunnel) {
			if _, err := up.WaitLine(tun.ctx, func(l string) bool { return strings.Contains(l, "rule") && strings.Contains(l, "100") }); err != nil {
				t.Errorf("the rule is not mentioned: %v", err)
			}
		})
		must(t, tun.Client.RemoveRule(rule))
		tun.works(t, "without the rule")
		tun.down()
	})
	tun.check(8, "a foreign rule that was there before", func(t *testing.T, tun *tunnel) {
		rule := netlab.Rule{Priority: 100, Table: 254}
		must(t, tun.Client.AddRule(rule))
		defer func() { must(t, tun.Client.RemoveRule(rule)) }()
		// It may refuse, or come up and be silent.
		p, err := tun.Start(tun.Client, world.Options{}, "up", "--exit", tun.key, "--relay", world.RelayURL, "--state-dir", world.StateDir)
		tun.started("up", p, err)
		_, err = p.WaitLine(tun.ctx, func(l string) bool { return strings.HasPrefix(l, "connected") })
		if err == nil {
			all.silent(t, "with the rule", probes...)
			tun.down()
		}
		if out := p.Output(); !strings.Contains(out, "rule") || !strings.Contains(out, "100") {
			t.Errorf("the rule is not mentioned: %s", out)
		}
	})
}

func TestLeakUplinkChanges(t *testing.T) {
	tun := served(t)
	must(t, tun.AddUplink("eth1"))
	wire := tun.judge("eth0", "eth1")
	plain := plainProbes()
	all := wire.prove(plain...)
	tun.startUp()
	first := netlab.Way{To: "0.0.0.0/0", Device: "eth0", Via: world.RouterIP}
	second := netlab.Way{To: "0.0.0.0/0", Device: "eth1", Via: world.Router2IP}
	second6 := netlab.Way{To: "::/0", Device: "eth1", Via: world.Router2IP6}
	tun.check(9, "a second uplink, and other default routes", func(t *testing.T, tun *tunnel) {
		for _, step := range []struct {
			name   string
			change func() error
		}{
			{"a better default route", func() error { w := second; w.Metric = 0; return tun.Client.AddWay(w) }},
			{"one on IPv6", func() error { return tun.Client.AddWay(second6) }},
			{"the old one removed", func() error { return tun.Client.RemoveWay(first) }},
			{"a default route with a metric", func() error { w := first; w.Metric = 100; return tun.Client.AddWay(w) }},
			{"the new one removed", func() error { return tun.Client.RemoveWay(second) }},
		} {
			must(t, step.change())
			wire.quiet(t, step.name, tun.recovers)
			all.silent(t, step.name, plain...)
		}
	})
	tun.check(9, "the uplink gets another name", func(t *testing.T, tun *tunnel) {
		wire.quiet(t, "renamed", func() {
			must(t, tun.Client.RenameLink("eth0", "wan0"))
			defaults, err := tun.Client.HasRoute("0.0.0.0/0")
			must(t, err)
			if !defaults { // it had to be set down for that
				must(t, tun.Client.Route("0.0.0.0/0", world.RouterIP))
			}
			tun.recovers()
		})
		all.silent(t, "renamed", plain...)
	})
}

func TestLeakReversePath(t *testing.T) {
	tun := served(t)
	tun.check(10, "strict reverse path checks", func(t *testing.T, tun *tunnel) {
		for _, values := range []string{"0 0", "1 0", "0 1", "1 1", "2 1", "1 2"} {
			all, own, _ := strings.Cut(values, " ")
			must(t, tun.Client.Sysctl("net/ipv4/conf/all/rp_filter", all))
			must(t, tun.Client.Sysctl("net/ipv4/conf/eth0/rp_filter", own))
			before := tun.snapshot()
			up := tun.startUp()
			tun.works(t, "rp_filter "+values)
			tun.undone(up, before)
		}
	})
}

func TestLeakNoDefaultRoute(t *testing.T) {
	tun := served(t)
	wire := tun.judge()
	all := wire.prove(plainProbes()...)
	ways := []netlab.Way{{To: "0.0.0.0/0", Device: "eth0", Via: world.RouterIP}, {To: "::/0", Device: "eth0", Via: world.RouterIP6}}
	tun.check(11, "no default route at the start", func(t *testing.T, tun *tunnel) {
		for _, w := range ways {
			must(t, tun.Client.RemoveWay(w))
		}
		before := tun.snapshot()
		res, err := tun.Run(tun.ctx, tun.Client, "up", "--exit", tun.key, "--relay", world.RelayURL, "--state-dir", world.StateDir)
		if err != nil || res.Code == 0 {
			t.Errorf("up ended with code %d, %v: %s", res.Code, err, res.Output)
		}
		tun.restored(before)
		for _, w := range ways {
			must(t, tun.Client.AddWay(w))
		}
	})
	tun.check(11, "no default route later: the tunnel's packets do not loop", func(t *testing.T, tun *tunnel) {
		tun.startUp()
		looped := 0
		s, err := tun.Client.Sniff("nws0", func(p netlab.Packet) {
			if p.Outgoing && p.Destination.String() == world.RelayIP+":"+world.RelayPort {
				looped++
			}
		})
		must(t, err)
		wire.quiet(t, "without a route", func() {
			for _, w := range ways {
				must(t, tun.Client.RemoveWay(w))
			}
			must(t, tun.Client.SetLink("eth0", false))
			must(t, tun.Client.SetLink("eth0", true))
			tun.within(func(tun *tunnel) {
				tun.await("the loss is noticed", func() bool { return tun.status()["state"] != "connected" })
			})
			all.silent(t, "without a route", plainProbes()...)
		})
		wire.quiet(t, "with a route again", func() {
			must(t, tun.Client.AddWay(ways[0]))
			tun.recovers()
		})
		must(t, s.Close())
		if looped > 0 {
			t.Errorf("%d packets for the relay were in the tunnel", looped)
		}
	})
}
