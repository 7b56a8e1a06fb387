// Package tunnel decides in which state a tunnel is and what that means for the
// machine. It does no I/O and has no clock: events go in, and out comes a Step,
// with the whole configuration of the machine that the state stands for.
//
//	Disconnected ──up──▶ Connecting ◀──exit lost / reached──▶ Connected
//	     ▲                   │  ▲                                │
//	     │ first attempt     │  └──────────device made again──┐  │
//	     └──── failed ───────┘                                │  ▼
//	     ▲                                                  Blocked ◀── an error
//	     └──down── from every state
//
// What may leave the machine in the clear:
//
//	Disconnected   everything; in lockdown, what Blocked lets out
//	Connecting     the relays' connections (marked sockets) and what Config allows
//	               by name (the local network, what was excluded); with a device,
//	               when an exit was lost, the same as Connected
//	Connected      the same; everything else goes into the device
//	Blocked        the same as Connecting without a device; see Options.ByName
//
// An error leads to Blocked, never to an open machine. The exception is a first
// attempt, with which nobody's traffic has been entrusted to the tunnel yet: it
// is taken back, unless Options say otherwise. It lasts until the policy of
// Connected is in force, so a Failed that follows at once takes it back, too.
package tunnel

import (
	"errors"

	"github.com/nws-vpn/nws-vpn/platform"
)

// State is where a tunnel stands.
type State int

// The states of a tunnel.
const (
	Disconnected State = iota
	Connecting         // on the way to the exit, for the first time or again
	Connected
	Blocked // something failed here, and nothing goes anywhere until it is put right
)

// String is the state as `nws-vpn status` shows it.
func (s State) String() string {
	return [...]string{"disconnected", "connecting", "connected", "blocked"}[s]
}

// KillSwitch is what keeps traffic from leaving outside the tunnel.
type KillSwitch string

// The kill switches.
const (
	// Off leaves it to the routing table: programs that bind to an interface
	// get around it, and the machine is open until the exit is first reached.
	Off KillSwitch = "off"
	// On adds a packet filter, from the first moment until down.
	On KillSwitch = "on"
	// Lockdown keeps the machine closed beyond down, until it is unlocked.
	Lockdown KillSwitch = "lockdown"
)

// Options are the choices of a Machine; the zero value works.
type Options struct {
	// Closed says that the machine was found closed, as a tunnel left it that
	// was killed or is in lockdown: a first attempt that fails opens nothing.
	Closed bool
	// Persist has a first attempt treated as all others: it is repeated, with
	// the machine closed, until down.
	Persist bool
	// ByName says that some of what goes into the tunnel is told by its name,
	// which takes the tunnel's resolver: without a device nothing is included, so
	// that nothing leaves that would be otherwise.
	ByName bool
}

// Event is what has happened.
type Event int

// The events.
const (
	UpRequested   Event = iota // the user, or the system, wants the tunnel
	ExitReached                // there is a way to the exit
	ExitLost                   // there is none any more; the relays are being redialed
	ConnectFailed              // an attempt to reach the exit has failed
	DeviceReady                // the device is open and its packets are served
	DeviceGone                 // the device was removed
	Failed                     // the machine could not be put into the wanted state, or the device not be made
	Retry                      // time to try again what failed
	DownRequested              // the user wants the tunnel to end
	Unlocked                   // the user wants the tunnel to end and the machine open, lockdown or not
	Locked                     // the user wants lockdown from now on
	numEvents
)

// Task is what is to be done in a new state, besides applying its policy.
type Task int

// The tasks. Each ends in an event.
const (
	Nothing    Task = iota
	Connect         // reach the exit: ExitReached or ConnectFailed
	OpenDevice      // make the device and serve it: DeviceReady or Failed
	End             // everything is over once the policy is applied
)

// Step is the outcome of an event.
type Step struct {
	State  State
	Policy platform.Config // the whole of it; the zero Config is a machine without us
	Task   Task
}

// Machine is the state machine of one tunnel. It is not safe for concurrent
// use. Make it with New.
type Machine struct {
	killSwitch KillSwitch
	opts       Options
	through    platform.Config // with the device

	wanted  bool  // up was requested, and not down since
	reached bool  // there is a way to the exit
	device  bool  // the device is there
	offered bool  // the device's policy was handed out: what is not Failed next has it in force
	trusted bool  // traffic was entrusted to the tunnel: errors close, and do not undo
	cause   error // why it is Blocked
}

