package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"testing"

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

// A machine that cannot be closed at first is closed later, and then the exit is
// looked for, once at a time.
func TestLookingForTheExitAfterTheMachineCouldNotBeClosed(t *testing.T) {
	cfg := config.Default()
	machine := &stubbornMachine{failures: 2} // the attempt, and what is put in its place
	s := &supervisor{
		cfg: cfg, dirs: stateDirs{t.TempDir()}, log: slog.New(slog.DiscardHandler), out: io.Discard,
		platform: machine, persist: true, events: make(chan event, 16), wake: make(chan struct{}, 1),
		machine: lifecycle.New(lifecycle.On, platform.Config{Device: "nws0"}, lifecycle.Options{Persist: true}),
	}
	s.ctx, s.stop = context.WithCancel(t.Context())
	s.stop() // so that attempts end at once
	defer func() { s.stopKeeping(); s.tasks.Wait() }()
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
