package platform

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	resolvedPath    = "/org/freedesktop/resolve1"
	resolvedManager = "org.freedesktop.resolve1.Manager"
	resolvedLink    = "org.freedesktop.resolve1.Link"
	errNoSuchLink   = "org.freedesktop.resolve1.NoSuchLink"
)

// resolvedChange has systemd-resolved send every name to the device's servers,
// by the settings it keeps for each link. They go with the device.
type resolvedChange struct {
	Device  string
	Index   int
	Servers []netip.Addr
	Claims  []string `json:",omitempty"` // domains beside the root, see resolvedClaims
}

// The types that its methods take (org.freedesktop.resolve1(5)).
type (
	linkServer struct {
		Family  int32
		Address []byte
	}
	linkDomain struct {
		Domain      string
		RoutingOnly bool
	}
	managerServer struct {
		Index   int32
		Family  int32
		Address []byte
	}
	managerDomain struct {
		Index       int32
		Domain      string
		RoutingOnly bool
	}
)

func (r *resolvedChange) String() string { return "resolvectl dns " + r.Device }

func (r *resolvedChange) check() error {
	if r.Index < 1 || r.Index > 1<<31-1 {
		return errors.New("no device")
	}
	return checkDevice(r.Device)
}

func (r *resolvedChange) links() []linkServer {
	var list []linkServer
	for _, a := range r.Servers {
		family := int32(unix.AF_INET)
		if a.Is6() {
			family = unix.AF_INET6
		}
		list = append(list, linkServer{family, a.AsSlice()})
	}
	return list
}

// domains are those under which the device's servers are asked: all. None of them
// is searched for single labels: what a network calls its own is not known at the
// other end.
func (r *resolvedChange) domains() []linkDomain {
	list := []linkDomain{{".", true}}
	for _, c := range r.Claims {
		list = append(list, linkDomain{c, true})
	}
	return list
}

// settings are the calls that make the change, in their order. The servers come
// last: until they are there, the link is not asked for anything.
func (r *resolvedChange) settings() []struct {
	method  string
	value   any
	missing bool // goes without, in versions that do not know it
} {
	return []struct {
		method  string
		value   any
		missing bool
	}{
		// The exit's resolver judges; .nostr has no signatures.
		{"SetLinkDNSSEC", "no", true},
		{"SetLinkDNSOverTLS", "no", true},
		{"SetLinkLLMNR", "no", true},
		{"SetLinkMulticastDNS", "no", true},
		{"SetLinkDefaultRoute", true, true},
		{"SetLinkDomains", r.domains(), false},
		{"SetLinkDNS", r.links(), false},
	}
}

func (r *resolvedChange) apply(e *env) error {
	b, err := openBus(e)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.here(resolvedName); err != nil {
		return err
	}
	for _, s := range r.settings() {
		err := b.call(resolvedName, resolvedPath, resolvedManager+"."+s.method, []any{int32(r.Index), s.value})
		if err != nil && !(s.missing && isBusError(err, errUnknownMethod)) {
			return err
		}
		if err := e.step("after " + s.method); err != nil {
			return err
		}
	}
	flushResolved(b)
	return nil
}

// flushResolved has the answers of the other side of the change forgotten. Best
// effort: they run out by themselves.
func flushResolved(b *bus) {
	_ = b.call(resolvedName, resolvedPath, resolvedManager+".FlushCaches", nil)
}

func (r *resolvedChange) inForce(e *env) (bool, error) {
	b, err := openBus(e)
	if err != nil {
		return false, err
	}
	defer b.close()
	if err := b.here(resolvedName); err != nil {
		return false, err
	}
	var path string
	if err := b.call(resolvedName, resolvedPath, resolvedManager+".GetLink", []any{int32(r.Index)}, &path); err != nil {
		return false, err
	}
	var servers []linkServer
	var domains []linkDomain
	if err := b.get(resolvedName, path, resolvedLink, "DNS", &servers); err != nil {
		return false, err
	}
	if err := b.get(resolvedName, path, resolvedLink, "Domains", &domains); err != nil {
		return false, err
	}
	same := slices.EqualFunc(servers, r.links(), func(a, b linkServer) bool { return slices.Equal(a.Address, b.Address) })
	for _, p := range []string{"DNSSEC", "DNSOverTLS"} {
		var mode string
		if err := b.get(resolvedName, path, resolvedLink, p, &mode); err == nil && mode != "no" {
			same = false
		}
	}
	return same && sameDomains(domains, r.domains()), nil
}

// undo forgets the link's settings. A service that is not there has none.
func (r *resolvedChange) undo(e *env) error {
	if !isDevice(r.Index, r.Device) {
		return nil
	}
	b, err := openBus(e)
	if err == nil {
		defer b.close()
		err = b.here(resolvedName)
	}
	if err == nil {
		err = b.call(resolvedName, resolvedPath, resolvedManager+".RevertLink", []any{int32(r.Index)})
		flushResolved(b)
	}
	if isAbsent(err) || isBusError(err, errNoSuchLink) {
		return nil
	}
	return err
}

func (r *resolvedChange) note(err error) string {
	return fmt.Sprintf("cannot tell systemd-resolved to send names into the tunnel (%v): programs go on asking it, and it its own servers; see `resolvectl status`, or set dns_manager", err)
}

// resolvedUplink returns the servers systemd-resolved has for other links than
// the device, those of the machine as a whole last.
func resolvedUplink(e *env, device int) ([]netip.Addr, error) {
	b, err := openBus(e)
	if err != nil {
		return nil, err
	}
	defer b.close()
	if err := b.here(resolvedName); err != nil {
		return nil, err
	}
	var list []managerServer
	if err := b.get(resolvedName, resolvedPath, resolvedManager, "DNS", &list); err != nil {
		return nil, err
	}
	var links, global []netip.Addr
	for _, s := range list {
		a, ok := addrFromBytes(s.Address, int(s.Index))
		switch {
		case !ok || int(s.Index) == device:
		case s.Index == 0:
			global = append(global, a)
		default:
			links = append(links, a)
		}
	}
	return append(links, global...), nil
}
