package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"

	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
)

// controlled answers the control socket.
type controlled struct {
	*supervisor
	cancel context.CancelFunc
}

func (c *controlled) Status() any { return c.status() }

func (c *controlled) Down(unlock bool) {
	if unlock {
		c.tell(event{what: lifecycle.Unlocked})
		return
	}
	c.cancel()
}

func (c *controlled) Leaves() string { return c.leaves }

func (c *controlled) Lock() error {
	if err := c.dirs.remember(record{KillSwitch: lifecycle.Lockdown}); err != nil {
		return err
	}
	taken := make(chan error, 1)
	c.tell(event{what: lifecycle.Locked, taken: taken})
	select {
	case err := <-taken:
		return err
	case <-c.ctx.Done():
		return errors.New("the tunnel has just ended: run `nws-vpn lockdown` again")
	}
}

func (c *controlled) Confirm() error {
	if c.rollback == nil {
		return errors.New("nothing waits to be confirmed: up was run without --rollback-after")
	}
	return c.rollback.confirm()
}

// restartedEnv marks a process that has taken the place of an earlier one.
const restartedEnv = "NWS_VPN_RESTARTED"

func isRestarted() bool { return os.Getenv(restartedEnv) != "" }

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
	return syscall.Exec(self, os.Args, env)
}
