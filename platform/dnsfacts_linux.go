package platform

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// dnsPlaces are where the managers of names are found.
type dnsPlaces struct {
	bus string // the system's message bus
	// busTimeout bounds all that is asked of the bus for one purpose, from
	// connecting on.
	busTimeout  time.Duration
	nsswitch    string   // what programs ask for names
	programDirs []string // where resolvconf may be
	recordDirs  []string // where its kinds keep what is registered
	// Where a forwarder on this machine leaves the servers it forwards to, in
	// the order they are tried.
	uplinkFiles []string
}

func machineDNSPlaces() dnsPlaces {
	return dnsPlaces{
		bus:         "/run/dbus/system_bus_socket",
		busTimeout:  2 * time.Second,
		nsswitch:    "/etc/nsswitch.conf",
		programDirs: []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"},
		recordDirs: []string{
			"/run/resolvconf/keys", "/run/resolvconf/interfaces", // openresolv
			"/run/resolvconf/interface", "/etc/resolvconf/run/interface", // Debian's
		},
		uplinkFiles: []string{
			"/run/systemd/resolve/resolv.conf",
			"/run/NetworkManager/no-stub-resolv.conf",
		},
	}
}

// managesDNS reports whether programs are to ask servers in the tunnel.
func (c Config) managesDNS() bool { return c.Device != "" && len(c.DNS) > 0 }

// gatherDNS reads the resolver's file and, unless the file is all that matters,
// asks who manages it.
func (f *facts) gatherDNS(e *env, cfg Config) {
	f.resolv, f.resolvErr = readFile(e.resolvConf)
	if !cfg.managesDNS() || f.resolvErr != nil && f.resolv.Kind == "" {
		return
	}
	text, _ := f.resolv.text(e)
	f.dns.sees(f.resolv, text)
	if cfg.DNSManager == DNSFile || cfg.DNSManager == DNSNone {
		return
	}
	f.dns.nssResolve = asksResolved(e.dns.nsswitch)
	_, f.dns.resolvconf = findResolvconf(e)
	b, err := openBus(e)
	if err != nil {
		f.dns.resolved, f.dns.nm = err, err
		return
	}
	defer b.close()
	if f.dns.resolved = b.here(resolvedName); f.dns.resolved == nil {
		f.dns.resolved = f.gatherResolved(b, cfg)
	}
	if f.dns.nm = b.here(nmName); f.dns.nm == nil {
		_ = b.get(nmName, nmDNSPath, nmDNSManager, "Mode", &f.dns.nmMode)
		_ = b.get(nmName, nmDNSPath, nmDNSManager, "RcManager", &f.dns.nmFile)
		f.dns.nmNow, f.dns.nm = readNMGlobal(b)
	}
}

// asksResolved reports whether nsswitch.conf names systemd-resolved's module for
// host names before the one that reads the resolver's file.
func asksResolved(nsswitch string) bool {
	text, err := readHead(nsswitch)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "hosts:" {
			continue
		}
		resolve, dns := slices.Index(fields, "resolve"), slices.Index(fields, "dns")
		return resolve > 0 && (dns < 0 || resolve < dns)
	}
	return false
}

// gatherResolved finds out which names systemd-resolved does not bring to us.
func (f *facts) gatherResolved(b *bus, cfg Config) error {
	var domains []managerDomain
	if err := b.get(resolvedName, resolvedPath, resolvedManager, "Domains", &domains); err != nil {
		return err
	}
	f.dns.catchers = resolvedCatchers(domains, f.link.Index)
	if len(cfg.Include)+len(cfg.IncludeUIDs) > 0 {
		return nil // the rest stays outside, with its names
	}
	var servers []managerServer
	if err := b.get(resolvedName, resolvedPath, resolvedManager, "DNS", &servers); err != nil {
		return err
	}
	f.dns.claims = resolvedClaims(servers, domains, f.link.Index, func(a netip.Addr) bool { return f.mayAsk(cfg, a) })
	return nil
}

