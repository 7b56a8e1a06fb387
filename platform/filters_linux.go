package platform

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// nftAbility finds out whether the kernel has nf_tables.
func nftAbility() Ability {
	a := Ability{Name: AbilityNFT}
	_, err := readFilters()
	switch {
	case err == nil:
	case errors.Is(err, unix.EPERM):
		a.Unknown, a.Missing = true, "whether this kernel has nf_tables only root may ask"
	default:
		a.Missing = fmt.Sprintf("this kernel has no nf_tables (%v): load the module with `modprobe nf_tables`; without it only kill_switch = \"off\" works", err)
	}
	return a
}

func (in *Inspection) readFilters() {
	tables, err := readFilters()
	if err != nil {
		in.problem(fmt.Errorf("list the tables of nftables: %w", err))
		return
	}
	in.Filters, in.Filtered = tables, true
}

// readFilters lists the tables of nftables, those of other programs included.
func readFilters() ([]FilterTable, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	found, err := dumpFilters(conn.ListTables)
	if err != nil {
		return nil, err
	}
	chains, err := dumpFilters(conn.ListChains)
	if err != nil {
		return nil, err
	}
	tables := make([]FilterTable, len(found))
	for i, t := range found {
		tables[i] = FilterTable{Family: filterFamily(t.Family), Name: t.Name}
		for _, c := range chains {
			if c.Table.Family != t.Family || c.Table.Name != t.Name {
				continue
			}
			s := FilterChain{Name: c.Name}
			if c.Hooknum != nil {
				s.Kind, s.Hook = string(c.Type), filterHook(*c.Hooknum)
				s.Drop = c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
			}
			if rules, err := conn.GetRules(t, c); err == nil { // else it went meanwhile
				s.Rules = len(rules)
			}
			tables[i].Chains = append(tables[i].Chains, s)
		}
	}
	return tables, nil
}

// dumpFilters repeats a listing that somebody's change has interrupted.
func dumpFilters[T any](list func() ([]T, error)) (out []T, err error) {
	for range 10 {
		if out, err = list(); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return out, err
}

func filterFamily(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyARP:
		return "arp"
	case nftables.TableFamilyBridge:
		return "bridge"
	case nftables.TableFamilyNetdev:
		return "netdev"
	}
	return fmt.Sprintf("family %d", f)
}

// filterHook names a hook of the families inet, ip and ip6.
func filterHook(h nftables.ChainHook) string {
	if names := [...]string{"prerouting", "input", "forward", "output", "postrouting"}; int(h) < len(names) {
		return names[h]
	}
	return fmt.Sprintf("hook %d", h)
}
