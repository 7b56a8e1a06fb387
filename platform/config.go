package platform

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"path"
	"reflect"
	"strings"
	"time"
)

// Filter says whether a packet filter guards the tunnel.
type Filter int

const (
	// FilterOff: routes decide alone. A program that chooses its own interface,
	// or has the capability to forge the mark, gets past them.
	FilterOff Filter = iota
	// FilterOn: what is not allowed is refused on its way out, whatever route
	// it found. It needs nf_tables in the kernel, and no nft program.
	FilterOn
)

func (f Filter) String() string {
	switch f {
	case FilterOff:
		return "off"
	case FilterOn:
		return "on"
	}
	return fmt.Sprintf("filter %d", int(f))
}

// Config is the whole desired state. The zero Config is a machine without us.
type Config struct {
	// Device is the name of a TUN that exists and stays open. "" is a state
	// without a tunnel: nothing but marked sockets leaves, and programs are
	// told so at once. Addresses, MTU and DNS count only with a Device.
	Device string
	// MTU in bytes; 0 leaves the device's own.
	MTU int
	// Addresses of the device. Only the address counts: it is installed as /32
	// or /128, and everything is routed to the device anyway. A family with no
	// address here is closed while the tunnel is up.
	Addresses []netip.Prefix
	// DNS servers that programs are to ask; none leaves names alone.
	DNS []netip.Addr
	// DNSManager says who is told of DNS: DNSResolved and so on. DNSAuto or ""
	// finds out who is in charge.
	DNSManager string
	// DNSNeeded has Set fail when nobody can be told of DNS; otherwise that is a
	// note.
	DNSNeeded bool
	// Reserved are the networks of addresses that mean something in the tunnel
	// only. Nothing sends to them by another way, not marked sockets either.
	Reserved []netip.Prefix
	// Linger is for how long Reserved stays refused after the tunnel is down,
	// so that a program that remembers such an address does not ask the network
	// for it: at most MaxLinger, whole seconds. The kernel ends it by itself.
	// It counts only with the filter.
	Linger time.Duration

	// Filter is the packet filter. The fields below that name it need it on.
	Filter Filter
	// UID is the user whose marked sockets pass the filter: a mark alone proves
	// nothing.
	UID uint32
	// Hold leaves the machine closed after Close, for the Configurator of a
	// later process; Unlock opens it. Needs the filter.
	Hold bool
	// RefuseInbound drops connections from outside. Otherwise they work as
	// without a tunnel, those from before it too (for TCP). Needs the filter.
	RefuseInbound bool
	// ForwardBlock drops what the machine forwards for others, such as
	// containers. Otherwise it goes into the tunnel or nowhere. Needs the
	// filter.
	ForwardBlock bool

	// AllowLAN lets programs reach private networks that are on the link of an
	// interface, and nothing behind a gateway. It follows the network (see
	// Keep).
	AllowLAN bool
	// Exclude are networks that are reached outside the tunnel.
	Exclude []netip.Prefix
	// Include, if any, are the only networks that go into the tunnel; all else
	// leaves directly. Reserved and DNS go into the tunnel in any case.
	Include []netip.Prefix
	// ExcludeUIDs are users whose programs leave directly.
	ExcludeUIDs []uint32
	// IncludeUIDs, if any, are the only users whose programs go into the
	// tunnel; those of all others leave directly.
	IncludeUIDs []uint32
	// BypassCgroup is the path of a cgroup (version 2, below its mount point)
	// whose sockets leave directly; "" is none. Needs the filter.
	BypassCgroup string

	// Mark and Mask tell sockets that bypass the tunnel. The same Mark goes to
	// Control. A zero Mask is DefaultMask for the default mark, all bits else.
	Mark, Mask uint32
	// Table is the number of our routing table.
	Table int
	// RulePriority is the first of our rules; the last is 20 higher.
	RulePriority int
}

// withDefaults fills in what a zero field stands for.
func (c Config) withDefaults() Config {
	if c.Mask == 0 {
		c.Mask = 0xffffffff
		if c.Mark == 0 {
			c.Mask = DefaultMask
		}
	}
	if c.Mark == 0 {
		c.Mark = DefaultMark
	}
	if c.Table == 0 {
		c.Table = DefaultTable
	}
	if c.RulePriority == 0 {
		c.RulePriority = DefaultRulePriority
	}
	return c
}

// isZero reports whether c asks for a machine without us.
func (c Config) isZero() bool { return reflect.ValueOf(c).IsZero() }

// MaxLinger bounds Config.Linger, MaxNetworks each list of networks.
const (
	MaxLinger   = time.Hour
	MaxNetworks = 256
)

// Bounds of a Config. The numbers of the tables local, main and default (253 to
// 255) and of the rules that lead to them (32766, 32767) are the kernel's.
const (
	maxAddresses    = 16
	maxDNS          = 3 // what libc reads
	maxUIDs         = 64
	maxRulePriority = 32000
	maxTable        = 1<<31 - 1
)

// Check finds out what Set would refuse on any machine.
func (c Config) Check() error { return c.withDefaults().validate() }

