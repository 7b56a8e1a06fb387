package doctor

import (
	"fmt"
	"strings"

	"github.com/nws-vpn/nws-vpn/platform"
)

// Asker is who wants to know what a machine can do.
type Asker struct {
	KillSwitch bool // and wants the packet filter
	Running    bool // beside a tunnel, which is proof enough of the permissions
	Plain      bool // a user without privileges, for whom `nws-vpn exec` is
}

// Machine judges what this machine can do for a tunnel.
func Machine(abilities []platform.Ability, in *platform.Inspection, by Asker) []Line {
	var lines []Line
	for _, a := range abilities {
		l := Line{Place: machine, Hop: a.Name, Verdict: OK, Found: a.Missing}
		switch {
		case a.Missing == "":
		case a.Unknown:
			l.Verdict = Unknown
		case a.Name == platform.AbilityAdmin && by.Running:
			l.Verdict = Unknown
			l.Found = "a tunnel is up, but this user may not look at all of it: run as root"
		case a.Name == platform.AbilityAdmin && by.Plain:
			l.Verdict, l.Found = Note, "`nws-vpn up` needs root; `nws-vpn exec` does not"
		case needed(a.Name, by.KillSwitch):
			l.Verdict = Failed
			l.Found, l.Do, _ = strings.Cut(a.Missing, ": ")
			if l.Do == "" {
				l.Do = "see the documentation of this system"
			}
		default:
			l.Verdict = Note
		}
		lines = append(lines, l)
	}
	return append(lines, resolver(in))
}

// needed reports whether there is no tunnel without an ability.
func needed(name string, killSwitch bool) bool {
	switch name {
	case platform.AbilityAdmin, platform.AbilityTUN:
		return true
	case platform.AbilityNFT:
		return killSwitch
	}
	return false
}

// resolver says who resolves names on this machine.
func resolver(in *platform.Inspection) Line {
	r := in.Resolver
	l := Line{Place: machine, Hop: "resolver", Verdict: OK}
	var servers []string
	for _, s := range r.Servers {
		servers = append(servers, s.String())
	}
	switch {
	case len(servers) == 0:
		l.Verdict = Note
		l.Found = fmt.Sprintf("%s names no server: programs ask this machine itself", r.Path)
	case r.Ours:
		l.Found = fmt.Sprintf("%s is the tunnel's: %s", r.Path, strings.Join(servers, ", "))
	default:
		l.Found = fmt.Sprintf("%s: %s", r.Path, strings.Join(servers, ", "))
	}
	if r.Link != "" {
		l.Found += " (a link to " + r.Link + ")"
	}
	switch r.Manager {
	case "":
	case platform.DNSFile:
		l.Found += "; `nws-vpn up` has written it"
	default:
		l.Found += fmt.Sprintf("; `nws-vpn up` has told %s of the tunnel's name servers", r.Manager)
	}
	return l
}
