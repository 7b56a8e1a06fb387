package tunnel

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/platform"
)

var through = platform.Config{
	Device: "nws0", MTU: 1500, Mark: 1, UID: 7,
	Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/32")},
	DNS:       []netip.Addr{netip.MustParseAddr("198.18.0.2")},
}

var errTest = errors.New("it failed")

// eventNames are the events as the tables write them.
var eventNames = [numEvents]string{
	UpRequested: "up", ExitReached: "reached", ExitLost: "lost", ConnectFailed: "noexit",
	DeviceReady: "ready", DeviceGone: "gone", Failed: "failed", Retry: "retry",
	DownRequested: "down", Unlocked: "unlock", Locked: "lock",
}

var taskNames = map[Task]string{Nothing: "", Connect: "connect", OpenDevice: "device", End: "end"}

func feed(m *Machine, events string) (s Step) {
	for name := range strings.FieldsSeq(events) {
		for e, n := range eventNames {
			if n == name {
				var err error
				if Event(e) == Failed || Event(e) == ConnectFailed {
					err = errTest
				}
				s = m.On(Event(e), err)
			}
		}
	}
	return s
}

// describePolicy says what a configuration does: open, closed or through the
// device; with + for the packet filter and ! when it stays.
func describePolicy(c platform.Config) string {
	text := "closed"
	switch {
	case reflect.DeepEqual(c, platform.Config{}):
		return "open"
	case c.Device != "":
		text = "through"
	}
	if c.Filter == platform.FilterOn {
		text += "+"
	}
	if c.Hold {
		text += "!"
	}
	return text
}

func describe(s Step) string {
	return strings.TrimSpace(fmt.Sprintf("%v %s %s", s.State, describePolicy(s.Policy), taskNames[s.Task]))
}

// Every event in every state. A cell is "state policy task"; "=" is the state
// and policy of the row, with nothing to do.
func TestEveryEventInEveryState(t *testing.T) {
	const trying = "up"                   // for the first time
	const opening = "up reached"          // the device, for the first time
	const offered = "up reached ready"    // connected, if that can be put in force
	const on = "up reached ready reached" // connected
	const lost = "up reached ready lost"
	const blocked = "up reached ready reached failed"
	const removed = "up reached ready gone"
	for _, row := range []struct {
		before, is string
		want       map[string]string
	}{
		{"", "disconnected open", map[string]string{"up": "connecting closed+ connect", "down": "disconnected open end", "unlock": "disconnected open end"}},
		{trying, "connecting closed+", map[string]string{
			"reached": "connecting closed+ device", "noexit": "disconnected open end", "gone": "disconnected open end",
			"failed": "disconnected open end", "down": "disconnected open end", "unlock": "disconnected open end", "lock": "connecting closed+!",
		}},
		{opening, "connecting closed+", map[string]string{
			"reached": "connecting closed+ device", "noexit": "disconnected open end", "ready": "connected through+",
			"gone": "disconnected open end", "failed": "disconnected open end",
			"down": "disconnected open end", "unlock": "disconnected open end", "lock": "connecting closed+!",
		}},
		{offered, "connected through+", map[string]string{
			"lost": "connecting through+", "noexit": "connecting through+ connect", "gone": "blocked closed+ device", "failed": "disconnected open end",
			"down": "disconnected open end", "unlock": "disconnected open end", "lock": "connected through+!",
		}},
		{on, "connected through+", map[string]string{
			"lost": "connecting through+", "noexit": "connecting through+ connect", "gone": "blocked closed+ device", "failed": "blocked closed+",
			"down": "disconnected open end", "unlock": "disconnected open end", "lock": "connected through+!",
		}},
		{lost, "connecting through+", map[string]string{
			"reached": "connected through+", "noexit": "connecting through+ connect", "gone": "blocked closed+ device", "failed": "blocked closed+",
			"down": "disconnected open end", "unlock": "disconnected open end", "lock": "connecting through+!",
		}},
		{blocked, "blocked closed+", map[string]string{
			"noexit": "blocked closed+ connect", "ready": "connected through+", "gone": "blocked closed+ device",
			"retry": "connected through+", "down": "disconnected open end", "unlock": "disconnected open end", "lock": "blocked closed+!",
		}},
		{removed, "blocked closed+", map[string]string{
			"noexit": "blocked closed+ connect", "ready": "connected through+", "gone": "blocked closed+ device",
			"retry": "blocked closed+ device", "down": "disconnected open end", "unlock": "disconnected open end", "lock": "blocked closed+!",
		}},
	} {
		for _, event := range eventNames {
			m := New(On, through, Options{})
			feed(m, row.before)
			want := row.want[event]
			if want == "" {
				want = row.is
			}
			if got := describe(feed(m, event)); got != want {
				t.Errorf("after %q, %s leads to %q, want %q", row.before, event, got, want)
			}
		}
	}
}

