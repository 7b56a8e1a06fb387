package main

import (
	"net/netip"
	"os"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/platform"
)

// The addresses of the device and of the DNS server behind it: the beginning
// of the range of fake addresses. The server's are never the device's own, so
// that queries go into the tunnel and not to this machine.
var (
	deviceAddrs = [...]netip.Prefix{netip.MustParsePrefix("198.18.0.1/32"), netip.MustParsePrefix("fd6e:7773:7670::1/128")}
	dnsAddrs    = [...]netip.Addr{netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("fd6e:7773:7670::2")}
	fakeRanges  = [...]netip.Prefix{netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("fd6e:7773:7670::/48")}
)

// lingerTime is for how long the fake ranges stay refused after the tunnel: what
// programs remember of them does not live longer.
const lingerTime = 3 * time.Minute

// machineConfig is the machine's configuration while the tunnel is up, but for
// what is the kill switch's.
func machineConfig(up *config.Up) platform.Config {
	c := platform.Config{
		Device:        up.Device,
		MTU:           up.MTU,
		Addresses:     deviceAddrs[:],
		DNSManager:    up.DNSManager,
		Reserved:      fakeRanges[:],
		Linger:        lingerTime,
		Mark:          up.Mark,
		Table:         up.Table,
		UID:           uint32(os.Getuid()),
		AllowLAN:      up.AllowLAN,
		RefuseInbound: !up.Inbound,
		ForwardBlock:  up.Forward == config.ForwardBlock,
	}
	if up.DNS {
		c.DNS = dnsAddrs[:]
	}
	return c
}
