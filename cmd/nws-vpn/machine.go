package main

import (
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/dnsintercept"
	"github.com/nws-vpn/nws-vpn/platform"
)

// The addresses of the device and of the DNS server behind it, where no network
// of the machine is in the way (see freeRange): the beginning of the range of
// fake addresses. The server's are never the device's own, so that queries go
// into the tunnel and not to this machine.
var (
	deviceAddrs = [...]netip.Prefix{netip.MustParsePrefix("198.18.0.1/32"), netip.MustParsePrefix("fd6e:7773:7670::1/128")}
	dnsAddrs    = [...]netip.Addr{netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("fd6e:7773:7670::2")}
	fakeRanges  = [...]netip.Prefix{netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("fd6e:7773:7670::/48")}
)

// lingerTime is for how long the fake ranges stay refused after the tunnel: what
// programs remember of them does not live longer.
const lingerTime = 3 * time.Minute

// freeRange chooses the fake addresses beside what this machine uses already.
func freeRange(up *config.Up, log *slog.Logger) dnsintercept.Range {
	used, err := platform.Networks(up.Device)
	if err != nil {
		log.Warn("fake addresses may be those of a network of this machine", "err", err)
	}
	r, usual := dnsintercept.FreeRange(used)
	if !usual {
		log.Warn("this machine has a network among the usual fake addresses: others are taken", "ranges", r.Networks())
	}
	return r
}

// newMachine makes the state machine of a tunnel. Its configuration of the machine
// is for while the tunnel is up, but for what is the kill switch's.
func newMachine(killSwitch lifecycle.KillSwitch, up *config.Up, fakes dnsintercept.Range, o lifecycle.Options) (*lifecycle.Machine, error) {
	c := machineConfig(up, fakes)
	if err := splitPackets(&c, up, fakes); err != nil {
		return nil, err
	}
	asked := c
	if killSwitch != lifecycle.Off {
		asked.Filter = platform.FilterOn
	}
	if err := asked.Check(); err != nil {
		return nil, err
	}
	o.ByName = len(up.IncludeDomains) > 0
	return lifecycle.New(killSwitch, c, o), nil
}

func machineConfig(up *config.Up, fakes dnsintercept.Range) platform.Config {
	c := platform.Config{
		Device:        up.Device,
		MTU:           up.MTU,
		Addresses:     fakes.Device(),
		DNSManager:    up.DNSManager,
		Reserved:      fakes.Networks(),
		Linger:        lingerTime,
		Mark:          up.Mark,
		Table:         up.Table,
		UID:           uint32(os.Getuid()),
		AllowLAN:      up.AllowLAN,
		RefuseInbound: !up.Inbound,
		ForwardBlock:  up.Forward == config.ForwardBlock,
	}
	if up.DNS {
		c.DNS = fakes.Servers()
	}
	return c
}