func TestStories(t *testing.T) {
	for _, c := range []struct {
		name       string
		killSwitch KillSwitch
		opts       Options
		events     string
		want       string
	}{
		{"open until the exit is reached without a kill switch", Off, Options{}, "up", "connecting open connect"},
		{"routes only without a kill switch", Off, Options{}, "up reached ready", "connected through"},
		{"errors close without a kill switch too", Off, Options{}, "up reached ready gone", "blocked closed device"},
		{"a first attempt that fails in lockdown", Lockdown, Options{}, "up noexit", "disconnected closed+! end"},
		{"down in lockdown", Lockdown, Options{}, "up reached ready down", "disconnected closed+! end"},
		{"lockdown is ended", Lockdown, Options{}, "up reached ready unlock", "disconnected open end"},
		{"lockdown is ended when nothing runs", Lockdown, Options{}, "unlock", "disconnected open end"},
		{"lockdown begins while connected", On, Options{}, "up reached ready lock down", "disconnected closed+! end"},
		{"lockdown begins without a kill switch", Off, Options{}, "up reached ready lock", "connected through+!"},
		{"closed by one that was killed", On, Options{Closed: true}, "up", "connecting closed+! connect"},
		{"closed by one that was killed, and no exit", On, Options{Closed: true}, "up noexit", "disconnected closed+! end"},
		{"closed by one that was killed, then connected", On, Options{Closed: true}, "up reached ready", "connected through+"},
		{"closed by one that was killed, then down", On, Options{Closed: true}, "up down", "disconnected open end"},
		{"closed by one that was killed, then connected and down", On, Options{Closed: true}, "up reached ready down", "disconnected open end"},
		{"closed by one that was killed, without a kill switch now", Off, Options{Closed: true}, "up", "connecting open connect"},
		{"what is connected cannot be put in force", On, Options{}, "up reached ready failed", "disconnected open end"},
		{"what is connected cannot be put in force, in lockdown", Lockdown, Options{}, "up reached ready failed", "disconnected closed+! end"},
		{"what is connected cannot be put in force, closed by one that was killed", On, Options{Closed: true}, "up reached ready failed", "disconnected closed+! end"},
		{"what is connected cannot be put in force, persisting", On, Options{Persist: true}, "up reached ready failed", "blocked closed+"},
		{"persisting", On, Options{Persist: true}, "up noexit", "connecting closed+ connect"},
		{"persisting without a kill switch", Off, Options{Persist: true}, "up noexit", "connecting closed connect"},
		{"persisting when the device cannot be made", On, Options{Persist: true}, "up reached failed", "blocked closed+"},
		{"a device that could not be made is made", On, Options{Persist: true}, "up reached failed retry", "blocked closed+ device"},
		{"a device that could not be made, and the exit lost", On, Options{Persist: true}, "up reached failed lost retry", "connecting closed+ connect"},
		{"a machine that could not be closed at first", On, Options{Persist: true}, "up failed retry", "connecting closed+ connect"},
		{"a device is made while the exit is lost", On, Options{}, "up reached ready gone lost ready", "connecting through+"},
		{"the exit is lost while the device is made", On, Options{Persist: true}, "up reached lost ready", "connecting through+"},
		{"up after down", On, Options{}, "up reached ready down up", "connecting closed+ connect"},
		{"late news after down", On, Options{}, "up reached ready down gone failed retry reached ready lock", "disconnected open"},
	} {
		if got := describe(feed(New(c.killSwitch, through, c.opts), c.events)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestPolicies(t *testing.T) {
	m := New(On, through, Options{})
	closed := feed(m, "up").Policy
	if want := (platform.Config{Mark: 1, UID: 7, Filter: platform.FilterOn}); !reflect.DeepEqual(closed, want) {
		t.Errorf("the closed state is %+v, want %+v", closed, want)
	}
	want := through
	want.Filter = platform.FilterOn
	if got := feed(m, "reached ready").Policy; !reflect.DeepEqual(got, want) {
		t.Errorf("through the device is %+v, want %+v", got, want)
	}
	if got := feed(m, "lost").Policy; !reflect.DeepEqual(got, want) {
		t.Errorf("losing the exit changes the machine: %+v, want %+v", got, want)
	}
}

// What is included by name takes the tunnel's resolver: without a device, nothing
// leaves for not being included.
func TestPoliciesByName(t *testing.T) {
	included := through
	included.Include, included.IncludeUIDs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, []uint32{7}
	for byName, want := range map[bool]int{false: 1, true: 0} {
		for _, events := range []string{"up", "up reached ready gone"} {
			p := feed(New(On, included, Options{ByName: byName}), events).Policy
			if len(p.Include) != want || len(p.IncludeUIDs) != want || p.Device != "" {
				t.Errorf("by name %v, after %s: %+v", byName, events, p)
			}
		}
		if p := feed(New(On, included, Options{ByName: byName}), "up reached ready lost").Policy; len(p.Include) != 1 || len(p.IncludeUIDs) != 1 {
			t.Errorf("by name %v, with the device: %+v", byName, p)
		}
	}
}

func TestCause(t *testing.T) {
	m := New(On, through, Options{})
	feed(m, "up reached ready reached failed")
	if !errors.Is(m.Cause(), errTest) {
		t.Errorf("blocked because of %v", m.Cause())
	}
	feed(m, "gone")
	if !errors.Is(m.Cause(), ErrDeviceGone) {
		t.Errorf("blocked because of %v", m.Cause())
	}
	feed(m, "ready")
	if m.Cause() != nil {
		t.Errorf("not blocked any more, yet because of %v", m.Cause())
	}
}

// Whatever happens between up and down, a machine with a kill switch is never
// open, except that a first attempt is taken back on a machine that was open.
func TestNeverOpen(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	opened := 0
	for range 20_000 {
		killSwitch := []KillSwitch{On, Lockdown}[random.IntN(2)]
		opts := Options{Closed: random.IntN(2) == 0, Persist: random.IntN(2) == 0}
		m := New(killSwitch, through, opts)
		step, story := m.On(UpRequested, nil), "up"
		entrusted := opts.Persist
		for range random.IntN(20) {
			closed := describePolicy(step.Policy)
			if closed == "open" || !strings.Contains(closed, "+") {
				mayOpen := killSwitch == On && !opts.Closed && !entrusted && step.State == Disconnected
				if !mayOpen {
					t.Fatalf("%s %+v: %s: the machine is %s", killSwitch, opts, story, closed)
				}
				opened++
			}
			if step.State == Disconnected {
				break
			}
			e := Event(random.IntN(int(numEvents)))
			if e == DownRequested || e == Unlocked {
				continue
			}
			entrusted = entrusted || step.State == Connected && e != Failed
			if e == Locked {
				killSwitch = Lockdown
			}
			step = m.On(e, errTest)
			story += " " + eventNames[e]
		}
	}
	if opened == 0 {
		t.Error("no attempt was taken back: the test does not see open machines")
	}
}
