package exit

import (
	"context"
	"net/netip"
)

// Explanation is why a policy admits a destination or does not.
type Explanation struct {
	// Service is set for one of the exit's own services, which no rule is about.
	Service bool
	// Addresses are judged one by one; a name without any is refused.
	Addresses []AddressVerdict
	// Refused is what a client would be told; nil if it would be let through.
	Refused error
}

// AddressVerdict is what the policy says of one address.
type AddressVerdict struct {
	Addr netip.Addr
	// Special says that the address is refused before any rule; no rule is
	// asked then.
	Special error
	// Hidden is the IPv4 address that Addr is another way to write, if Rules are what
	// was asked about that one and it is refused, unlike Addr by itself.
	Hidden netip.Addr
	// Rules are those that were asked, in order. Only the last one matches.
	Rules []Rule
	// Preset is how many of them, at the end, are the preset's.
	Preset  int
	Allowed bool
}

// Explain judges a destination as Handle would for a client, or for an unknown
// one if client is nil, and connects to nothing; names are looked up.
func (s *Server) Explain(ctx context.Context, client *[32]byte, network, address string) Explanation {
	parse := parseDestination
	if network == "ping" {
		parse = parseHost
	}
	d, err := parse(address)
	if err != nil {
		return Explanation{Refused: err}
	}
	if d.exit != nil {
		_, err := s.siteOf(nil).service(network, d)
		return Explanation{Service: true, Refused: err}
	}
	q := wish{network: network, host: d.host, port: d.port, client: client}
	g := s.gate.Load()
	addrs := []netip.Addr{d.addr}
	if d.host != "" {
		if err := g.checkRules(&q); err != nil {
			return Explanation{Addresses: []AddressVerdict{g.explain(q, netip.Addr{})}, Refused: err}
		}
		ctx, cancel := context.WithTimeout(ctx, s.dialTimeout)
		defer cancel()
		if addrs, err = s.resolver.lookup(ctx, d.host); err != nil {
			return Explanation{Refused: err}
		}
	}
	e := Explanation{Refused: g.checkAll(q, addrs)}
	for _, a := range addrs {
		e.Addresses = append(e.Addresses, g.explain(q, a))
	}
	return e
}

// explain judges one address; an invalid one stands for a name whose address
// does not matter.
func (g *gate) explain(q wish, a netip.Addr) AddressVerdict {
	v := AddressVerdict{Addr: a}
	if a.IsValid() {
		if v.Special = g.checkAddr(a); v.Special != nil {
			return v
		}
		q.addr = a.Unmap()
	}
	g.askRules(&v, &q)
	if hidden, ok := hiddenIn(q.addr); ok && v.Allowed {
		q.addr = hidden
		of := AddressVerdict{Addr: a, Hidden: hidden}
		if g.askRules(&of, &q); !of.Allowed {
			return of
		}
	}
	return v
}

// askRules notes what the rules say of q.
func (g *gate) askRules(v *AddressVerdict, q *wish) {
	for i := range g.rules {
		if i >= g.own {
			v.Preset++
		}
		v.Rules = append(v.Rules, g.rules[i])
		if g.rules[i].match(q) == matches {
			v.Allowed = g.rules[i].Allow
			return
		}
	}
}
