package platform

import (
	"net/netip"
)

// plan decides what a Config means on a machine: the changes in the order they
// are made (they are undone in the reverse one), and the notes for the user. It
// is pure. applied is what the journal says is ours already: such a change is
// kept with the undo it has.
//
// The order keeps two promises. Traffic is closed before it is pulled: our table
// has the guard route before a rule leads to it. And relays stay reachable:
// marked sockets have their rules before everything else gets its own.
//
// The packet filter's change belongs between the routes and the rules.
func plan(cfg Config, f *facts, applied []change) ([]change, []string, error) {
	if err := checkConflicts(cfg, f, applied); err != nil {
		return nil, nil, err
	}
	notes := foreignRules(cfg, f, applied)
	has6 := cfg.hasFamily(6)
	switch {
	case has6 && f.ipv6 == ipv6Missing:
		notes = append(notes, "this machine has no IPv6: only IPv4 goes through the tunnel")
	case has6 && f.ipv6 == ipv6Off:
		notes = append(notes, "IPv6 is switched off for new devices (net.ipv6.conf.default.disable_ipv6): only IPv4 goes through the tunnel, and IPv6 is refused")
	}
	list := planSysctls(cfg, f, applied)
	list = append(list, planDevice(cfg, f, applied)...)
	list = append(list, planRoutes(cfg, f)...)
	list = append(list, planRules(cfg, f)...)
	resolv, note := planResolver(cfg, f, applied)
	if resolv != nil {
		list = append(list, resolv)
	}
	if note != "" {
		notes = append(notes, note)
	}
	return list, notes, nil
}

func (c Config) hasFamily(family int) bool {
	for _, p := range c.Addresses {
		if familyOf(p.Addr()) == family {
			return true
		}
	}
	return false
}

func familyOf(a netip.Addr) int {
	if a.Is6() {
		return 6
	}
	return 4
}

// carried reports whether a family goes through the tunnel; one that does not
// is refused.
func carried(cfg Config, f *facts, family int) bool {
	return cfg.hasFamily(family) && (family == 4 || f.ipv6 == ipv6On)
}

func planSysctls(cfg Config, f *facts, applied []change) []change {
	var list []change
	add := func(name string, value int, needed bool) {
		c := &sysctlChange{Name: name, Value: value, Old: f.sysctls[name]}
		if old, ok := find(applied, c.String()).(*sysctlChange); ok {
			list = append(list, old)
		} else if needed {
			list = append(list, c)
		}
	}
	add(srcValidMark, 1, f.sysctls[srcValidMark] < 1)
	add(arpIgnore, 2, f.sysctls[arpIgnore] < 2)
	add(rpFilter, 2, f.strict)
	return list
}

func planDevice(cfg Config, f *facts, applied []change) []change {
	link := &linkChange{Device: cfg.Device, Index: f.link.Index, MTU: cfg.MTU, OldMTU: f.link.MTU, OldUp: isUp(&f.link)}
	if old, ok := find(applied, link.String()).(*linkChange); ok && old.Index == link.Index {
		link.OldMTU, link.OldUp = old.OldMTU, old.OldUp
	}
	list := []change{link}
	for _, p := range cfg.Addresses {
		c := &addressChange{Device: cfg.Device, Index: f.link.Index, Address: p.Addr()}
		if carried(cfg, f, familyOf(p.Addr())) && find(list, c.String()) == nil {
			list = append(list, c)
		}
	}
	return list
}

func planRoutes(cfg Config, f *facts) []change {
	var list []change
	for _, family := range f.families() {
		list = append(list, &routeChange{Family: family, Table: cfg.Table})
		if carried(cfg, f, family) {
			list = append(list, &routeChange{Family: family, Table: cfg.Table, Device: cfg.Device, Index: f.link.Index})
		}
	}
	return list
}

func planRules(cfg Config, f *facts) []change {
	var list []change
	for _, family := range f.families() {
		list = append(list,
			&ruleChange{Family: family, Priority: cfg.RulePriority, Mark: cfg.Mark, Mask: cfg.Mask, Table: mainTable},
			&ruleChange{Family: family, Priority: cfg.RulePriority + 10, Mark: cfg.Mark, Mask: cfg.Mask})
	}
	for _, family := range f.families() {
		list = append(list, &ruleChange{Family: family, Priority: cfg.RulePriority + 20, Table: cfg.Table})
	}
	return list
}
