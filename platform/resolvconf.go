package platform

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
)

// resolvHeader is the first line of a resolver's file of ours, and what it is
// known by.
const resolvHeader = "# Made by nws-vpn; `nws-vpn down` puts back the file that was here.\n"

// maxResolvConf bounds what is read of a resolver's file, and so the journal.
const maxResolvConf = 64 << 10

// formatResolvConf makes a resolver's file. It has no search list: names are
// resolved at the other end of the tunnel, where this network's are unknown.
func formatResolvConf(servers []netip.Addr) []byte {
	var b strings.Builder
	b.WriteString(resolvHeader)
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	return []byte(b.String())
}

// parseResolvConf returns the name servers of a resolver's file
// (resolv.conf(5)), each once. What it does not understand it skips, as libc
// does.
func parseResolvConf(text []byte) []netip.Addr {
	var servers []netip.Addr
	seen := make(map[netip.Addr]bool)
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil || seen[addr] || len(servers) == 16 {
			continue
		}
		seen[addr] = true
		servers = append(servers, addr)
	}
	return servers
}

// onlyLoopback reports whether every server is on this machine: a forwarder,
// whose own queries would go into the tunnel.
func onlyLoopback(servers []netip.Addr) bool {
	for _, s := range servers {
		if !s.IsLoopback() {
			return false
		}
	}
	return true
}
