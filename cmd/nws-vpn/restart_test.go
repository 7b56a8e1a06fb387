package main

import (
	"context"
	"reflect"
	"testing"

	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/platform"
)

// Whose end is asked for while the process is about to begin anew does not.
func TestEndedWhileItBeginsAnew(t *testing.T) {
	for _, test := range []struct {
		name   string
		how    lifecycle.KillSwitch
		unlock bool
		held   bool
	}{
		{"down", lifecycle.On, false, false},
		{"in lockdown", lifecycle.Lockdown, false, true},
		{"unlocked", lifecycle.Lockdown, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			machine := new(stubbornMachine)
			s := testSupervisor(t, machine)
			s.dialing = true // nobody asks for the exit
			s.machine = lifecycle.New(test.how, platform.Config{Device: "nws0"}, lifecycle.Options{Persist: true})
			s.take(event{what: lifecycle.UpRequested})
			s.hangUp()
			if !s.over || machine.now.Filter != platform.FilterOn {
				t.Fatalf("over %v, and the machine has %+v, want it closed", s.over, machine.now)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			(&controlled{s, cancel}).Down(test.unlock)
			err := s.beginAnew(ctx)
			if err != nil || machine.now.Hold != test.held || s.left == "" {
				t.Errorf("%v, %q, and the machine has %+v", err, s.left, machine.now)
			}
			if !test.held && !reflect.DeepEqual(machine.now, platform.Config{}) {
				t.Errorf("the machine has %+v, want it open", machine.now)
			}
			if _, found := s.dirs.recall(); found != test.held {
				t.Errorf("the machine is said to be closed: %v", found)
			}
		})
	}
}