// New returns a Machine in the state Disconnected. through is the machine's
// configuration while the tunnel is up, but for Filter and Hold, which are the
// kill switch's.
func New(killSwitch KillSwitch, through platform.Config, opts Options) *Machine {
	if killSwitch != Off {
		through.Filter = platform.FilterOn
	}
	through.Hold = killSwitch == Lockdown
	return &Machine{killSwitch: killSwitch, opts: opts, through: through, trusted: opts.Persist}
}

// ErrDeviceGone is the cause after DeviceGone.
var ErrDeviceGone = errors.New("the device was removed by another program")

// On takes an event and says what follows. err is the reason of ConnectFailed
// and Failed, and nil otherwise. An event that means nothing in a state changes
// nothing.
func (m *Machine) On(e Event, err error) Step {
	if !m.wanted && e != UpRequested && e != DownRequested && e != Unlocked {
		return m.step(Nothing)
	}
	m.trusted = m.trusted || m.offered && e != Failed
	switch e {
	case UpRequested:
		if m.wanted {
			return m.step(Nothing)
		}
		m.wanted = true
		return m.step(Connect)
	case ExitReached:
		m.reached = true
		if !m.device && m.cause == nil {
			return m.step(OpenDevice)
		}
	case ExitLost:
		m.reached = false
	case ConnectFailed:
		m.reached = false
		if !m.trusted {
			return m.giveUp()
		}
		return m.step(Connect)
	case DeviceReady:
		m.device, m.cause = true, nil
	case DeviceGone:
		m.device = false
		return m.fail(ErrDeviceGone, OpenDevice)
	case Failed:
		return m.fail(err, Nothing)
	case Retry:
		return m.retry()
	case Locked:
		m.killSwitch, m.through.Filter, m.through.Hold = Lockdown, platform.FilterOn, true
	case DownRequested, Unlocked:
		return m.end(e == Unlocked)
	}
	return m.step(Nothing)
}

// fail goes to Blocked, or ends a first attempt.
func (m *Machine) fail(cause error, then Task) Step {
	if !m.trusted {
		return m.giveUp()
	}
	m.cause = cause
	return m.step(then)
}

// giveUp ends a first attempt. The machine is as it was before.
func (m *Machine) giveUp() Step {
	m.wanted, m.reached, m.device, m.offered, m.cause = false, false, false, false, nil
	return m.step(End)
}

// retry leaves Blocked if what failed was the policy: it is applied again. A
// device that is not there has to be made first, and an attempt to reach the exit
// that the failure has prevented is made now.
func (m *Machine) retry() Step {
	switch {
	case m.cause == nil:
		return m.step(Nothing)
	case !m.device && m.reached:
		return m.step(OpenDevice)
	}
	m.cause = nil
	if !m.reached {
		return m.step(Connect)
	}
	return m.step(Nothing)
}

func (m *Machine) end(unlock bool) Step {
	m.wanted, m.reached, m.device, m.offered, m.trusted, m.cause = false, false, false, false, false, nil
	m.opts.Closed = false
	if unlock {
		m.killSwitch = On
	}
	return m.step(End)
}

// step describes the state that the Machine is in now.
func (m *Machine) step(task Task) Step {
	s := Step{State: m.State(), Task: task}
	if s.State == Connected {
		m.offered = true
	}
	s.Policy = m.policy()
	return s
}

// State is the present state.
func (m *Machine) State() State {
	switch {
	case !m.wanted:
		return Disconnected
	case m.cause != nil:
		return Blocked
	case m.reached && m.device:
		return Connected
	}
	return Connecting
}

// Cause is why the state is Blocked, nil in others.
func (m *Machine) Cause() error { return m.cause }

// KillSwitch is the one in force.
func (m *Machine) KillSwitch() KillSwitch { return m.killSwitch }

// policy is the machine's configuration in the present state.
func (m *Machine) policy() platform.Config {
	// Only the packet filter keeps a machine closed beyond the process.
	stays := m.killSwitch == Lockdown || m.killSwitch == On && m.opts.Closed && !m.trusted
	switch {
	case m.wanted && m.cause == nil && m.device && (m.offered || m.trusted):
		// Connecting too: flows wait in the device while the relays are redialed.
		return m.through
	case stays || m.wanted && (m.trusted || m.killSwitch == On):
		return m.closed(stays)
	}
	return platform.Config{}
}

// closed is the configuration without a device. hold has it stay beyond this
// process.
func (m *Machine) closed(hold bool) platform.Config {
	c := m.through
	c.Device, c.MTU, c.Addresses, c.DNS = "", 0, nil, nil
	if m.opts.ByName {
		c.Include, c.IncludeUIDs = nil, nil
	}
	c.Hold = hold
	return c
}
