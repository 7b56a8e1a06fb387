package main

import (
	"fmt"
	"time"

	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
)

// view is what status shows of the state machine.
type view struct {
	state      lifecycle.State
	since      time.Time
	cause      error // of Blocked
	failure    error // of the last attempt to connect
	killSwitch lifecycle.KillSwitch
	portal     string // what gives a captive portal away
}

// show tells everybody the state.
func (s *supervisor) show(step lifecycle.Step, e event) {
	s.mu.Lock()
	before := s.view
	s.view.state, s.view.cause, s.view.killSwitch = step.State, s.machine.Cause(), s.machine.KillSwitch()
	if e.what == lifecycle.ConnectFailed {
		s.view.failure = e.err
	}
	if step.State != before.state || before.since.IsZero() {
		s.view.since = time.Now()
	}
	changed := s.view.since != before.since
	s.mu.Unlock()
	if !changed || step.Task == lifecycle.End {
		return
	}
	because := s.machine.Cause()
	if e.what == lifecycle.ExitLost {
		because = e.err
	}
	if because != nil {
		s.log.Warn("the tunnel's state has changed", "state", step.State, "because", because)
	} else {
		s.log.Info("the tunnel's state has changed", "state", step.State)
	}
	s.manager.Notify("STATUS=" + step.State.String())
	if step.State == lifecycle.Connected {
		s.greet()
	}
	if s.persist {
		s.manager.Notify("READY=1")
	}
}

// greet says once that the tunnel is up.
func (s *supervisor) greet() {
	if s.greeted {
		return
	}
	s.greeted = true
	for _, note := range s.platform.Notes() {
		s.log.Warn(note)
	}
	link := s.tunnel.router.Main()
	fmt.Fprintf(s.out, "connected to %s through %s\n", link.Exit().NPub(), link.Status().Relay)
	s.ready.tell(wordReady)
	s.manager.Notify("READY=1")
}
