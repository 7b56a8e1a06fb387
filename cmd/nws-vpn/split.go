package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/dnsintercept"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/platform"
)

// Split tunnelling has two halves. Networks, users and cgroups are the packets'
// affair: platform's. Names are the interceptor's: what is listed by name always
// gets fake addresses, which lead into the device, and there the name decides.

// splitPackets adds to the machine's configuration what is told by networks, users
// and cgroup.
func splitPackets(c *platform.Config, up *config.Up, fakes dnsintercept.Range) (err error) {
	for _, p := range slices.Concat(up.Exclude, up.Include) {
		for _, own := range fakes.Networks() {
			if own.Bits() <= p.Bits() && own.Contains(p.Addr()) {
				return fmt.Errorf("%s cannot be excluded or included: it is among the tunnel's own addresses, %s", p, own)
			}
		}
	}
	c.Exclude, c.Include, c.BypassCgroup = up.Exclude, up.Include, up.ExcludeCgroup
	if c.ExcludeUIDs, err = config.UserIDs(up.ExcludeUsers); err != nil {
		return fmt.Errorf("exclude_users: %w", err)
	}
	if c.IncludeUIDs, err = config.UserIDs(up.IncludeUsers); err != nil {
		return fmt.Errorf("include_users: %w", err)
	}
	c.DNSNeeded = len(up.IncludeDomains) > 0
	if onlyNames(up) {
		c.Include = fakes.Networks()
	}
	return nil
}

// onlyNames reports whether nothing but names goes into the tunnel.
func onlyNames(up *config.Up) bool {
	return len(up.IncludeDomains) > 0 && len(up.Include)+len(up.IncludeUsers) == 0
}

// splitNames is what the interceptor is told, nil for nothing. servers are the
// uplink's.
func splitNames(up *config.Up, fakes dnsintercept.Range, servers func() []netip.Addr) *dnsintercept.Split {
	mark := platform.Control(up.Mark)
	upstream := &dnsintercept.PlainUpstream{Servers: servers, Dial: (&net.Dialer{Control: mark}).DialContext}
	switch {
	case len(up.ExcludeDomains) > 0:
		d := &directDialer{exclude: up.Exclude, own: fakes.Networks()}
		d.Timeout, d.Resolver = directTimeout, bypassDialer(up.Mark, servers).Resolver
		d.Control = func(network, address string, conn syscall.RawConn) error {
			if err := d.mayLeave(address); err != nil {
				return err
			}
			return mark(network, address, conn)
		}
		return &dnsintercept.Split{Suffixes: up.ExcludeDomains, Outside: upstream, Dialer: d}
	case len(up.Include)+len(up.IncludeDomains) == 0:
		return nil
	}
	split := &dnsintercept.Split{Suffixes: up.IncludeDomains, Include: true}
	// Nobody can tell who asks for a name. Users who are in the tunnel want their
	// names there, too.
	if len(up.IncludeUsers) == 0 {
		split.Outside = upstream
	}
	return split
}

// directTimeout bounds a dial outside the tunnel, lookup included.
const directTimeout = 10 * time.Second

// directDialer connects to names outside the tunnel: to public addresses, and to
// those that the user has excluded by themselves. A name's address is what others
// say it is: it must not lead to a host of this network, or of this machine.
type directDialer struct {
	net.Dialer
	exclude, own []netip.Prefix
}

// DialContext is a netstack.Dialer's. There is no ping.
func (d *directDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if network != "tcp" && network != "udp" || err != nil {
		return nil, fmt.Errorf("outside the tunnel there is no %s to %s: %w", network, address, syscall.EHOSTUNREACH)
	}
	// With the root's dot, no search domain is tried.
	return d.Dialer.DialContext(ctx, network, net.JoinHostPort(host+".", port))
}

