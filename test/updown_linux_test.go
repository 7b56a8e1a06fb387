package test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

const probeMark = "probe-of-the-life-cycle"

// nwsEnds runs nws-vpn to its end in the client, with the world's state directory, and returns
// what it printed.
func (tun *tunnel) nwsEnds(wellEnds bool, args ...string) string {
	tun.t.Helper()
	res, err := tun.Run(tun.ctx, tun.Client, append(args, "--state-dir", world.StateDir)...)
	if err != nil {
		tun.t.Fatal(err)
	}
	if (res.Code == 0) != wellEnds {
		tun.t.Errorf("nws-vpn %q ended with code %d: %s", args, res.Code, res.Output)
	}
	return res.Output
}

// closed checks that probes do not leave, while and after act.
func (tun *tunnel) closed(when string, act func()) {
	tun.t.Helper()
	end := tun.watch(probeMark)
	act()
	tun.probe(probeMark)
	if strange, marked := end(); marked > 0 || len(strange) > 0 {
		tun.t.Errorf("%s the wire is open: %d marked packets; %s", when, marked, strings.Join(strange, "\n"))
	}
}

// open checks that probes do leave: that the machine is open, and that they are
// seen.
func (tun *tunnel) open(when string) {
	tun.t.Helper()
	end := tun.watch(probeMark)
	tun.probe(probeMark)
	if _, marked := end(); marked < 8 {
		tun.t.Errorf("%s the machine is not open: %d marked packets", when, marked)
	}
}

// awaitState waits until status says so.
func (tun *tunnel) awaitState(want string) {
	tun.t.Helper()
	for tun.status()["state"] != want {
		if tun.ctx.Err() != nil {
			tun.t.Fatalf("the state does not become %s: %v", want, tun.status())
		}
	}
}

// upArgs are up's, to the exit of this world.
func (tun *tunnel) upArgs(more ...string) []string {
	return append([]string{"up", "--exit", tun.key, "--relay", world.RelayURL}, more...)
}

// begin starts up and does not wait for a connection.
func (tun *tunnel) begin(more ...string) *netlab.Process {
	tun.t.Helper()
	p, err := tun.Start(tun.Client, world.Options{}, append(tun.upArgs(more...), "--state-dir", world.StateDir)...)
	return tun.started("up", p, err)
}

func (tun *tunnel) awaitLine(p *netlab.Process, part string) {
	tun.t.Helper()
	if _, err := p.WaitLine(tun.ctx, func(line string) bool { return strings.Contains(line, part) }); err != nil {
		tun.t.Fatal(err)
	}
}

func TestLifeAfterAKill(t *testing.T) {
	tun := newTunnel(t)
	before := tun.snapshot()
	tun.open("before up")
	tun.startRelay()
	exit := tun.startExit()
	up := tun.startUp()
	end := tun.watch(probeMark)
	tun.kill(up)
	tun.probe(probeMark)

	// One that does not get through leaves it as it is.
	tun.kill(exit)
	text := tun.nwsEnds(false, tun.upArgs()...)
	if !strings.Contains(text, "stays closed") || !strings.Contains(text, "nws-vpn down") {
		t.Errorf("up on a closed machine without an exit says %s", text)
	}
	tun.probe(probeMark)
	text = tun.nwsEnds(true, "repair", "--after-crash")
	if !strings.Contains(text, "stays closed") {
		t.Errorf("repair of a unit says %s", text)
	}
	tun.probe(probeMark)

	tun.startExit()
	up = tun.startUp()
	tun.probe(probeMark)
	tun.reaches("after a kill and another up")
	if text := tun.nwsEnds(false, "repair"); !strings.Contains(text, "is running") {
		t.Errorf("repair beside a tunnel says %s", text)
	}
	tun.kill(up)
	tun.probe(probeMark)
	if strange, marked := end(); marked > 0 || len(strange) > 0 {
		t.Errorf("between the kill and the next up the wire is open: %d marked packets; %s", marked, strings.Join(strange, "\n"))
	}
	tun.nwsEnds(true, "repair")
	tun.restored(before)
	tun.nwsEnds(true, "repair")
	tun.restored(before)
	tun.open("after repair")
}

func TestLifeWithoutAnExit(t *testing.T) {
	tun := newTunnel(t)
	before := tun.snapshot()
	tun.startRelay()
	tun.closed("while it connects", func() {
		up := tun.begin()
		tun.awaitLine(up, "state=connecting")
		tun.probe(probeMark)
		if status := tun.status(); status["state"] != "connecting" || status["kill_switch"] != "on" {
			t.Errorf("status while it connects: %v", status)
		}
		tun.nwsEnds(true, "down")
		tun.ended(up, true)
		up = tun.begin("--retry")
		tun.awaitLine(up, "no session with the exit")
		tun.probe(probeMark)
		tun.kill(up)
	})
	tun.nwsEnds(true, "down")
	tun.restored(before)

	up := tun.begin()
	tun.ended(up, false)
	tun.restored(before)
	tun.open("after an attempt that failed")
}