// validate refuses a Config that makes no sense; defaults are filled in.
func (c Config) validate() error {
	if c.Device != "" {
		if err := c.validateDevice(); err != nil {
			return err
		}
	}
	switch {
	case c.Table < 1 || c.Table > maxTable || (c.Table >= 253 && c.Table <= 255):
		return fmt.Errorf("platform: routing table %d cannot be ours: use a free number from 1 on, not 253 to 255", c.Table)
	case c.RulePriority < 1 || c.RulePriority > maxRulePriority:
		return fmt.Errorf("platform: rule priority %d: use 1 to %d, before the rule for table main", c.RulePriority, maxRulePriority)
	case c.Mark&c.Mask != c.Mark:
		return fmt.Errorf("platform: mark %#x has bits outside its mask %#x: no socket would match", c.Mark, c.Mask)
	case c.Linger < 0 || c.Linger > MaxLinger:
		return fmt.Errorf("platform: reserved networks cannot stay refused for %v: use 0 to %v", c.Linger, MaxLinger)
	case len(c.ExcludeUIDs) > maxUIDs || len(c.IncludeUIDs) > maxUIDs:
		return fmt.Errorf("platform: more than %d users are named: name networks or a cgroup instead", maxUIDs)
	}
	for _, list := range [][]netip.Prefix{c.Reserved, c.Exclude, c.Include} {
		if err := validPrefixes(list); err != nil {
			return err
		}
	}
	return c.validateFilter()
}

func (c Config) validateDevice() error {
	switch {
	case !validDevice(c.Device):
		return fmt.Errorf("platform: %q is no name for a network device: use 1 to 15 letters and digits", c.Device)
	case c.MTU != 0 && (c.MTU < 1280 || c.MTU > 65535):
		return fmt.Errorf("platform: an MTU of %d cannot carry IPv6: use 1280 to 65535, or 0 for the device's own", c.MTU)
	case len(c.Addresses) == 0:
		return fmt.Errorf("platform: no address for %s: the tunnel needs at least one", c.Device)
	case len(c.Addresses) > maxAddresses:
		return fmt.Errorf("platform: %d addresses for %s: at most %d are taken", len(c.Addresses), c.Device, maxAddresses)
	case len(c.DNS) > maxDNS:
		return fmt.Errorf("platform: %d name servers: a resolver reads no more than %d", len(c.DNS), maxDNS)
	case !ValidDNSManager(c.DNSManager):
		return fmt.Errorf("platform: nobody who manages name servers is called %q: use %s", c.DNSManager, DNSAuto)
	}
	for _, p := range c.Addresses {
		if a := p.Addr(); !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
			return fmt.Errorf("platform: %s cannot be the tunnel's address: use a private one", p)
		}
	}
	for _, a := range c.DNS {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			return fmt.Errorf("platform: %q cannot be a name server", a)
		}
	}
	return nil
}

func validPrefixes(list []netip.Prefix) error {
	if len(list) > MaxNetworks {
		return fmt.Errorf("platform: %d networks are named: at most %d are taken", len(list), MaxNetworks)
	}
	for _, p := range list {
		if !p.IsValid() || p.Addr().Is4In6() || p.Bits() == 0 {
			return fmt.Errorf("platform: %s is no network to include or exclude: use one like 192.0.2.0/24", p)
		}
	}
	return nil
}

func (c Config) validateFilter() error {
	if c.Filter == FilterOn {
		if bits.OnesCount32(c.Mask) < 2 {
			return fmt.Errorf("platform: the mark's mask %#x has too few bits for the packet filter: use two or more", c.Mask)
		}
		return validCgroup(c.BypassCgroup)
	}
	switch {
	case c.Filter != FilterOff:
		return fmt.Errorf("platform: there is no %s", c.Filter)
	case c.Hold:
		return errors.New("platform: a machine stays closed after the tunnel by the packet filter only: switch the kill switch on")
	case c.RefuseInbound:
		return errors.New("platform: connections from outside are refused by the packet filter only: switch the kill switch on")
	case c.ForwardBlock:
		return errors.New("platform: forwarded traffic is blocked by the packet filter only: switch the kill switch on")
	case c.BypassCgroup != "":
		return errors.New("platform: a cgroup is let past the tunnel by the packet filter only: switch the kill switch on")
	}
	return nil
}

func validCgroup(name string) error {
	if name == "" {
		return nil
	}
	if clean := path.Clean("/" + name); clean == "/" || len(name) > 4000 || strings.Contains("/"+name+"/", "/../") || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		return fmt.Errorf("platform: %q is no path of a cgroup: use one like /nws-vpn-bypass", name)
	}
	return nil
}

// validDevice keeps what is no interface name out of the paths it becomes part
// of.
func validDevice(name string) bool {
	if len(name) < 1 || len(name) > 15 || name == "." || name == ".." {
		return false
	}
	for _, r := range name {
		if r <= ' ' || r > '~' || r == '/' || r == ':' || r == '%' {
			return false
		}
	}
	return true
}
