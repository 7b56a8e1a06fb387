package exit

import (
	"fmt"
	"net/netip"
	"slices"
)

// Policy says what clients may reach through the exit, beyond its own services.
// The zero Policy is a sane one: public addresses only, and what DefaultPreset
// admits of them.
type Policy struct {
	// AllowPrivate opens prefixes that are refused before any rule: private and
	// other special ranges, and the exit's own addresses and networks.
	// Unspecified, broadcast and multicast addresses stay refused.
	AllowPrivate []netip.Prefix
	// Rules are asked in order, and the first that matches decides. They do not
	// open what AllowPrivate does not.
	Rules []Rule
	// Preset is one of Presets and decides what no rule does; "" stands for
	// DefaultPreset.
	Preset string
}

// ruleList returns all rules of p, the last of which matches everything.
func (p Policy) ruleList() ([]Rule, error) {
	preset, err := presetRules(p.Preset)
	if err != nil {
		return nil, err
	}
	if len(p.Rules) > MaxRules {
		return nil, fmt.Errorf("%d rules: at most %d are taken", len(p.Rules), MaxRules)
	}
	return append(slices.Clip(p.Rules), preset...), nil
}

// TCPPorts returns the ports that p admits for every client and every public
// address, for an announcement. Rules about a client, a prefix or a domain are
// left out. It is nil for a policy that makes no sense.
func (p Policy) TCPPorts() []PortRange {
	rules, err := p.ruleList()
	if err != nil {
		return nil
	}
	rules = slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool {
		return r.Client != nil || r.Prefix.IsValid() || r.Domain != ""
	})
	var open []PortRange
	for port := 1; port <= 65535; port++ {
		r, _ := decide(rules, &wish{network: "tcp", port: uint16(port)})
		switch n := len(open); {
		case !r.Allow:
		case n > 0 && int(open[n-1].Last) == port-1:
			open[n-1].Last = uint16(port)
		default:
			open = append(open, PortRange{uint16(port), uint16(port)})
		}
	}
	return open
}

// gate applies a Policy. It is safe for concurrent use.
type gate struct {
	allowed []netip.Prefix
	rules   []Rule // the operator's, then the preset's
	own     int    // how many of them are the operator's
	local   *localNets
}

func newGate(p Policy, local *localNets) (*gate, error) {
	g := &gate{local: local, own: len(p.Rules)}
	var err error
	if g.rules, err = p.ruleList(); err != nil {
		return nil, fmt.Errorf("exit: policy: %w", err)
	}
	for _, prefix := range p.AllowPrivate {
		if !prefix.IsValid() {
			return nil, fmt.Errorf("exit: allow_private: not a prefix: %v", prefix)
		}
		if a := prefix.Addr(); a.Is4In6() {
			if prefix.Bits() < 96 {
				return nil, fmt.Errorf("exit: allow_private: %v covers IPv4 in disguise: write it as IPv4", prefix)
			}
			prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
		}
		g.allowed = append(g.allowed, prefix.Masked())
	}
	return g, nil
}

// checkRules refuses what the rules deny. While the address of a name is not
// known, what depends on it passes, to be asked again.
func (g *gate) checkRules(q *wish) error {
	rule, m := decide(g.rules, q)
	switch {
	case m == undecided, m == matches && rule.Allow:
		return nil
	case m == matches && rule.Client == nil && !rule.Prefix.IsValid() && rule.Domain == "" && rule.Ports != nil:
		return refuse(ReasonPolicy, "port %d is closed at this exit", q.port)
	}
	return refuse(ReasonPolicy, "the policy of this exit does not admit that")
}

// check judges one address that is to be dialled for q: the ranges that are not
// for strangers first, then the rules, which also have to admit the IPv4 address that
// it is another way to write. It returns a *Refusal.
func (g *gate) check(q wish, a netip.Addr) error {
	if err := g.checkAddr(a); err != nil {
		return err
	}
	q.addr = a.Unmap()
	if err := g.checkRules(&q); err != nil {
		return err
	}
	if hidden, ok := hiddenIn(q.addr); ok {
		q.addr = hidden
		return g.checkRules(&q)
	}
	return nil
}

// checkAddr refuses every address that is not for strangers, with a *Refusal.
func (g *gate) checkAddr(a netip.Addr) error {
	if !a.IsValid() || a.Zone() != "" {
		return refuse(ReasonMalformed, "not an address that can be reached from here")
	}
	a = a.Unmap()
	if s := find(neverRanges, a); s != nil {
		return refuse(ReasonSpecial, "%v is %s", a, s.what)
	}
	// Before the opt-in: who opens a translator's prefix has not opened
	// what lies behind it.
	if hidden, ok := hiddenIn(a); ok {
		if err := g.checkAddr(hidden); err != nil {
			return refuse(reasonOf(err), "%v is another way to write %v, which this exit does not reach", a, hidden)
		}
	}
	if containedIn(g.allowed, a) {
		return nil
	}
	if s := find(specialRanges, a); s != nil {
		return refuse(ReasonSpecial, "%v is %s, which this exit does not reach", a, s.what)
	}
	if a.Is6() && !globalUnicast.Contains(a) && !nat64.Contains(a) {
		return refuse(ReasonSpecial, "%v is not a global address", a)
	}
	if g.local.contains(a) {
		return refuse(ReasonLocal, "%v belongs to the exit's own network", a)
	}
	return nil
}

// checkAll judges the addresses of one name: one bad address spoils them all,
// as nobody needs a name that is public and private at once, save those who
// would have the exit connect to the wrong one.
func (g *gate) checkAll(q wish, addrs []netip.Addr) error {
	var first error
	bad := 0
	for _, a := range addrs {
		if err := g.check(q, a); err != nil {
			bad++
			if first == nil || reasonOf(err) != ReasonPolicy {
				first = err
			}
		}
	}
	if bad > 0 && bad < len(addrs) && reasonOf(first) != ReasonPolicy {
		return refuse(ReasonMixed, "the name has both public and special addresses, so none of them is used")
	}
	return first
}

func containedIn(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
