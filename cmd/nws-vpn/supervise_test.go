package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/platform"
)

// stubbornMachine is a platform.Configurator whose Set fails some times.
type stubbornMachine struct {
	failures int
	now      platform.Config
}

func (m *stubbornMachine) Set(c platform.Config) error {
	if m.failures > 0 {
		m.failures--
		return errors.New("it cannot be changed now")
	}
	m.now = c
	return nil
}

func (m *stubbornMachine) Keep(ctx context.Context, _ func(string)) error {
	<-ctx.Done()
	return ctx.Err()
}
func (m *stubbornMachine) UplinkDNS() []netip.Addr { return nil }
func (m *stubbornMachine) DNSManager() string      { return "" }
func (m *stubbornMachine) Notes() []string         { return nil }
func (m *stubbornMachine) Close() error            { return nil }

func testSupervisor(t *testing.T, machine *stubbornMachine) *supervisor {
	s := &supervisor{
		cfg: config.Default(), dirs: stateDirs{t.TempDir()}, log: slog.New(slog.DiscardHandler), out: io.Discard,
		platform: machine, persist: true, events: make(chan event, 16), wake: make(chan struct{}, 1),
		machine: lifecycle.New(lifecycle.On, platform.Config{Device: "nws0"}, lifecycle.Options{Persist: true}),
	}
	s.wayLog, s.wayTell = holdBack(s.log)
	s.ctx, s.stop = context.WithCancel(t.Context())
	t.Cleanup(func() { s.stop(); s.stopKeeping(); s.tasks.Wait() })
	return s
}

// Who asks for lockdown hears that the machine is closed when it is, and not
// before.
func TestLockdownIsInForceWhenItIsSaidSo(t *testing.T) {
	machine := new(stubbornMachine)
	s := testSupervisor(t, machine)
	s.dialing = true // nobody asks for the exit
	s.take(event{what: lifecycle.UpRequested})
	c := controlled{supervisor: s}
	said := make(chan error)
	lock := func() { said <- c.Lock() }
	go lock()
	s.take(<-s.events)
	if err := <-said; err != nil || !machine.now.Hold {
		t.Errorf("locked: %v, with %+v", err, machine.now)
	}
	s.policy, machine.failures = platform.Config{}, 2
	go lock()
	s.take(<-s.events)
	if err := <-said; err == nil {
		t.Error("a machine that could not be closed is said to be")
	}
	s.over = true
	s.stop()
	go lock()
	if err := <-said; err == nil {
		t.Error("a machine that is being opened is said to be closed")
	}
}

// A machine that cannot be closed at first is closed later, and then the exit is
// looked for, once at a time.
func TestLookingForTheExitAfterTheMachineCouldNotBeClosed(t *testing.T) {
	machine := &stubbornMachine{failures: 2} // the attempt, and what is put in its place
	s := testSupervisor(t, machine)
	s.stop() // so that attempts end at once
	s.take(event{what: lifecycle.UpRequested})
	if s.machine.State() != lifecycle.Blocked || s.attempts != 0 {
		t.Fatalf("%v after %d attempts to connect, want it blocked before the first", s.machine.State(), s.attempts)
	}
	s.take(event{what: lifecycle.Retry})
	if s.machine.State() != lifecycle.Connecting || s.attempts != 1 || machine.now.Filter != platform.FilterOn {
		t.Fatalf("%v after %d attempts to connect, want it connecting by the first", s.machine.State(), s.attempts)
	}
	s.take(event{what: lifecycle.Failed, err: errors.New("of something else")})
	s.take(event{what: lifecycle.Retry})
	if s.attempts != 1 {
		t.Errorf("%d attempts to connect at a time", s.attempts)
	}
	s.take(event{what: lifecycle.ConnectFailed, err: errors.New("no exit")})
	if s.attempts != 2 {
		t.Errorf("%d attempts to connect after the first has failed", s.attempts)
	}
}

func TestPausesGrow(t *testing.T) {
	s := new(supervisor)
	for _, want := range []int{1, 2, 4, 8, 16, 30, 30} {
		if got := int(s.longerPause().Seconds()); got != want {
			t.Errorf("a pause of %d s, want %d", got, want)
		}
	}
}

// A first attempt whose last step fails is taken back: nothing was entrusted to
// the tunnel yet.
func TestFirstAttemptThatCannotBePutInForce(t *testing.T) {
	machine := new(stubbornMachine)
	s := testSupervisor(t, machine)
	s.persist, s.dialing = false, true
	s.machine = lifecycle.New(lifecycle.On, platform.Config{Device: "nws0"}, lifecycle.Options{})
	s.take(event{what: lifecycle.UpRequested})
	s.opened = time.Now() // the device is not opened here
	s.take(event{what: lifecycle.ExitReached})
	machine.failures = 1
	s.take(event{what: lifecycle.DeviceReady})
	if !s.over || s.why == nil || !reflect.DeepEqual(machine.now, platform.Config{}) {
		t.Errorf("over %v: %v, and the machine has %+v", s.over, s.why, machine.now)
	}
}
