package main

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/platform"
)

// take lets the state machine decide and does what it says.
func (s *supervisor) take(e event) {
	if s.over || s.isOld(e) {
		return
	}
	s.dialing = s.dialing && e.tunnel == nil && e.what != lifecycle.ConnectFailed
	if e.tunnel != nil {
		s.wayTell(true)
		s.mu.Lock()
		s.tunnel = e.tunnel
		s.mu.Unlock()
		s.tasks.Go(func() { s.watchLink(e.tunnel) })
	}
	step := s.machine.On(e.what, e.err)
	for step.Task != lifecycle.End {
		err := s.apply(step.Policy)
		if err == nil {
			break
		}
		s.log.Error("the machine cannot be put into the state that is wanted", "state", step.State, "err", err)
		if step.State == lifecycle.Blocked {
			break // what was in force before is; it is tried again
		}
		e.err = err
		step = s.machine.On(lifecycle.Failed, err)
	}
	s.show(step, e)
	s.do(step, e)
	if e.taken != nil {
		e.taken <- s.unlessInForce()
	}
}

// unlessInForce says that the machine is not as the present state wants it.
func (s *supervisor) unlessInForce() error {
	if s.inForce {
		return nil
	}
	return fmt.Errorf("the machine cannot be changed now, and it is tried again: %w", s.machine.Cause())
}

// isOld reports whether e is about a device that has been replaced.
func (s *supervisor) isOld(e event) bool {
	return e.stack != nil && (s.tunnel == nil || s.tunnel.stack != e.stack)
}

// apply puts the machine into the state of a policy and keeps it there.
func (s *supervisor) apply(policy platform.Config) error {
	if s.inForce && reflect.DeepEqual(policy, s.policy) {
		return nil
	}
	s.stopKeeping()
	err := s.platform.Set(policy)
	s.policy, s.inForce = policy, err == nil
	s.startKeeping()
	return err
}

// do begins the task of a step. Tasks end in events.
func (s *supervisor) do(step lifecycle.Step, e event) {
	switch step.Task {
	case lifecycle.Connect:
		if s.tunnel == nil && !s.dialing { // else its link redials by itself
			s.connect()
		}
	case lifecycle.OpenDevice:
		// A device that somebody keeps removing is made at the pace of retries.
		if time.Since(s.opened) >= minPause {
			s.openDevice()
		}
	case lifecycle.End:
		s.finish(step.Policy, e)
	}
}

// hangUp takes SIGHUP: to begin anew, with what is in the configuration and in
// the program's file now; the machine is closed meanwhile. A terminal that is
// gone says the same, for nobody has asked to open the machine.
func (s *supervisor) hangUp() {
	s.reload = true
	s.log.Info("beginning anew")
	s.take(event{what: lifecycle.DownRequested})
}

// finish ends everything and leaves the machine with the policy.
func (s *supervisor) finish(policy platform.Config, e event) {
	s.over = true
	if s.reload {
		s.manager.Notify("RELOADING=1")
	} else {
		s.manager.Notify("STOPPING=1")
	}
	s.wayTell(false)
	s.stop()
	s.stopKeeping()
	s.tasks.Wait()
	for len(s.events) > 0 {
		if late := <-s.events; late.tunnel != nil {
			late.tunnel.lower()
		}
	}
	if e.what == lifecycle.DeviceGone {
		e.err = lifecycle.ErrDeviceGone
	}
	errs := []error{e.err}
	if e.what == lifecycle.ConnectFailed {
		errs[0] = explainNoWay(e.err, s.cfg.Up.Exit)
	}
	if s.tunnel != nil {
		errs = append(errs, s.tunnel.lower())
	}
	s.closeRelay()
	s.why = errors.Join(errs...)
	// Else as after a kill: what is in force closes the machine, and the next
	// process takes it over.
	if !s.reload {
		s.putBack(policy, e)
	}
}

// putBack leaves the machine with the policy.
func (s *supervisor) putBack(policy platform.Config, e event) {
	err := s.platform.Set(policy)
	errs := []error{s.why, err, s.settle(policy.Hold, err)}
	if s.rollback != nil {
		_ = s.rollback.dismiss() // it may have been confirmed
	}
	s.left = howLeft(policy.Hold, s.found, err)
	s.why = errors.Join(errs...)
	if s.why != nil {
		s.why = fmt.Errorf("%w\n%s", s.why, s.left)
	}
	if e.what == lifecycle.ConnectFailed {
		s.why = fmt.Errorf("%w; `nws-vpn up --retry` goes on trying, `nws-vpn doctor` looks for the fault", s.why)
	}
}

// settle leaves the machine, with err as it was put into its last state: who attends
// this process hears how it is left, and then others may have the state directory.
func (s *supervisor) settle(held bool, err error) error {
	s.leaves = control.LeavesClosed
	if !held && err == nil {
		s.leaves = control.LeavesOpen
	}
	errs := []error{s.closeSocket()}
	switch {
	case held:
		errs = append(errs, s.dirs.remember(record{KillSwitch: s.machine.KillSwitch()}))
	case err == nil:
		errs = append(errs, s.dirs.forget())
	}
	return errors.Join(append(errs, s.platform.Close())...)
}

// closeSocket lets nobody ask any more.
func (s *supervisor) closeSocket() error {
	if s.socket == nil {
		return nil
	}
	err := s.socket.Close()
	s.socket = nil
	return err
}

// howLeft says how the machine is after all: held closed, or opened, which it was
// not if it was found closed, unless that has failed.
func howLeft(held, found bool, err error) string {
	switch {
	case held:
		return "the machine stays closed: `nws-vpn down --unlock` opens it"
	case err != nil:
		return "the machine may not be as it was: `nws-vpn repair` puts it back"
	case found:
		return "the machine is open again"
	}
	return "the machine is as it was"
}
