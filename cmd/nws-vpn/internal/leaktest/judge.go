package leaktest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nws-vpn/nws-vpn/platform"
)

// Judge makes the report of an observation.
func Judge(o *Observation) *Report {
	r := &Report{Schema: Schema, Version: o.Settings.Version, Time: o.Time, Verdict: OK, Listed: o.listed()}
	r.add(judgeTunnel(o))
	if o.As != o.Self {
		r.add(Line{Check: "user", Verdict: OK, Found: fmt.Sprintf("user %d, who runs this, stays outside the tunnel, as you have set: another one's packets are tried, %d's", o.Self, o.As)})
	}
	for _, family := range []int{4, 6} {
		r.add(judgeRules(o, family))
		r.add(judgeRoutes(o, family))
	}
	r.add(judgeFilter(o))
	for _, family := range []int{4, 6} {
		r.add(judgeWays(o, family))
	}
	r.add(judgeForwarding(o))
	r.add(judgeResolverFile(o))
	r.add(judgeWatch(o))
	for _, kind := range kinds {
		if l, ok := judgeProbes(o, kind); ok {
			r.add(l)
		}
	}
	for _, p := range o.Net.Problems {
		r.add(Line{Check: "reading the machine", Verdict: Unknown, Found: p, Do: "run this as root"})
	}
	return r
}

const reapply = "run `nws-vpn down` and `nws-vpn up` again, and find out which program changed it"

func judgeTunnel(o *Observation) Line {
	l := Line{Check: "tunnel", Verdict: OK, Found: o.Settings.State}
	switch {
	case o.Settings.State == "":
		l.Verdict, l.Found = Unknown, "it does not answer: "+o.Settings.Problem
		l.Do = "run this as the user who ran `nws-vpn up`, mostly root; if it hangs, end it, and run `nws-vpn up` again"
	case o.Settings.Problem != "":
		l.Found += ": " + o.Settings.Problem
	}
	return l
}

// judgeRules looks for the rule that takes everything to our table, and for
// rules of others that come before it.
func judgeRules(o *Observation, family int) Line {
	l := Line{Check: fmt.Sprintf("rules IPv%d", family), Verdict: OK}
	last := -1
	for _, r := range o.Net.Rules {
		if r.Family == family && leads(r) {
			last = r.Priority
		}
	}
	switch {
	case last < 0 && o.ourTable(family).users:
		l.Found = "only the traffic of some users is meant for the tunnel, as you have set"
		return l
	case last < 0:
		l.Verdict = Leak
		if o.drops("output") {
			l.Verdict = Weak
		}
		l.Found, l.Do = "the tunnel's rule is missing: nothing leads traffic into it", reapply
		return l
	}
	var foreign []string
	for _, r := range o.Net.Rules {
		local := r.Table == localTable && r.All && r.Mask == 0
		if r.Family == family && !r.Ours && r.Priority <= last && !local {
			foreign = append(foreign, r.Text)
		}
	}
	if len(foreign) == 0 {
		l.Found = "everything is led into the tunnel's table"
		return l
	}
	l.Verdict = Leak
	if o.drops("output") {
		l.Verdict = Weak
	}
	l.Found = fmt.Sprintf("%s of another program: what that takes does not come to the tunnel", list(foreign))
	l.Do = "stop the program that made it (another VPN?), or remove it: ip -" + fmt.Sprint(family) + " rule"
	return l
}

const localTable = 255

// judgeRoutes looks at our table: where it leads, and what happens when the TUN
// goes away.
func judgeRoutes(o *Observation, family int) Line {
	l := Line{Check: fmt.Sprintf("routes IPv%d", family), Verdict: OK}
	t := o.ourTable(family)
	guard, partial := false, len(t.routes) > 0
	for _, r := range t.routes {
		guard = guard || r.Kind == "unreachable"
		partial = partial && r.To.Bits() > 0
	}
	switch {
	case !guard:
		l.Verdict = Leak
		if o.drops("output") {
			l.Verdict = Weak
		}
		l.Found, l.Do = fmt.Sprintf("the guard route is missing from table %d: if the tunnel dies, traffic goes past it", t.number), reapply
	case t.device == "":
		l.Found = "closed: everything is refused"
	case !deviceUp(o.Net, t.device):
		l.Found = t.device + " is down: everything is refused"
	case partial:
		l.Found = "some networks go into " + t.device + ", as you have set; if it dies, they are refused"
	default:
		l.Found = "into " + t.device + "; if it dies, everything is refused"
	}
	return l
}

func deviceUp(in *platform.Inspection, name string) bool {
	return slices.ContainsFunc(in.Links, func(l platform.LinkState) bool { return l.Name == name && l.Up })
}

