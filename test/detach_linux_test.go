package test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// beginDetached starts up --detach where there is no exit, and returns with the
// status of the process in the background once it tries to connect.
func (tun *tunnel) beginDetached(more ...string) (*netlab.Process, map[string]any) {
	tun.t.Helper()
	p := tun.begin(append([]string{"--detach", "--retry"}, more...)...)
	return p, tun.connecting()
}

// connecting waits for an up that is on its way.
func (tun *tunnel) connecting() (status map[string]any) {
	tun.t.Helper()
	tun.await("up is on its way to the exit", func() bool {
		res, err := tun.Run(tun.ctx, tun.Client, "status", "--state-dir", world.StateDir)
		return err == nil && res.Code == 0 && strings.Contains(res.Stdout, "connecting")
	})
	return tun.status()
}

// TestDetachInterrupted: who does not want to wait any more has the machine back.
func TestDetachInterrupted(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	before := tun.snapshot()
	for _, end := range []struct {
		name   string
		signal syscall.Signal
		flags  []string
		says   string
	}{
		{"SIGINT", syscall.SIGINT, nil, "interrupted: the machine is as it was"},
		{"SIGTERM", syscall.SIGTERM, nil, "interrupted: the machine is as it was"},
		{"SIGHUP", syscall.SIGHUP, nil, "interrupted: the machine is as it was"},
		{"in lockdown", syscall.SIGINT, []string{"--kill-switch", "lockdown"}, "interrupted: the machine stays closed: `nws-vpn down --unlock`"},
	} {
		t.Run(end.name, func(t *testing.T) {
			tun := tun.with(t)
			up, _ := tun.beginDetached(end.flags...)
			if err := up.Signal(end.signal); err != nil {
				t.Fatal(err)
			}
			tun.ends(up, 1)
			if !strings.Contains(up.Output(), "nws-vpn: "+end.says) {
				t.Errorf("it says %s", up.Output())
			}
			if end.flags != nil {
				tun.nwsEnds(true, "down", "--unlock")
			}
			tun.restored(before)
		})
	}
}

// A second signal does not wait for a background process that hangs.
func TestDetachInterruptedTwice(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	before := tun.snapshot()
	up, status := tun.beginDetached()
	child := int(status["pid"].(float64))
	if err := syscall.Kill(child, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for up.Signal(syscall.SIGINT) == nil && tun.ctx.Err() == nil {
		continue // signals that are not taken yet are one
	}
	tun.ends(up, 1)
	if !strings.Contains(up.Output(), "nws-vpn: interrupted again") || !strings.Contains(up.Output(), "`nws-vpn down` ends it") {
		t.Errorf("it says %s", up.Output())
	}
	if err := syscall.Kill(child, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	tun.becomes(before)
}

func TestDetachInterruptedAtATerminal(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	before := tun.snapshot()
	line := strings.Join(append([]string{tun.Binary()}, tun.upArgs("--detach", "--retry", "--state-dir", world.StateDir)...), " ")
	p, keys := tun.terminal(line)
	tun.connecting()
	tun.press(keys, "\x03")
	tun.awaitLine(p, "interrupted: the machine is as it was")
	keys.Close()
	tun.ends(p, 1)
	tun.restored(before)
}

// TestInterruptedWhileItConnects: who ends it is not told that it was ended.
func TestInterruptedWhileItConnects(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	before := tun.snapshot()
	for _, flags := range [][]string{nil, {"--retry"}} {
		up := tun.begin(flags...)
		tun.connecting()
		if err := up.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		tun.ended(up, true)
		if strings.Contains(up.Output(), "cancel") {
			t.Errorf("it says %s", up.Output())
		}
		tun.restored(before)
	}
}

// TestDetachEndsBeforeItIsConnected: what was never up is not called connected.
func TestDetachEndsBeforeItIsConnected(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	before := tun.snapshot()
	up, _ := tun.beginDetached()
	tun.nwsEnds(true, "down")
	tun.ends(up, 1)
	if !strings.Contains(up.Output(), "nws-vpn: ended before it was connected: the machine is as it was") || strings.Contains(up.Output(), "in the background") {
		t.Errorf("it says %s", up.Output())
	}
	tun.restored(before)
}

// TestDetachReloads: who waits for a connection does so while it begins anew, and
// hears of the end, too.
func TestDetachReloads(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	before := tun.snapshot()
	begin := func() *netlab.Process {
		up, first := tun.beginDetached()
		if err := syscall.Kill(int(first["pid"].(float64)), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		tun.await("it has begun anew", func() bool {
			res, err := tun.Run(tun.ctx, tun.Client, "status", "--json", "--state-dir", world.StateDir)
			return err == nil && res.Code == 0 && !strings.Contains(res.Stdout, first["started"].(string))
		})
		return up
	}
	up := begin()
	tun.nwsEnds(true, "down")
	tun.ends(up, 1)
	if !strings.Contains(up.Output(), "nws-vpn: ended before it was connected: the machine is ") {
		t.Errorf("it says %s", up.Output())
	}
	tun.restored(before)
	up = begin()
	tun.startExit()
	tun.ended(up, true)
	if !strings.Contains(up.Output(), "in the background") {
		t.Errorf("it says %s", up.Output())
	}
	tun.nwsEnds(true, "down")
	tun.restored(before)
}