// resolvedCatchers names the other links to which systemd-resolved sends all
// names, as it will to ours.
func resolvedCatchers(domains []managerDomain, device int) []string {
	var names []string
	for _, d := range domains {
		if d.Domain != "." || int(d.Index) == device || len(names) == 8 {
			continue
		}
		if d.Index == 0 {
			names = append(names, "its own configuration")
		} else if i, err := net.InterfaceByIndex(int(d.Index)); err == nil {
			names = append(names, i.Name)
		}
	}
	return names
}

// dnsManager decides who is told of the tunnel's name servers, and says why. It
// is pure. Behind a file of ours, the one it stands for counts.
func (f *facts) dnsManager(cfg Config, applied []change) (manager, why string) {
	if !cfg.managesDNS() {
		return DNSNone, "the tunnel has no name server"
	}
	p := f.dns
	for _, ch := range applied {
		if r, ok := ch.(*resolvChange); ok && r.isOurs(f.resolv) {
			p.sees(r.Saved, r.Saved.Content)
		}
	}
	return chooseDNS(cfg.DNSManager, &p)
}

// planResolver is the change that has programs ask the tunnel for names, if there is
// to be one, and what the user should know of it.
func planResolver(cfg Config, f *facts, applied []change) (change, string) {
	manager, _ := f.dnsManager(cfg, applied)
	switch manager {
	case DNSNone:
		return nil, ""
	case DNSResolved:
		note := ""
		if len(f.dns.catchers) > 0 {
			note = fmt.Sprintf("systemd-resolved sends all names to %s too, and takes the first answer: take the domain ~. away there", strings.Join(f.dns.catchers, ", "))
		}
		return &resolvedChange{Device: cfg.Device, Index: f.link.Index, Servers: cfg.DNS, Claims: f.dns.claims}, note
	case DNSNetworkManager:
		c := &nmChange{Servers: cfg.DNS, Saved: f.dns.nmNow}
		if f.dns.nm != nil {
			return nil, c.note(f.dns.nm)
		}
		if old, ok := find(applied, c.String()).(*nmChange); ok && old.isOurs(f.dns.nmNow) {
			c.Saved = old.Saved
		}
		return c, ""
	case DNSResolvconf:
		c := &resolvconfChange{Device: cfg.Device, Flavour: f.dns.resolvconf, Servers: cfg.DNS}
		if err := c.check(); err != nil {
			return nil, c.note(err)
		}
		return c, ""
	}
	return planFile(cfg, f, applied)
}

// planFile puts a file of ours in the place of the resolver's.
func planFile(cfg Config, f *facts, applied []change) (change, string) {
	c := &resolvChange{Content: formatResolvConf(cfg.DNS), Saved: f.resolv}
	if f.resolvErr != nil {
		return nil, c.note(f.resolvErr)
	}
	if old, ok := find(applied, c.String()).(*resolvChange); ok && old.isOurs(f.resolv) {
		c.Saved = old.Saved
		return c, ""
	}
	if c.isHeaded(f.resolv) {
		return c, "/etc/resolv.conf was left by an earlier tunnel whose journal is gone: after `nws-vpn down`, put your own back"
	}
	return c, ""
}

// outlivesBoot reports whether a change is still there after the machine was
// started anew.
func outlivesBoot(ch change) bool {
	switch ch.(type) {
	case *resolvChange, *nmChange:
		return true
	}
	return false
}

// managerOf tells who was told of the tunnel's name servers by the changes, and
// of which.
func managerOf(applied []change) (manager string, servers []netip.Addr) {
	for _, ch := range applied {
		switch ch := ch.(type) {
		case *resolvChange:
			return DNSFile, parseResolvConf(ch.Content)
		case *resolvedChange:
			return DNSResolved, ch.Servers
		case *nmChange:
			return DNSNetworkManager, ch.Servers
		case *resolvconfChange:
			return DNSResolvconf, ch.Servers
		}
	}
	return "", nil
}
