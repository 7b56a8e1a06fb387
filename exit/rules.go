package exit

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// Rule allows or denies a part of what clients ask for. Every field but Allow
// narrows it; one with its zero value does not.
type Rule struct {
	Allow   bool
	Network string       // tcp, udp or ping
	Client  *[32]byte    // who asks, once proven
	Prefix  netip.Prefix // of the address that is dialled
	Domain  string       // of the name that was asked for: itself and all below it
	Ports   []PortRange  // a ping has none, and matches no rule with ports
}

// PortRange is the ports from First to Last.
type PortRange struct{ First, Last uint16 }

func (r PortRange) contains(port uint16) bool { return r.First <= port && port <= r.Last }

// String writes r as it is read: 80 or 6000-6999.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Bounds of a policy.
const (
	MaxRules      = 1024
	maxRulePorts  = 256
	maxRuleLength = 4096
)

// ParseRule reads a rule:
//
//	allow|deny [tcp|udp|ping] [npub1…] DESTINATION[:PORTS]
//
// DESTINATION is * for everything, an address, a prefix, or a domain; those of
// IPv6 stand in brackets before a port. PORTS are numbers and ranges with commas
// between them.
func ParseRule(text string) (Rule, error) {
	if len(text) > maxRuleLength {
		return Rule{}, fmt.Errorf("a rule has at most %d bytes", maxRuleLength)
	}
	words := strings.Fields(text)
	if len(words) < 2 {
		return Rule{}, fmt.Errorf("%q is no rule: want allow or deny, then what: for example allow tcp *:443", text)
	}
	var r Rule
	switch words[0] {
	case "allow":
		r.Allow = true
	case "deny":
	default:
		return Rule{}, fmt.Errorf("a rule begins with allow or deny, not %q", words[0])
	}
	for _, word := range words[1 : len(words)-1] {
		if err := r.narrow(word); err != nil {
			return Rule{}, err
		}
	}
	if err := r.destination(words[len(words)-1]); err != nil {
		return Rule{}, err
	}
	if r.Network == "ping" && r.Ports != nil {
		return Rule{}, fmt.Errorf("%q: a ping has no port", text)
	}
	return r, nil
}

// narrow reads a word between the action and the destination.
func (r *Rule) narrow(word string) error {
	switch {
	case word == "tcp", word == "udp", word == "ping":
		if r.Network != "" {
			return fmt.Errorf("%s and %s in one rule: write two", r.Network, word)
		}
		r.Network = word
		return nil
	case strings.HasPrefix(word, "npub1"):
		n, err := name.Parse(word)
		if err != nil {
			return err
		}
		if r.Client != nil {
			return fmt.Errorf("two clients in one rule: write two")
		}
		r.Client = &n.Key
		return nil
	}
	return fmt.Errorf("%q is neither tcp, udp, ping nor an npub", word)
}

// destination reads the last word.
func (r *Rule) destination(word string) error {
	where, ports, found := cutPorts(word)
	if found {
		var err error
		if r.Ports, err = parsePorts(ports); err != nil {
			return err
		}
	}
	if where == "*" {
		return nil
	}
	if p, ok := parsePrefix(where); ok {
		r.Prefix = p
		return nil
	}
	if where == "tcp" || where == "udp" || where == "ping" {
		return fmt.Errorf("to where? %s * is all of it", where)
	}
	domain := strings.TrimPrefix(strings.ToLower(strings.TrimSuffix(where, ".")), ".")
	switch {
	case name.Under(domain) || isNIP19(domain):
		return fmt.Errorf("%q: rules are about the world outside; what stands behind the exit's own name are its services", where)
	case !isHostName(domain):
		return fmt.Errorf("%q is no *, address, prefix or domain", where)
	}
	r.Domain = domain
	return nil
}

// cutPorts parts what stands before the ports from them. The colons of a bare
// IPv6 address are its own.
func cutPorts(word string) (where, ports string, found bool) {
	if rest, ok := strings.CutPrefix(word, "["); ok {
		inside, after, _ := strings.Cut(rest, "]")
		ports, found = strings.CutPrefix(after, ":")
		if !found && after != "" {
			return word, "", false
		}
		return inside, ports, found
	}
	if strings.Count(word, ":") > 1 {
		return word, "", false
	}
	return strings.Cut(word, ":")
}

// parsePrefix reads an address or a prefix; IPv4 in the disguise of IPv6 becomes
// IPv4.
func parsePrefix(s string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, false
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return p, false
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

func parsePorts(s string) ([]PortRange, error) {
	if s == "*" {
		return nil, nil
	}
	var out []PortRange
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || a == 0 || b < a {
			return nil, fmt.Errorf("%q: want ports from 1 to 65535, like 80,443,6000-6999", s)
		}
		out = append(out, PortRange{uint16(a), uint16(b)})
	}
	if len(out) > maxRulePorts {
		return nil, fmt.Errorf("a rule has at most %d ranges of ports", maxRulePorts)
	}
	return out, nil
}

// String writes r as it is read.
func (r Rule) String() string {
	words := []string{"deny"}
	if r.Allow {
		words[0] = "allow"
	}
	if r.Network != "" {
		words = append(words, r.Network)
	}
	if r.Client != nil {
		words = append(words, name.Name{Key: *r.Client}.NPub())
	}
	where := "*"
	switch {
	case r.Domain != "":
		where = r.Domain
	case r.Prefix.IsValid() && r.Prefix.Addr().Is6() && r.Ports != nil:
		where = "[" + r.Prefix.String() + "]"
	case r.Prefix.IsValid():
		where = r.Prefix.String()
	}
	if r.Ports != nil {
		var ports []string
		for _, p := range r.Ports {
			ports = append(ports, p.String())
		}
		where += ":" + strings.Join(ports, ",")
	}
	return strings.Join(append(words, where), " ")
}

// MarshalText and UnmarshalText are String and ParseRule, for the configuration.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what ParseRule does.
func (r *Rule) UnmarshalText(text []byte) error {
	parsed, err := ParseRule(string(text))
	if err == nil {
		*r = parsed
	}
	return err
}

// wish is what the rules are asked about. One without an address is a name that
// has not been resolved yet.
type wish struct {
	network string
	host    string // the name that was asked for, or ""
	port    uint16 // 0 for a ping
	client  *[32]byte
	addr    netip.Addr // or invalid
}

// match is how a rule stands to what is asked.
type match int

const (
	noMatch match = iota
	matches
	undecided // depends on the address, which is not known yet
)

func (r *Rule) match(q *wish) match {
	switch {
	case r.Network != "" && r.Network != q.network,
		r.Client != nil && (q.client == nil || *r.Client != *q.client),
		r.Ports != nil && !slices.ContainsFunc(r.Ports, func(p PortRange) bool { return p.contains(q.port) }),
		r.Domain != "" && !under(q.host, r.Domain):
		return noMatch
	case !r.Prefix.IsValid():
		return matches
	case !q.addr.IsValid():
		return undecided
	case r.Prefix.Contains(q.addr.Unmap()):
		return matches
	}
	return noMatch
}

// under reports whether host is domain or below it.
func under(host, domain string) bool {
	rest, ok := strings.CutSuffix(host, domain)
	return ok && (rest == "" || strings.HasSuffix(rest, "."))
}

// decide returns the first rule that matches q, and whether one does. Without an
// address, a rule that depends on it ends the search.
func decide(rules []Rule, q *wish) (rule *Rule, m match) {
	for i := range rules {
		if m := rules[i].match(q); m != noMatch {
			return &rules[i], m
		}
	}
	return nil, noMatch
}
