package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
)

// restartedEnv marks a process that has taken the place of an earlier one.
const restartedEnv = "NWS_VPN_RESTARTED"

func isRestarted() bool { return os.Getenv(restartedEnv) != "" }

// errEndedMeanwhile says that a process which has taken the place of another one
// finds the machine open: `nws-vpn down`, or the like, came between the two.
var errEndedMeanwhile = errors.New("the tunnel was ended as it began anew: the machine is as it was")

// beginAnew has a new process take the place of this one, whose tunnel is down,
// unless its end was asked for meanwhile. It returns at the end, or when there is no
// new process; the machine is closed then.
func (s *supervisor) beginAnew(ctx context.Context) error {
	if s.endInstead(ctx) {
		return s.why
	}
	s.leaves = control.LeavesHeir
	closed := s.closeSocket()
	if s.endInstead(ctx) { // nobody can ask any more
		return errors.Join(s.why, closed)
	}
	return errors.Join(s.why, closed, s.rollback.leave(), s.ready.leave(), restart())
}

// endInstead ends what was to begin anew, if that was asked for.
func (s *supervisor) endInstead(ctx context.Context) bool {
	what := lifecycle.DownRequested
	switch {
	case s.unlock.Load():
		what = lifecycle.Unlocked
	case ctx.Err() == nil:
		return false
	}
	s.reload = false
	s.log.Info("going down")
	s.manager.Notify("STOPPING=1")
	s.putBack(s.machine.On(what, nil).Policy, event{what: what})
	return true
}

// restart replaces this process by a new one of the same program, command line
// and process id. It returns only if that fails; the machine is then closed.
func restart() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// What Linux adds to the path of a program that was replaced by another.
	self = strings.TrimSuffix(self, " (deleted)")
	env := append(os.Environ(), restartedEnv+"=1")
	// Another one, before the new process listens, changes nothing.
	signal.Ignore(syscall.SIGHUP)
	// What is not heeded any more leaves the machine closed, rather than being lost.
	signal.Reset(os.Interrupt, syscall.SIGTERM)
	return syscall.Exec(self, os.Args, env)
}
