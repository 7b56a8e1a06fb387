package main

import (
	"context"
	"time"

	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/netstack"
	"github.com/nws-vpn/nws-vpn/tun"
)

// connect makes an attempt to reach the exit, after a pause unless it is the
// first.
func (s *supervisor) connect() {
	pause := min(time.Duration(s.attempts)*minPause, maxPause)
	s.attempts++
	s.dialing = true
	s.tasks.Go(func() {
		select {
		case <-time.After(pause):
		case <-s.wake:
		case <-s.ctx.Done():
			return
		}
		t, err := s.reachExit()
		for begun := time.Now(); err != nil && s.waitsForExit(begun); {
			t, err = s.reachExit()
		}
		if err != nil {
			s.tell(event{what: lifecycle.ConnectFailed, err: err})
			return
		}
		s.tell(event{what: lifecycle.ExitReached, tunnel: t})
	})
}

func (s *supervisor) reachExit() (*tunnel, error) {
	ctx, cancel := context.WithTimeout(s.ctx, connectTimeout)
	defer cancel()
	t := &tunnel{
		memory: openPlainMemory(s.dirs.lasting(), s.log),

		credentials: s.credentials,
		relayKey:    s.relayKey,
		split:       splitNames(&s.cfg.Up, s.fakes, remembered(s.platform.UplinkDNS)),
	}
	if err := t.connectTo(ctx, s.relayDialer(), s.exit, s.relays, s.cfg, s.wayLog); err != nil {
		t.lower()
		return nil, err
	}
	return t, nil
}

// openDevice makes the device and serves it.
func (s *supervisor) openDevice() {
	s.opened = time.Now()
	stack, err := s.serveDevice()
	if err != nil {
		s.take(event{what: lifecycle.Failed, err: err})
		return
	}
	s.tasks.Go(func() {
		select {
		case <-stack.Failed():
			s.tell(event{what: lifecycle.DeviceGone, stack: stack})
		case <-s.ctx.Done():
		}
	})
	s.take(event{what: lifecycle.DeviceReady})
}

func (s *supervisor) serveDevice() (*netstack.Stack, error) {
	t := s.tunnel
	if t.stack != nil {
		t.stack.Close() // its device is gone, or no longer here
	} else if err := s.openNames(t); err != nil {
		return nil, err
	}
	dev, err := tun.Open(s.cfg.Up.Device, s.cfg.Up.MTU)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.stack == nil {
		err = t.startStack(dev, s.pool, s.sites, s.book, s.cfg, s.log)
	} else {
		err = t.serveDevice(dev, s.sites, s.cfg, s.log)
	}
	return t.stack, err
}

// openNames opens what turns names into addresses, once.
func (s *supervisor) openNames(t *tunnel) (err error) {
	if s.pool != nil {
		return nil
	}
	if s.sites, err = t.presentSites(t.router, s.relays, s.book, s.cfg, s.dirs, s.log); err != nil {
		return err
	}
	s.pool, err = t.openPool(s.dirs, s.fakes, s.log)
	return err
}

// watchLink reports when the exit is lost, and when it is back.
func (s *supervisor) watchLink(t *tunnel) {
	check := time.NewTicker(linkCheck)
	defer check.Stop()
	for reached := true; ; {
		select {
		case <-s.ctx.Done():
			return
		case <-check.C:
		}
		failure := ails(t.router.Main().Status())
		switch {
		case failure == nil && !reached:
			s.tell(event{what: lifecycle.ExitReached})
		case failure != nil && reached:
			s.tell(event{what: lifecycle.ExitLost, err: failure})
		}
		reached = failure == nil
	}
}
