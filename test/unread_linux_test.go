package test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// beginUnread starts up with a reader of what it says who goes once it is
// connected, as one does whose terminal or SSH connection has gone.
func (tun *tunnel) beginUnread(more ...string) *netlab.Process {
	tun.t.Helper()
	up := strings.Join(append([]string{tun.Binary()}, tun.upArgs(append(more, "--state-dir", world.StateDir)...)...), " ")
	p, err := tun.Client.Start(netlab.CommandOptions{}, needProgram(tun.t, "sh"), "-c", up+" 2>&1 | { grep -q -m1 'connected to'; exec <&-; echo gone; }")
	return tun.started("up", p, err)
}

// Nobody reads what up says, and it puts the machine back all the same.
func TestUpEndsUnread(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	for _, flags := range [][]string{nil, {"-v"}} {
		p := tun.beginUnread(flags...)
		tun.awaitLine(p, "gone")
		if err := syscall.Kill(int(tun.status()["pid"].(float64)), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		tun.becomes(before)
		<-p.Done()
		if res := tun.runAny("ls", "", world.StateDir+"/closed.json"); res.Code == 0 {
			t.Error("up has left word that the machine is closed")
		}
	}
}

// A connection that has gone is what --rollback-after is for.
func TestRollbackUnread(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	p := tun.beginUnread("--rollback-after", "1s")
	select {
	case <-p.Done(): // not before up has ended
	case <-tun.ctx.Done():
		t.Fatal("up goes on")
	}
	tun.becomes(before)
}

// An up that fails before it changes anything leaves no guard behind.
func TestRollbackOfNothing(t *testing.T) {
	tun := newTunnel(t)
	dir := "/run/" + strings.Repeat("x", 120) // too long for a socket's name
	res, err := tun.Run(tun.ctx, tun.Client, append(tun.upArgs("--rollback-after", "10m"), "--state-dir", dir)...)
	if err != nil || res.Code == 0 {
		t.Fatalf("up ended with code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.await("the guard has ended", func() bool { return tun.runAny("pgrep", "", "-f", "rollback-guard.*"+dir).Code == 1 })
}