func (d *directDialer) mayLeave(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	a := to.Addr().Unmap().WithZone("")
	holds := func(p netip.Prefix) bool { return p.Contains(a) }
	if slices.ContainsFunc(d.own, holds) || !slices.ContainsFunc(d.exclude, holds) && exit.CheckPublic(a) != nil {
		return fmt.Errorf("the name leads to %s, which is not a public address; with exclude it is reached all the same: %w", a, syscall.EHOSTUNREACH)
	}
	return nil
}

// serversFor is how long the uplink's name servers are remembered: who is in
// charge of them is asked over D-Bus.
const serversFor = 2 * time.Second

// remembered asks for name servers, and not too often.
func remembered(ask func() []netip.Addr) func() []netip.Addr {
	var mu sync.Mutex
	var last time.Time
	var known []netip.Addr
	return func() []netip.Addr {
		mu.Lock()
		defer mu.Unlock()
		if last.IsZero() || time.Since(last) > serversFor {
			known, last = ask(), time.Now()
		}
		return known
	}
}

// splitStatus is what status says of split tunnelling.
type splitStatus struct {
	Exclude        []netip.Prefix `json:"exclude,omitempty"`
	ExcludeDomains []string       `json:"exclude_domains,omitempty"`
	ExcludeUsers   []string       `json:"exclude_users,omitempty"`
	ExcludeCgroup  string         `json:"exclude_cgroup,omitempty"`
	Include        []netip.Prefix `json:"include,omitempty"`
	IncludeDomains []string       `json:"include_domains,omitempty"`
	IncludeUsers   []string       `json:"include_users,omitempty"`
}

// describeSplit returns nil when everything goes into the tunnel.
func describeSplit(up *config.Up) *splitStatus {
	s := &splitStatus{
		Exclude: up.Exclude, ExcludeDomains: up.ExcludeDomains, ExcludeUsers: up.ExcludeUsers, ExcludeCgroup: up.ExcludeCgroup,
		Include: up.Include, IncludeDomains: up.IncludeDomains, IncludeUsers: up.IncludeUsers,
	}
	if len(s.lines()) == 0 {
		return nil
	}
	return s
}

// lines describe it to people.
func (s *splitStatus) lines() (list []string) {
	add := func(format string, n int, args ...any) {
		if n > 0 {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	add("outside the tunnel: networks %v", len(s.Exclude), s.Exclude)
	add("outside the tunnel: names under %v", len(s.ExcludeDomains), s.ExcludeDomains)
	add("outside the tunnel: programs of %v", len(s.ExcludeUsers), s.ExcludeUsers)
	add("outside the tunnel: programs in the cgroup %s", len(s.ExcludeCgroup), s.ExcludeCgroup)
	add("only these go into the tunnel: networks %v", len(s.Include), s.Include)
	add("only these go into the tunnel: names under %v", len(s.IncludeDomains), s.IncludeDomains)
	add("only these go into the tunnel: programs of %v", len(s.IncludeUsers), s.IncludeUsers)
	return list
}

// splitFlags are split tunnelling on the command line. They add to the
// configuration.
type splitFlags struct {
	exclude, include               []string
	excludeDomains, includeDomains []string
	excludeUsers, includeUsers     []string
	excludeCgroup                  string
}

func (f *splitFlags) override(up *config.Up) error {
	exclude, err := config.ParseNetworks(f.exclude)
	if err != nil {
		return fmt.Errorf("--exclude: %w", err)
	}
	include, err := config.ParseNetworks(f.include)
	if err != nil {
		return fmt.Errorf("--include: %w", err)
	}
	up.Exclude, up.Include = append(slices.Clip(up.Exclude), exclude...), append(slices.Clip(up.Include), include...)
	for _, l := range []struct {
		to   *[]string
		more []string
	}{
		{&up.ExcludeDomains, f.excludeDomains}, {&up.IncludeDomains, f.includeDomains},
		{&up.ExcludeUsers, f.excludeUsers}, {&up.IncludeUsers, f.includeUsers},
	} {
		*l.to = append(slices.Clip(*l.to), l.more...)
	}
	if f.excludeCgroup != "" {
		up.ExcludeCgroup = f.excludeCgroup
	}
	return config.CheckSplit(up)
}
