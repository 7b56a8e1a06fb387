package platform

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// uplinkServers returns the name servers the machine uses without us. applied
// are our changes: what they hide is looked for behind them.
func uplinkServers(e *env, applied []change) []netip.Addr {
	var best []netip.Addr
	for _, source := range uplinkSources(e, applied) {
		servers := source()
		if len(servers) > 0 && !onlyLoopback(servers) {
			return servers
		}
		if len(best) == 0 {
			best = servers
		}
	}
	return best
}

// uplinkSources are where to look, the best first. A server on this machine is
// the last choice: it may forward into the tunnel.
func uplinkSources(e *env, applied []change) []func() []netip.Addr {
	var list []func() []netip.Addr
	var ours []netip.Addr
	var file *resolvChange
	for _, ch := range applied {
		switch ch := ch.(type) {
		case *resolvChange:
			file, ours = ch, append(ours, parseResolvConf(ch.Content)...)
		case *resolvedChange:
			ours = append(ours, ch.Servers...)
			list = append(list, func() []netip.Addr { return orNone(resolvedUplink(e, ch.Index)) })
		case *nmChange:
			ours = append(ours, ch.Servers...)
			list = append(list, func() []netip.Addr { return orNone(nmUplink(e)) })
		case *resolvconfChange:
			ours = append(ours, ch.Servers...)
			list = append(list, func() []netip.Addr { return recordedServers(e, ch.key()) })
		}
	}
	list = append(list, func() []netip.Addr { return fileServers(e, file) })
	for _, name := range e.dns.uplinkFiles {
		list = append(list, func() []netip.Addr {
			text, err := readBounded(name)
			if err != nil {
				return nil
			}
			return parseResolvConf(text)
		})
	}
	for i, source := range list {
		list[i] = func() []netip.Addr {
			return slices.DeleteFunc(source(), func(a netip.Addr) bool { return slices.Contains(ours, a) })
		}
	}
	return list
}

func orNone(servers []netip.Addr, err error) []netip.Addr {
	if err != nil {
		return nil
	}
	return servers
}

// fileServers reads the resolver's file, or what stands behind ours.
func fileServers(e *env, r *resolvChange) []netip.Addr {
	now, err := readFile(e.resolvConf)
	if err != nil {
		return nil
	}
	if r != nil && r.isOurs(now) {
		now = r.Saved
	}
	text, err := now.text(e)
	if err != nil || strings.HasPrefix(string(text), resolvHeader) {
		return nil
	}
	return parseResolvConf(text)
}

// recordedServers returns what others than us have registered with resolvconf.
func recordedServers(e *env, ours string) []netip.Addr {
	var servers []netip.Addr
	for _, dir := range e.dns.recordDirs {
		entries, _ := os.ReadDir(dir) // sorted by name
		for _, entry := range entries[:min(len(entries), 64)] {
			if entry.Name() == ours || !entry.Type().IsRegular() {
				continue
			}
			if text, err := readBounded(filepath.Join(dir, entry.Name())); err == nil {
				servers = append(servers, parseResolvConf(text)...)
			}
		}
	}
	return servers
}