func judgeFilter(o *Observation) Line {
	l := Line{Check: "packet filter", Verdict: OK}
	switch {
	case !o.Net.Filtered:
		l.Verdict, l.Found, l.Do = Unknown, "only root may look at it", "run this as root"
	case o.filter() == nil:
		l.Verdict, l.Found = Weak, fmt.Sprintf("there is no table inet %s: a program that chooses its own interface gets past the tunnel", filterName)
		l.Do = `set kill_switch = "on", if it is off; else ` + reapply
	case !o.drops("output"):
		l.Verdict, l.Found, l.Do = Weak, fmt.Sprintf("the table inet %s does not drop what is not allowed to leave", filterName), reapply
	default:
		l.Found = "in force: what is not allowed to leave is dropped"
	}
	return l
}

// judgeWays reads the kernel's answers: a program's packet must go into the
// tunnel or be refused.
func judgeWays(o *Observation, family int) Line {
	l := Line{Check: fmt.Sprintf("ways IPv%d", family), Verdict: OK}
	t := o.ourTable(family)
	var past []string
	asked := 0
	for _, a := range o.Ways {
		if a.Forwarded || familyOf(a.To) != family {
			continue
		}
		if a.Problem != "" {
			l.Verdict, l.Found = Unknown, a.Problem
			return l
		}
		asked++
		if goesPast(o, t, a) {
			past = append(past, fmt.Sprintf("%s by %s", a.target(), a.Way.Device))
		}
	}
	switch {
	case asked == 0:
		l.Found = "there are none"
	case len(past) == 0:
		l.Found = fmt.Sprintf("%d destinations asked for: into the tunnel or refused", asked)
	default:
		l.Verdict = Leak
		if o.drops("output") {
			l.Verdict = Weak
		}
		l.Found, l.Do = "past the tunnel go "+list(past), reapply
	}
	return l
}

func (a *Asked) target() string {
	if a.Route.IsValid() {
		return a.Route.String()
	}
	return "any address"
}

// goesPast reports whether the kernel would send a packet by a device that is not
// the tunnel's, against the user's wish.
func goesPast(o *Observation, t table, a Asked) bool {
	if a.Way.Device == "" || a.Way.Device == t.device {
		return false
	}
	to := a.Route
	if !to.IsValid() {
		to = netip.PrefixFrom(a.To, a.To.BitLen())
	}
	for _, link := range o.Net.Links {
		if link.Name == a.Way.Device && link.Loopback {
			return false
		}
	}
	return !t.permitted(to)
}

func judgeForwarding(o *Observation) Line {
	l := Line{Check: "forwarded traffic", Verdict: OK}
	forwards := o.Net.Settings["ipv4.ip_forward"] == "1" || o.Net.Settings["ipv6.conf.all.forwarding"] == "1"
	if !forwards {
		l.Found = "this machine forwards nothing"
		return l
	}
	var past []string
	for _, a := range o.Ways {
		if a.Forwarded && goesPast(o, o.ourTable(familyOf(a.To)), a) {
			past = append(past, fmt.Sprintf("from %s by %s", a.In, a.Way.Device))
		}
	}
	switch {
	case len(past) == 0:
		l.Found = "that of containers and the like goes into the tunnel or nowhere"
	case o.drops("forward"):
		l.Verdict, l.Found, l.Do = Weak, "routes lead past the tunnel "+list(past)+"; the packet filter drops it", reapply
	default:
		l.Verdict, l.Found, l.Do = Leak, "past the tunnel goes what comes "+list(past), `set kill_switch = "on"; else `+reapply
	}
	return l
}

func judgeResolverFile(o *Observation) Line {
	r := o.Net.Resolver
	l := Line{Check: "resolver's file", Verdict: OK}
	if len(o.Settings.DNS) == 0 {
		l.Found = "left alone, as you have set"
		return l
	}
	if o.ourTable(4).device == "" && o.ourTable(6).device == "" {
		l.Found = "closed: there is nobody to ask"
		return l
	}
	var others []string
	local := len(r.Servers) > 0
	for _, s := range r.Servers {
		if !slices.Contains(o.Settings.DNS, s) && !s.IsLoopback() {
			others = append(others, s.String())
		}
		local = local && s.IsLoopback()
	}
	switch {
	case len(r.Servers) == 0:
		l.Verdict, l.Found, l.Do = Weak, r.Path+" names no server", reapply
	case len(others) > 0:
		l.Verdict = Weak
		l.Found = fmt.Sprintf("%s is not the tunnel's: somebody has put %s there", r.Path, list(others))
		l.Do = "find out which program writes it (a DHCP client?), and set dns_manager for it"
	case local:
		l.Found = r.Path + " leads to a resolver on this machine"
		if r.Manager != "" {
			l.Found += fmt.Sprintf(", and %s was told of the tunnel's servers", r.Manager)
		}
	default:
		l.Found = r.Path + " names the tunnel's servers"
	}
	return l
}

