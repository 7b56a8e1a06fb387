package platform

import (
	"errors"
	"net/netip"
	"slices"
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
// The packet filter comes first: it is all that decides for a program that
// chooses its own way, and it lets marked sockets out whatever the routes say.
func plan(cfg Config, f *facts, applied []change) ([]change, []string, error) {
	f.keepSessions(cfg, applied)
	if err := checkConflicts(cfg, f, applied); err != nil {
		return nil, nil, err
	}
	notes := foreignRules(cfg, f, applied)
	has6 := cfg.Device != "" && cfg.hasFamily(6)
	switch {
	case has6 && f.ipv6 == ipv6Missing:
		notes = append(notes, "this machine has no IPv6: only IPv4 goes through the tunnel")
	case has6 && f.ipv6 == ipv6Off:
		notes = append(notes, "IPv6 is switched off for new devices (net.ipv6.conf.default.disable_ipv6): only IPv4 goes through the tunnel, and IPv6 is refused")
	}
	list := planSysctls(cfg, f, applied)
	if cfg.Filter == FilterOn {
		list = append(list, planFilter(cfg, f))
	}
	if cfg.Device != "" {
		list = append(list, planDevice(cfg, f, applied)...)
	}
	list = append(list, planRoutes(cfg, f)...)
	list = append(list, planRules(cfg, f)...)
	if cfg.Device == "" {
		return list, notes, nil
	}
	resolv, note := planResolver(cfg, f, applied)
	if resolv == nil && note != "" && cfg.DNSNeeded {
		return nil, nil, errors.New(note)
	}
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
	return cfg.Device != "" && cfg.hasFamily(family) && (family == 4 || f.ipv6 == ipv6On)
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
	// A packet filter restores the mark of what comes in for us.
	add(rpFilter, 2, f.strict && cfg.Filter == FilterOff)
	if cfg.Filter == FilterOn {
		add(markAccepted, 1, f.sysctls[markAccepted] < 1)
		add(markReflected4, 1, f.sysctls[markReflected4] < 1)
		if f.ipv6 != ipv6Missing {
			add(markReflected6, 1, f.sysctls[markReflected6] < 1)
		}
	}
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

// planFilter compiles nothing yet: the change does (see filterSpec).
func planFilter(cfg Config, f *facts) change {
	s := filterSpec{
		Device: cfg.Device, Mark: cfg.Mark, Mask: cfg.Mask, UID: cfg.UID,
		RefuseInbound: cfg.RefuseInbound, ForwardBlock: cfg.ForwardBlock,
		AllowLAN: cfg.AllowLAN, LAN: f.lan, Containers: f.inside,
		Reserved: cfg.Reserved, Exclude: cfg.Exclude, Include: cfg.Include,
		ExcludeUIDs: cfg.ExcludeUIDs, IncludeUIDs: cfg.IncludeUIDs,
		Cgroup: f.cgroup, Bridges: f.bridges, Sessions: f.sessions, Linger: cfg.Linger,
	}
	if cfg.Device != "" {
		for _, p := range cfg.Addresses {
			s.Addresses = append(s.Addresses, p.Addr())
		}
	}
	return &filterChange{Spec: s}
}

// keepSessions makes the connections from outside those that there were when the
// filter was made: later ones are recognized by it.
func (f *facts) keepSessions(cfg Config, applied []change) {
	if cfg.Filter != FilterOn || cfg.RefuseInbound {
		f.sessions = nil
	} else if old, ok := find(applied, (&filterChange{}).String()).(*filterChange); ok {
		f.sessions = old.Spec.Sessions
	}
}

func planRoutes(cfg Config, f *facts) []change {
	var list []change
	add := func(r *routeChange) {
		if find(list, r.String()) == nil {
			list = append(list, r)
		}
	}
	for _, family := range f.families() {
		into := func(dst netip.Prefix) {
			add(&routeChange{Family: family, Table: cfg.Table, Dst: dst})
			if carried(cfg, f, family) {
				add(&routeChange{Family: family, Table: cfg.Table, Dst: dst, Device: cfg.Device, Index: f.link.Index})
			}
		}
		for _, p := range ofFamily(family, cfg.pinned()) {
			into(p)
		}
		if len(cfg.Include) == 0 {
			into(netip.Prefix{})
		}
		for _, p := range ofFamily(family, cfg.Exclude) {
			add(&routeChange{Family: family, Table: cfg.Table, Dst: p, Throw: true})
		}
		for _, l := range slices.Concat(f.inside, f.lan) {
			if familyOf(l.Prefix.Addr()) == family {
				add(&routeChange{Family: family, Table: cfg.Table, Dst: l.Prefix, Throw: true})
			}
		}
	}
	return list
}

// pinned are the networks that need routes of their own into the tunnel: those
// of the user, and what the tunnel itself needs beside them.
func (c Config) pinned() []netip.Prefix {
	if len(c.Include)+len(c.Exclude) == 0 {
		return nil
	}
	list := slices.Concat(c.Include, c.Reserved)
	for _, a := range c.DNS {
		list = append(list, single(a))
	}
	return list
}

// ofFamily returns the networks of one family, masked.
func ofFamily(family int, list []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		if familyOf(p.Addr()) == family {
			out = append(out, p.Masked())
		}
	}
	return out
}

// lastRule is how far our last rule's priority is from the first's.
const lastRule = 20

func planRules(cfg Config, f *facts) []change {
	var list []change
	for _, family := range f.families() {
		list = append(list,
			&ruleChange{Family: family, Priority: cfg.RulePriority, Mark: cfg.Mark, Mask: cfg.Mask, Table: mainTable},
			&ruleChange{Family: family, Priority: cfg.RulePriority + 10, Mark: cfg.Mark, Mask: cfg.Mask})
		list = append(list, planOtherRules(cfg, f, family)...)
	}
	for _, family := range f.families() {
		last := ruleChange{Family: family, Priority: cfg.RulePriority + lastRule, Table: cfg.Table}
		if len(cfg.IncludeUIDs) == 0 {
			list = append(list, &last)
		}
		for _, uid := range cfg.IncludeUIDs {
			r := last
			r.User = &uid
			list = append(list, &r)
		}
	}
	return list
}

// planOtherRules are the rules between those for marked sockets and the last:
// answers to what the machine forwards, connections from outside whose sockets
// are older than the marks, and users who leave directly.
func planOtherRules(cfg Config, f *facts, family int) []change {
	var list []change
	p := cfg.RulePriority
	if cfg.Filter == FilterOn && cfg.Device != "" {
		list = append(list, &ruleChange{Family: family, Priority: p + 12, In: cfg.Device, Table: mainTable})
	}
	for _, c := range f.sessions {
		if familyOf(c.Local.Addr()) == family {
			list = append(list, &ruleChange{Family: family, Priority: p + 11, Session: &c, Table: mainTable})
		}
	}
	if len(cfg.ExcludeUIDs)+len(cfg.IncludeUIDs) == 0 {
		return list
	}
	own := cfg.Reserved
	for _, a := range cfg.DNS {
		own = append(slices.Clip(own), single(a))
	}
	for _, to := range ofFamily(family, own) {
		list = append(list, &ruleChange{Family: family, Priority: p + 13, To: to, Table: cfg.Table})
	}
	for _, uid := range cfg.ExcludeUIDs {
		list = append(list,
			&ruleChange{Family: family, Priority: p + 15, User: &uid, Table: mainTable},
			&ruleChange{Family: family, Priority: p + 16, User: &uid})
	}
	return list
}
