package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/ifaddr"
)

// A Way is a route of a host's main table.
type Way struct {
	To     string // "0.0.0.0/0" and "::/0" are the defaults
	Device string
	Via    string // the neighbour, or "": what is reached is on the link itself
	Metric int
}

// AddWay adds a route, whatever is there already.
func (h *Host) AddWay(w Way) error { return h.way("add", w, netlink.RouteAppend) }

// RemoveWay removes one.
func (h *Host) RemoveWay(w Way) error { return h.way("remove", w, netlink.RouteDel) }

func (h *Host) way(what string, w Way, change func(*netlink.Route) error) error {
	err := h.Do(func() error {
		link, err := netlink.LinkByName(w.Device)
		if err != nil {
			return err
		}
		to, err := netip.ParsePrefix(w.To)
		if err != nil {
			return err
		}
		r := &netlink.Route{
			Dst:       &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())},
			LinkIndex: link.Attrs().Index,
			Priority:  w.Metric,
			Table:     unix.RT_TABLE_MAIN,
		}
		if w.Via != "" {
			r.Gw = net.ParseIP(w.Via)
		} else if to.Addr().Is4() {
			r.Scope = netlink.SCOPE_LINK
		}
		return change(r)
	})
	if err != nil {
		return fmt.Errorf("netlab: %s route of %s to %s: %w", what, h.name, w.To, err)
	}
	return nil
}

// HasRoute reports whether the main table has a route to exactly that prefix.
func (h *Host) HasRoute(to string) (has bool, err error) {
	err = h.Do(func() error {
		want, err := netip.ParsePrefix(to)
		if err != nil {
			return err
		}
		family := unix.AF_INET6
		if want.Addr().Is4() {
			family = unix.AF_INET
		}
		routes, err := netlink.RouteList(nil, family)
		for _, r := range routes {
			if r.Dst == nil {
				has = has || want.Bits() == 0
			} else if ones, _ := r.Dst.Mask.Size(); r.Dst.IP.Equal(want.Addr().AsSlice()) && ones == want.Bits() {
				has = true
			}
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("netlab: routes of %s: %w", h.name, err)
	}
	return has, nil
}

// AddAddress gives an interface one more address, with its prefix length.
func (h *Host) AddAddress(device, address string) error {
	err := (End{Host: h, Device: device, Addresses: []string{address}}).addAddresses()
	if err != nil {
		return fmt.Errorf("netlab: address of %s %s: %w", h.name, device, err)
	}
	return nil
}

// LeadInto sets an interface up, gives it an address of each family that is to
// lead there, with its prefix length, and makes it the way to everything else.
func (h *Host) LeadInto(device string, addresses ...string) error {
	if err := h.SetLink(device, true); err != nil {
		return err
	}
	for _, a := range addresses {
		everything := "::/0"
		if !strings.Contains(a, ":") {
			everything = "0.0.0.0/0"
		}
		if err := h.AddAddress(device, a); err != nil {
			return err
		}
		if err := h.AddWay(Way{To: everything, Device: device}); err != nil {
			return err
		}
	}
	return nil
}

// RemoveAddress takes one away, and the routes that the kernel made for it.
func (h *Host) RemoveAddress(device, address string) error {
	err := h.onLink(device, func(link netlink.Link) error {
		addr, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		return netlink.AddrDel(link, addr)
	})
	if err != nil {
		return fmt.Errorf("netlab: remove address %s of %s %s: %w", address, h.name, device, err)
	}
	return nil
}

func (h *Host) onLink(device string, f func(netlink.Link) error) error {
	return h.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		return f(link)
	})
}

// RenameLink gives an interface another name. It need not be down for that.
func (h *Host) RenameLink(device, name string) error {
	err := h.onLink(device, func(link netlink.Link) error {
		err := netlink.LinkSetName(link, name)
		if err == unix.EBUSY { // older kernels rename only what is down
			if err = netlink.LinkSetDown(link); err == nil {
				err = netlink.LinkSetName(link, name)
			}
			if err == nil {
				err = netlink.LinkSetUp(link)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("netlab: rename %s of %s: %w", device, h.name, err)
	}
	return nil
}

// RemoveLink deletes an interface.
func (h *Host) RemoveLink(device string) error {
	if err := h.onLink(device, netlink.LinkDel); err != nil {
		return fmt.Errorf("netlab: remove %s of %s: %w", device, h.name, err)
	}
	return nil
}

// Bridge makes a bridge of the host with addresses and puts interfaces into it.
func (h *Host) Bridge(name string, addresses []string, ports ...string) error {
	err := h.Do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		for _, p := range ports {
			port, err := netlink.LinkByName(p)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(port, bridge); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(bridge); err != nil {
			return err
		}
		for _, text := range addresses {
			addr, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			if addr.IP.To4() == nil {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := ifaddr.Replace(bridge.Index, addr); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("netlab: bridge %s of %s: %w", name, h.name, err)
	}
	return nil
}

// A Rule is a policy rule that leads to a table, for IPv4 and IPv6.
type Rule struct{ Priority, Table int }

// AddRule adds one for each family.
func (h *Host) AddRule(r Rule) error { return h.rule("add", r, netlink.RuleAdd) }

// RemoveRule removes both.
func (h *Host) RemoveRule(r Rule) error { return h.rule("remove", r, netlink.RuleDel) }

func (h *Host) rule(what string, r Rule, change func(*netlink.Rule) error) error {
	err := h.Do(func() error {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			rule := netlink.NewRule()
			rule.Family, rule.Priority, rule.Table = family, r.Priority, r.Table
			if err := change(rule); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("netlab: %s rule %d of %s: %w", what, r.Priority, h.name, err)
	}
	return nil
}

// FlushRules removes every policy rule between the kernel's own, local and
// main, as a careless script might, and returns how many that were.
func (h *Host) FlushRules() (n int, err error) {
	err = h.Do(func() error {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			rules, err := netlink.RuleList(family)
			if err != nil {
				return err
			}
			for i := range rules {
				if p := rules[i].Priority; p < 1 || p >= 32766 {
					continue
				}
				rules[i].Family = family
				if err := netlink.RuleDel(&rules[i]); err != nil {
					return err
				}
				n++
			}
		}
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("netlab: flush the rules of %s: %w", h.name, err)
	}
	return n, nil
}

// AnswerForAll makes a router take every packet that comes in by an interface
// for its own, whatever the destination: its sockets (see ListenForAll) answer
// in the place of the whole internet, as a captive portal does.
func (h *Host) AnswerForAll(device string) error {
	const table, priority = 99, 99
	err := h.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for family, all := range map[int]string{unix.AF_INET: "0.0.0.0/0", unix.AF_INET6: "::/0"} {
			_, dst, err := net.ParseCIDR(all)
			if err != nil {
				return err
			}
			rule := netlink.NewRule()
			rule.Family, rule.Priority, rule.Table, rule.IifName = family, priority, table, device
			err = netlink.RouteAdd(&netlink.Route{Dst: dst, Type: unix.RTN_LOCAL, LinkIndex: lo.Attrs().Index, Table: table, Scope: netlink.SCOPE_HOST})
			if err != nil {
				return err
			}
			if err := netlink.RuleAdd(rule); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("netlab: %s answers for all on %s: %w", h.name, device, err)
	}
	return nil
}
