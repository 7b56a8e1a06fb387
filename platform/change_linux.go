package platform

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/vishvananda/netlink"
)

// change is one thing about the machine that a Config wants to be so. It is a
// value that the journal keeps, and it holds all that its undo needs.
type change interface {
	// String names the change as a command would; two changes with the same
	// name are about the same thing.
	String() string
	// inForce reports whether the machine is as the change wants it.
	inForce(e *env) (bool, error)
	// apply makes it so. Applying what is in force does nothing.
	apply(e *env) error
	// undo puts the machine back. It is harmless when the change was never
	// made, was made in part, was undone before, or when what it was about is
	// gone.
	undo(e *env) error
}

// optional is a change the tunnel works without.
type optional interface {
	change
	// note tells the user, in one line, what it means that the change could not
	// be made, and what to do.
	note(err error) string
}

// env is what the changes touch besides the kernel's own tables, so that a test
// can name another place, and fail at any point.
type env struct {
	resolvConf string
	tun        string
	dns        dnsPlaces
	// step is called before and after everything that changes the machine or
	// the journal. An error stands for the failure of what comes next.
	step func(point string) error
	// read, if any, is what was read before (see atOnce).
	read *listings
}

// listings are what was read of the kernel's tables, by family and table.
type listings struct {
	routes map[[2]int][]netlink.Route
	rules  map[int][]netlink.Rule
}

// atOnce returns an env that reads each of the kernel's tables once: for looking
// at many changes without making any.
func (e *env) atOnce() *env {
	once := *e
	once.read = &listings{routes: make(map[[2]int][]netlink.Route), rules: make(map[int][]netlink.Rule)}
	return &once
}

func (e *env) listRoutes(family, table int) ([]netlink.Route, error) {
	if e == nil || e.read == nil {
		return listRoutes(family, table)
	}
	key := [2]int{family, table}
	if routes, ok := e.read.routes[key]; ok {
		return routes, nil
	}
	routes, err := listRoutes(family, table)
	if err == nil {
		e.read.routes[key] = routes
	}
	return routes, err
}

func (e *env) listRules(family int) ([]netlink.Rule, error) {
	if e == nil || e.read == nil {
		return listRules(family)
	}
	if rules, ok := e.read.rules[family]; ok {
		return rules, nil
	}
	rules, err := listRules(family)
	if err == nil {
		e.read.rules[family] = rules
	}
	return rules, err
}

func machineEnv() *env {
	return &env{
		resolvConf: "/etc/resolv.conf",
		tun:        "/dev/net/tun",
		dns:        machineDNSPlaces(),
		step:       func(string) error { return nil },
	}
}

// record is a change as the journal keeps it: exactly one field is set.
type record struct {
	Resolved       *resolvedChange   `json:"resolved,omitempty"`
	NetworkManager *nmChange         `json:"networkmanager,omitempty"`
	Resolvconf     *resolvconfChange `json:"resolvconf,omitempty"`

	Sysctl  *sysctlChange  `json:"sysctl,omitempty"`
	Link    *linkChange    `json:"link,omitempty"`
	Address *addressChange `json:"address,omitempty"`
	Route   *routeChange   `json:"route,omitempty"`
	Rule    *ruleChange    `json:"rule,omitempty"`
	Resolv  *resolvChange  `json:"resolv,omitempty"`
	Filter  *filterChange  `json:"filter,omitempty"`
}

func recordOf(c change) record {
	switch c := c.(type) {
	case *resolvedChange:
		return record{Resolved: c}
	case *nmChange:
		return record{NetworkManager: c}
	case *resolvconfChange:
		return record{Resolvconf: c}
	case *sysctlChange:
		return record{Sysctl: c}
	case *linkChange:
		return record{Link: c}
	case *addressChange:
		return record{Address: c}
	case *routeChange:
		return record{Route: c}
	case *ruleChange:
		return record{Rule: c}
	case *resolvChange:
		return record{Resolv: c}
	case *filterChange:
		return record{Filter: c}
	}
	return record{} // refused when the journal is read
}

// change returns what the record holds, after checking it: a journal is a file.
func (r record) change() (change, error) {
	var found []change
	var err error
	if r.Resolved != nil {
		found, err = append(found, r.Resolved), r.Resolved.check()
	}
	if r.NetworkManager != nil {
		found = append(found, r.NetworkManager)
	}
	if r.Resolvconf != nil {
		found, err = append(found, r.Resolvconf), r.Resolvconf.check()
	}
	if r.Sysctl != nil {
		found, err = append(found, r.Sysctl), r.Sysctl.check()
	}
	if r.Link != nil {
		found, err = append(found, r.Link), checkDevice(r.Link.Device)
	}
	if r.Address != nil {
		found, err = append(found, r.Address), r.Address.check()
	}
	if r.Route != nil {
		found, err = append(found, r.Route), r.Route.check()
	}
	if r.Rule != nil {
		found, err = append(found, r.Rule), r.Rule.check()
	}
	if r.Resolv != nil {
		found = append(found, r.Resolv)
	}
	if r.Filter != nil {
		found, err = append(found, r.Filter), r.Filter.check()
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("a record of %d changes", len(found))
	}
	return found[0], err
}

func checkDevice(name string) error {
	if !validDevice(name) {
		return fmt.Errorf("%q is no device", name)
	}
	return nil
}

func checkFamily(family int) error {
	if family != 4 && family != 6 {
		return fmt.Errorf("%d is no IP version", family)
	}
	return nil
}

// same reports whether a and b are the same change with the same undo.
func same(a, b change) bool { return reflect.DeepEqual(a, b) }

// find returns the change of that name, or nil.
func find(list []change, name string) change {
	for _, c := range list {
		if c.String() == name {
			return c
		}
	}
	return nil
}

// describe lists a change as commands; most are one.
func describe(c change) []string {
	if s, ok := c.(interface{ script() []string }); ok {
		return s.script()
	}
	return []string{c.String()}
}

// missingFrom returns the changes of a that b has none of the same name for.
func missingFrom(b, a []change) []change {
	var out []change
	for _, c := range a {
		if find(b, c.String()) == nil {
			out = append(out, c)
		}
	}
	return out
}

// changeList is a list of changes that can be written to the journal and read.
type changeList []change

func (l changeList) MarshalJSON() ([]byte, error) {
	records := make([]record, len(l))
	for i, c := range l {
		records[i] = recordOf(c)
	}
	return json.Marshal(records)
}

func (l *changeList) UnmarshalJSON(b []byte) error {
	var records []record
	if err := json.Unmarshal(b, &records); err != nil {
		return err
	}
	*l = make(changeList, 0, len(records))
	for i, r := range records {
		c, err := r.change()
		if err != nil {
			return fmt.Errorf("change %d: %w", i, err)
		}
		*l = append(*l, c)
	}
	return nil
}

// dump repeats a listing that the kernel could not give as of one moment.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	var out []T
	var err error
	for range 10 {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}
