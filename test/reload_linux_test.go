package test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// SIGHUP as often as it pleases somebody ends nothing.
func TestReloadRepeated(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	begun, enough := 0, make(chan struct{})
	up, err := tun.StartUp(tun.ctx, tun.key, world.Options{OnLine: func(line string) {
		if strings.Contains(line, "beginning anew") {
			if begun++; begun == 5 {
				close(enough)
			}
		}
	}})
	tun.started("up", up, err)
	for more := true; more; {
		if err := up.Signal(syscall.SIGHUP); err != nil {
			t.Fatalf("up has ended (%v): %v", err, up.Wait(tun.ctx))
		}
		select {
		case <-enough:
			more = false
		case <-up.Done():
			t.Fatalf("up has ended: %v", up.Wait(tun.ctx))
		case <-tun.ctx.Done():
			t.Fatal("it does not begin anew")
		default:
		}
	}
	tun.recovers()
	tun.undone(up, before)
}

// Who came between the old process and the new one has ended both.
func TestReloadEndedBetween(t *testing.T) {
	tun := newTunnel(t)
	before := tun.snapshot()
	up, err := tun.Client.Start(netlab.CommandOptions{Env: []string{"NWS_VPN_RESTARTED=1"}}, tun.Binary(), tun.upArgs("--rollback-after", "10m", "--state-dir", world.StateDir)...)
	tun.started("up", up, err)
	tun.ended(up, true)
	tun.restored(before)
	if res := tun.runAny("ls", "", world.StateDir+"/closed.json"); res.Code == 0 {
		t.Error("up has left word that the machine is closed")
	}
}

// What is to end it is heeded while it begins anew.
func TestReloadEnded(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	for range 4 {
		up := tun.startUp()
		// All are there when it goes on.
		err := errors.Join(up.Signal(syscall.SIGSTOP), up.Signal(syscall.SIGHUP), up.Signal(syscall.SIGTERM), up.Signal(syscall.SIGCONT))
		if err != nil {
			t.Fatal(err)
		}
		tun.ended(up, true)
		tun.restored(before)
	}
}
