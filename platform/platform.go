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
// Between the second and the third there may be rules to main for connections
// from outside that are older than the tunnel (5611), for answers to what the
// machine forwards (5612) and for users who leave directly (5615).
//
// Table T comes before main, so no route that somebody puts into main (a DHCP
// server by option 121, a router advertisement, another program) pulls traffic
// out of the tunnel. A family without an address in Config has only the guard
// route: its traffic is refused.
//
// What this does not stop, the packet filter does (Config.Filter): a socket bound
// to an uplink's interface (for IPv4, the kernel then takes any address to be on
// the link), multicast on the link, a mark forged with CAP_NET_RAW, packets from
// the network to the tunnel's address, and what the machine forwards. It is one
// more change in the same list, put in force before the others, and leads answers
// to connections from outside back past the tunnel. docs/security.md lists what
// may leave in which state.
package platform

import (
	"context"
	"fmt"
	"log/slog"
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

// Options of New. The zero Options are ready to use.
type Options struct {
	// Log gets what happens; nil discards it.
	Log *slog.Logger
	// Trace, if any, gets every change of the machine as it is made, as the
	// command a person would type, and "undo: " before one that is taken back.
	// It is called from the goroutine of the method that makes the change.
	Trace func(change string)
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
	// DNSManager is who has been told of the tunnel's name servers, as DNSResolved
	// and so on; "" if nobody has.
	DNSManager() string
	// Notes tells the user, one line each, what the last successful Set could
	// not do, and what stands in its way.
	Notes() []string
	// Keep watches over what the last Set put in force until ctx ends, and
	// returns ctx's error then. What another program has changed (rules, routes,
	// the packet filter, the device's addresses, settings, the resolver's file)
	// is noticed within two seconds and put back, without touching anything
	// else; with AllowLAN, the networks on the link are followed. report gets
	// one line for each, from Keep's goroutine, and should return soon. Over
	// what is changed again and again Keep stops fighting for a while, and says
	// so.
	//
	// When the device is gone Keep returns a *DeviceGoneError at once: what
	// programs send is refused then, and Set with no Device makes that the
	// state. One Keep runs at a time, beside calls of the other methods.
	Keep(ctx context.Context, report func(what string)) error
	// Close undoes everything, as Set(Config{}) does, and lets the next
	// Configurator in. After a Set with Hold it leaves the machine closed
	// instead. A second Close does nothing.
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

// DeviceGoneError is returned by Set and Keep when the tunnel's device does not
// exist.
type DeviceGoneError struct{ Device string }

func (e *DeviceGoneError) Error() string {
	return fmt.Sprintf("there is no device %s: it must be open while the tunnel is up", e.Device)
}
