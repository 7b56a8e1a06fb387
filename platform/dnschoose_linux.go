package platform

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// dnsProbe is what can be seen of who manages names on this machine.
type dnsProbe struct {
	// The resolver's file, or the one of others that ours stands for.
	missing bool
	target  string       // where it leads, when it is a link
	text    []byte       // what programs read there
	servers []netip.Addr // which that names
	// Whether nsswitch.conf has programs ask systemd-resolved past the file.
	nssResolve bool
	// nil where the service runs, and otherwise why not.
	resolved, nm error
	// NetworkManager's own words on what it does about names, and on how it
	// treats the resolver's file.
	nmMode, nmFile string
	resolvconf     string // whose program is installed, or empty
	// What is told of when the manager is theirs.
	nmNow    nmGlobal
	catchers []string // other links to which systemd-resolved sends all names
	claims   []string // domains under which it asks others, who cannot be asked
}

// sees puts a file into the probe.
func (p *dnsProbe) sees(f savedFile, text []byte) {
	p.missing, p.target, p.text, p.servers = f.Kind == kindMissing, f.Target, text, parseResolvConf(text)
}

// maker tells who made the resolver's file, from where it leads and from its
// first lines.
func (p *dnsProbe) maker() string {
	for _, m := range []struct{ part, manager string }{
		{"systemd/resolve/", DNSResolved},
		{"/NetworkManager/", DNSNetworkManager},
		{"resolvconf/", DNSResolvconf},
	} {
		if strings.Contains(p.target, m.part) {
			return m.manager
		}
	}
	for line := range strings.Lines(string(p.text)) {
		switch {
		case !strings.HasPrefix(line, "#"):
		case strings.Contains(line, "systemd-resolved"):
			return DNSResolved
		case strings.Contains(line, "NetworkManager"):
			return DNSNetworkManager
		case strings.Contains(line, "by resolvconf"), strings.Contains(line, "for resolvconf"):
			return DNSResolvconf
		}
	}
	if slices.ContainsFunc(p.servers, isResolvedStub) {
		return DNSResolved
	}
	return DNSFile
}

// isResolvedStub reports whether an address is one that only systemd-resolved
// listens at.
func isResolvedStub(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54})
}

// chooseDNS decides who is told of the tunnel's name servers, and says why in a
// line for the log. It is pure.
func chooseDNS(asked string, p *dnsProbe) (manager, why string) {
	if asked != "" && asked != DNSAuto {
		return asked, "dns_manager says so"
	}
	switch p.maker() {
	case DNSResolved:
		return p.ifResolved("/etc/resolv.conf leads to systemd-resolved")
	case DNSNetworkManager:
		return p.chooseNM()
	case DNSResolvconf:
		return p.chooseResolvconf("/etc/resolv.conf is made by resolvconf")
	}
	switch {
	case p.nssResolve && p.resolved == nil:
		return DNSResolved, "nsswitch.conf has programs ask systemd-resolved before /etc/resolv.conf"
	case p.nm == nil && p.nmMode == "dnsmasq" && len(p.servers) > 0 && onlyLoopback(p.servers):
		return DNSNetworkManager, "/etc/resolv.conf leads to the dnsmasq of NetworkManager"
	case p.missing:
		return DNSFile, "there is no /etc/resolv.conf, and nobody to make it"
	}
	return DNSFile, "/etc/resolv.conf is nobody's but the administrator's"
}

// ifResolved is systemd-resolved for the reason given, or the file without it.
func (p *dnsProbe) ifResolved(reason string) (manager, why string) {
	if p.resolved == nil {
		return DNSResolved, reason + ", which is running"
	}
	return DNSFile, fmt.Sprintf("%s, which cannot be used: %v", reason, p.resolved)
}

func (p *dnsProbe) chooseNM() (manager, why string) {
	const made = "/etc/resolv.conf is made by NetworkManager"
	switch {
	case p.nm != nil:
		return DNSFile, fmt.Sprintf("%s, which cannot be used: %v", made, p.nm)
	case p.nmMode == "systemd-resolved":
		return p.ifResolved(made + ", which leaves names to systemd-resolved")
	case p.nmMode == "none" || p.nmFile == "unmanaged":
		return DNSFile, made + ", which no longer cares for it"
	case p.nmFile == "resolvconf":
		return p.chooseResolvconf(made + ", which leaves it to resolvconf")
	}
	return DNSNetworkManager, fmt.Sprintf("%s, which is running (mode %s, %s)", made, p.nmMode, p.nmFile)
}

func (p *dnsProbe) chooseResolvconf(reason string) (manager, why string) {
	switch p.resolvconf {
	case "":
		return DNSFile, reason + ", whose program is gone"
	case systemdResolv:
		return p.ifResolved(reason + ", which is systemd-resolved's")
	}
	return DNSResolvconf, fmt.Sprintf("%s (%s)", reason, p.resolvconf)
}
