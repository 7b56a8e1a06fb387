package main

import (
	"context"
	"errors"

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
		c.unlock.Store(true)
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
