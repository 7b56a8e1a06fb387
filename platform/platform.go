// Package platform puts a machine's network into the state a tunnel needs, and
// back into the state it found: the TUN's address and MTU, a routing table and
// rules of our own, the sysctls these depend on, and the resolver's file.
//
// The state is a value. Set takes the whole of it, never a difference: what is
// missing is made, what is no longer wanted is undone, what is in force already
// is left alone. Set(Config{}) leaves nothing of ours.
//
// Every change is written to a journal, with its undo, before it is made. A
// process that is killed therefore leaves a machine that CleanUp can repair,
// and traffic that is refused rather than sent past the tunnel: the guard route
// in our table outlives the TUN. The next New takes the leftovers over, so that
// no window opens between a crash and the next Set.
//
// How traffic is sorted, for IPv4 and for IPv6 alike (on Linux):
//
//	rule 5600  fwmark M/mask  lookup main     sockets marked by Control: relays
//	rule 5610  fwmark M/mask  unreachable     … and never into the tunnel
//	rule 5620  lookup T                       everything else
//	table T    default dev <TUN>
//	           unreachable default metric 4294967295     the guard route
//
// Table T comes before main, so no route that somebody puts into main (a DHCP
// server by option 121, a router advertisement, another program) pulls traffic
// out of the tunnel. A family without an address in Config has only the guard
// route: its traffic is refused.
//
// What this does not stop, and a packet filter must: a socket bound to an
// uplink's interface (for IPv4, the kernel then takes any address to be on the
// link), IPv6 multicast on the link, a mark forged with CAP_NET_RAW, and packets
// from the network to the tunnel's address. The filter will be one more change
// in the same list (see plan), put in force before the rules. Nor do answers to
// connections from outside find their way back past the tunnel before it does.
package platform

import (
	"fmt"
	"net/netip"
)

// What a zero field of Config stands for. The mark uses the top byte only,
// which the marks of container runtimes and of other tunnels leave free.
const (
	DefaultMark         = 0x4e000000
	DefaultMask         = 0xff000000
	DefaultTable        = 20055
	DefaultRulePriority = 5600
)

// Config is the whole desired state. The zero Config is a machine without us.
type Config struct {
	// Device is the name of a TUN that exists and stays open. Required unless
	// the whole Config is zero.
	Device string
	// MTU in bytes; 0 leaves the device's own.
	MTU int
	// Addresses of the device. Only the address counts: it is installed as /32
	// or /128, and everything is routed to the device anyway. A family with no
	// address here is closed while the tunnel is up.
	Addresses []netip.Prefix
	// DNS servers for the resolver's file; none leaves the file alone.
	DNS []netip.Addr
	// Mark and Mask tell sockets that bypass the tunnel. The same Mark goes to
	// Control. A zero Mask is DefaultMask for the default mark, all bits else.
	Mark, Mask uint32
	// Table is the number of our routing table.
	Table int
	// RulePriority is the first of our three rules; the others are 10 and 20
	// higher.
	RulePriority int
}

// Configurator applies Configs to this machine. There is one at a time for a
// state directory. Its methods may be called concurrently; they take turns.
type Configurator interface {
	// Set puts the machine into the given state and verifies that it is. It is
	// idempotent. When it fails, what was in force before the call is in force
	// again, and the error says what failed and what to do. What the tunnel
	// works without (a resolver's file that cannot be written, a machine
	// without IPv6) is no error but a note.
	Set(Config) error
	// UplinkDNS returns the name servers the machine uses without us, in their
	// order: for names that must be resolved outside the tunnel. It reads them
	// at every call and follows a change of network.
	UplinkDNS() []netip.Addr
	// Notes tells the user, one line each, what the last successful Set could
	// not do, and what stands in its way.
	Notes() []string
	// Close undoes everything, as Set(Config{}) does, and lets the next
	// Configurator in. A second Close does nothing.
	Close() error
}

// LockedError is returned by New and CleanUp while another process has the
// state directory.
type LockedError struct {
	Dir string
	PID int // 0 when not known
}

func (e *LockedError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("platform: a tunnel is already managed by %s (state directory %s): stop it with `nws-vpn down` first", who, e.Dir)
}

// OverlapError is returned by Set for an address that the machine already uses
// or reaches by another interface.
type OverlapError struct {
	Address netip.Addr
	// Network that holds it already, and the interface it is on.
	Network   netip.Prefix
	Interface string
}

func (e *OverlapError) Error() string {
	return fmt.Sprintf("the tunnel's address %s lies in %s, which this machine already reaches by %s: choose another address for the tunnel",
		e.Address, e.Network, e.Interface)
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
func (c Config) isZero() bool {
	return c.Device == "" && c.MTU == 0 && len(c.Addresses) == 0 && len(c.DNS) == 0 &&
		c.Mark == 0 && c.Mask == 0 && c.Table == 0 && c.RulePriority == 0
}

// Bounds of a Config. The numbers of the tables local, main and default (253 to
// 255) and of the rules that lead to them (32766, 32767) are the kernel's.
const (
	maxAddresses    = 16
	maxDNS          = 3 // what libc reads
	maxRulePriority = 32000
	maxTable        = 1<<31 - 1
)

// validate refuses a Config that makes no sense; defaults are filled in.
func (c Config) validate() error {
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
	case c.Table < 1 || c.Table > maxTable || (c.Table >= 253 && c.Table <= 255):
		return fmt.Errorf("platform: routing table %d cannot be ours: use a free number from 1 on, not 253 to 255", c.Table)
	case c.RulePriority < 1 || c.RulePriority > maxRulePriority:
		return fmt.Errorf("platform: rule priority %d: use 1 to %d, before the rule for table main", c.RulePriority, maxRulePriority)
	case c.Mark&c.Mask != c.Mark:
		return fmt.Errorf("platform: mark %#x has bits outside its mask %#x: no socket would match", c.Mark, c.Mask)
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