func judgeWatch(o *Observation) Line {
	l := Line{Check: "judge", Verdict: OK}
	var blind, sees []string
	for name, proved := range o.Watch.Proved {
		if proved {
			sees = append(sees, name)
		} else {
			blind = append(blind, name)
		}
	}
	slices.Sort(blind)
	slices.Sort(sees)
	switch {
	case o.Watch.Problem != "":
		l.Verdict, l.Found, l.Do = Unknown, "nobody watches what leaves: "+o.Watch.Problem, "run this as root"
	case len(sees) == 0 && len(blind) == 0:
		l.Found = "there is no interface that anything could leave by"
	case len(sees) == 0:
		l.Verdict = Unknown
		l.Found = "it watches " + list(blind) + ", but a packet that may leave was not seen there"
		l.Do = "is this machine online?"
	default:
		l.Found = "it sees what leaves by " + list(sees)
		if len(blind) > 0 {
			l.Found += "; by " + list(blind) + " nothing led out"
		}
	}
	return l
}

// judgeProbes judges all probes of a kind together.
func judgeProbes(o *Observation, kind string) (Line, bool) {
	l := Line{Check: kind, Verdict: OK}
	var seen, quiet []string
	tried, refused, answered := 0, 0, 0
	untried := ""
	for i := range o.Probes {
		p := &o.Probes[i]
		if p.Kind != kind {
			continue
		}
		switch {
		case p.Untried != "":
			untried = p.Untried
			continue
		case len(p.Seen) > 0 && !o.ourTable(familyOf(p.To.Addr())).permitted(netip.PrefixFrom(p.To.Addr(), p.To.Addr().BitLen())):
			seen = append(seen, p.describe())
		case p.Refused == "":
			quiet = append(quiet, p.describe())
		}
		tried++
		if p.Refused != "" {
			refused++
		}
		if p.Answered {
			answered++
		}
	}
	sees := o.Watch.Problem == "" && (len(o.Watch.Proved) == 0 || anyTrue(o.Watch.Proved))
	switch {
	case tried == 0 && untried == "":
		return l, false
	case len(seen) > 0:
		l.Verdict, l.Found, l.Do = Leak, "seen outside: "+list(seen), remedyFor(kind, o)
	case tried == 0:
		l.Verdict, l.Found, l.Do = Unknown, untried, "run this as root"
	case !sees && len(quiet) > 0:
		l.Verdict, l.Found = Unknown, fmt.Sprintf("%s went somewhere, and nobody watched", list(quiet))
	default:
		l.Found = fmt.Sprintf("%d probes, none seen outside", tried)
		if tried == 1 {
			l.Found = "1 probe, not seen outside"
		}
		if refused > 0 {
			l.Found += fmt.Sprintf("; %d refused", refused)
		}
		if answered > 0 {
			l.Found += fmt.Sprintf("; %d answered", answered)
		}
	}
	return l, true
}

func anyTrue(m map[string]bool) bool {
	for _, v := range m {
		if v {
			return true
		}
	}
	return false
}

func (p *Probe) describe() string {
	s := strings.ToUpper(p.Transport) + " to " + p.To.String()
	switch {
	case p.Kind == KindResolver: // who knows where that goes
		s = "a name asked of this machine's resolver"
	case p.Transport == "icmp":
		s = "ICMP to " + p.To.Addr().String()
	}
	if p.Device != "" {
		s += " by " + p.Device
	}
	if len(p.Seen) > 0 && !slices.Equal(p.Seen, []string{p.Device}) {
		s += " on " + strings.Join(p.Seen, ", ")
	}
	return s
}

func remedyFor(kind string, o *Observation) string {
	switch {
	case o.Net.Filtered && !o.drops("output"):
		return `the packet filter is not in force: set kill_switch = "on"; else ` + reapply
	case kind == KindPlain:
		return "end what must not be seen, and run `nws-vpn down`; then find out which program changed the routes"
	}
	return reapply
}

func familyOf(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 4
	}
	return 6
}

// list writes the first few texts, each once.
func list(texts []string) string {
	const most = 4
	texts = slices.Compact(slices.Clone(texts))
	s := strings.Join(texts[:min(len(texts), most)], ", ")
	if n := len(texts) - most; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return cmp.Or(s, "nothing")
}
