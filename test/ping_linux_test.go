package test

import (
	"slices"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// ping runs the system's ping in the client.
func (tun *tunnel) ping(args ...string) netlab.Result {
	tun.t.Helper()
	return tun.runAny("ping", "", append([]string{"-n", "-c", "3", "-i", "0.05", "-w", "30"}, args...)...)
}

func TestPing(t *testing.T) {
	for name, groups := range map[string]string{"as anybody": "0 2147483647", "as root": "1 0"} {
		t.Run(name, func(t *testing.T) {
			tun := newTunnel(t)
			// Which groups may have sockets that can do nothing but ping.
			if err := tun.Exit.Sysctl("net/ipv4/ping_group_range", groups); err != nil {
				t.Fatal(err)
			}
			tun.startRelay()
			if name == "as root" {
				tun.inExit("chown", "0", tun.keyFile)
			}
			p, err := tun.StartExit(tun.ctx, tun.keyFile, world.Options{Root: name == "as root"})
			tun.started("exit", p, err)
			tun.startUp()
			pings(t, tun)
		})
	}
}

func pings(t *testing.T, tun *tunnel) {
	targets := [][]string{
		{world.WebIP}, {world.WebIP6}, {"-4", world.WebName}, {"-6", world.WebName},
		{"-s", "0", world.WebIP}, {"-s", "1400", world.WebIP}, {"-s", "1400", world.WebIP6}, {"-s", "10000", world.WebIP},
	}
	for _, host := range exitNames(t, tun.key) {
		targets = append(targets, []string{"-4", host}, []string{"-6", host})
	}
	for _, args := range targets {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			res := tun.with(t).ping(args...)
			if res.Code != 0 || !strings.Contains(res.Stdout, " 3 received") || strings.Contains(res.Stdout, "DUP!") {
				t.Errorf("ping ended with code %d: %s", res.Code, res.Output)
			}
		})
	}
}

// A ping that is refused or leads nowhere says so.
func TestPingThatFails(t *testing.T) {
	tun := connected(t)
	for _, c := range []struct {
		name, target string
		says         []string
	}{
		{"denied by the exit", "10.77.3.1", []string{"filtered", "Prohibited"}},
		{"denied by the exit, IPv6", "fd77:3::1", []string{"prohibited"}},
		{"no route", world.UnroutedIP, []string{"Net Unreachable", "Host Unreachable"}},
		{"nobody has the address", "203.0.113.99", []string{"Host Unreachable", "100% packet loss"}},
		{"a fake address of nobody", "198.18.77.7", []string{"Unreachable"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := tun.with(t).ping(c.target)
			says := func(words string) bool { return strings.Contains(res.Stdout, words) }
			if res.Code == 0 || !slices.ContainsFunc(c.says, says) {
				t.Errorf("ping ended with code %d: %s", res.Code, res.Output)
			}
		})
	}
}