// leak check 28: locked, up, down, unlocked
func TestLifeOfLockdown(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	tun.closed("in lockdown", func() { tun.nwsEnds(true, "lockdown") })
	tun.closed("in lockdown, said twice", func() { tun.nwsEnds(true, "lockdown") })
	up := tun.startUp()
	if got := tun.status()["kill_switch"]; got != "lockdown" {
		t.Errorf("the kill switch of a tunnel in lockdown is %v", got)
	}
	tun.reaches("in lockdown")
	tun.closed("after down", func() {
		if text := tun.nwsEnds(true, "down"); !strings.Contains(text, "--unlock") {
			t.Errorf("down in lockdown says %s", text)
		}
		tun.ended(up, true)
	})
	tun.closed("after down again", func() { tun.nwsEnds(true, "down") })
	tun.nwsEnds(true, "down", "--unlock")
	tun.restored(before)
	tun.open("after it is unlocked")

	// A tunnel that runs is locked, and killed, and unlocked.
	up = tun.startUp("--kill-switch", "off")
	tun.closed("after a running tunnel was locked and killed", func() {
		if text := tun.nwsEnds(true, "lockdown"); !strings.Contains(text, "when it ends the machine stays closed") {
			t.Errorf("lockdown beside a tunnel says %s", text)
		}
		for tun.status()["kill_switch"] != "lockdown" && tun.ctx.Err() == nil {
		}
		tun.kill(up)
		tun.nwsEnds(true, "down")
	})
	tun.nwsEnds(true, "repair")
	tun.restored(before)

	up = tun.startUp("--kill-switch", "lockdown")
	tun.nwsEnds(true, "down", "--unlock")
	tun.ended(up, true)
	tun.restored(before)
}

// leak check 25: with and without confirm
func TestLifeWithRollback(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()

	up := tun.startUp("--rollback-after", "10m")
	tun.nwsEnds(true, "confirm")
	tun.nwsEnds(false, "confirm")
	tun.undone(up, before)

	up = tun.startUp()
	if text := tun.nwsEnds(false, "confirm"); !strings.Contains(text, "nothing") {
		t.Errorf("confirm with nothing to confirm says %s", text)
	}
	tun.takeDown(up)

	up = tun.startRolledBack(before)
	tun.ended(up, true)
	tun.becomes(before)

	// It hangs, and then it is killed.
	up = tun.startRolledBack(before)
	if err := up.Signal(syscall.SIGSTOP); err != nil && !errors.Is(err, os.ErrProcessDone) { // its time may be up
		t.Fatal(err)
	}
	tun.kill(up)
	tun.becomes(before)
}

// startRolledBack starts up to be rolled back soon, but not before it is connected:
// it takes as long a time as this machine needs now.
func (tun *tunnel) startRolledBack(before string) *netlab.Process {
	tun.t.Helper()
	for after := time.Second; ; after *= 2 {
		up := tun.begin("--rollback-after", after.String())
		if _, err := up.WaitLine(tun.ctx, func(l string) bool { return strings.HasPrefix(l, "connected") }); err == nil {
			return up
		}
		tun.ended(up, true)
		tun.becomes(before)
		if tun.ctx.Err() != nil {
			tun.t.Fatal("up is not connected in time")
		}
	}
}

// becomes waits until the client is as it was.
func (tun *tunnel) becomes(before string) {
	tun.t.Helper()
	for tun.snapshot() != before {
		if tun.ctx.Err() != nil {
			tun.restored(before)
			return
		}
	}
}

func TestLifeOfADryRun(t *testing.T) {
	tun := newTunnel(t)
	before := tun.snapshot()
	text := tun.nwsEnds(true, tun.upArgs("--dry-run")...)
	for _, want := range []string{"replace /etc/resolv.conf by a file that says: nameserver 198.18.0.2", "ip -4 rule add", "ip addr add 198.18.0.1/32 dev nws0", "unreachable default"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	tun.restored(before)
	if res := tun.runAny("ls", "", world.StateDir); res.Code == 0 {
		t.Errorf("the state directory was made: %s", res.Output)
	}
	tun.startRelay()
	tun.startExit()
	up := tun.startUp("-v")
	for line := range strings.Lines(text) {
		// The device itself is not platform's to make.
		if strings.Contains(up.Output(), "change the machine") {
			t.Error("up says it twice")
			break
		}
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "ip tuntap") && !strings.Contains(up.Output(), "+ "+line) {
			t.Errorf("up did not say that it did %q", line)
		}
	}
}

func TestLifeAfterHangUp(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	up := tun.startUp()
	if err := up.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, err := up.WaitLine(tun.ctx, secondLine("connected")); err != nil {
		t.Fatal(err)
	}
	tun.recovers()
	tun.nwsEnds(true, "down")
	tun.ended(up, true)
	tun.restored(before)

	if text := tun.nwsEnds(true, tun.upArgs("--detach")...); !strings.Contains(text, "in the background") {
		t.Errorf("up --detach says %s", text)
	}
	first := tun.status()
	tun.closed("while it begins anew", func() {
		pid := int(first["pid"].(float64))
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		tun.probe(probeMark)
		for {
			res, err := tun.Run(tun.ctx, tun.Client, "status", "--json", "--state-dir", world.StateDir)
			if err != nil {
				t.Fatal(err)
			}
			if res.Code == 0 && !strings.Contains(res.Stdout, first["started"].(string)) {
				break
			}
		}
		tun.awaitState("connected")
		if now := tun.status(); now["pid"] != first["pid"] {
			t.Errorf("the process was %v, and is %v", first["pid"], now["pid"])
		}
	})
	tun.recovers()
	tun.nwsEnds(true, "down")
	tun.restored(before)
}
