package test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

func TestEndsRestoreTheMachine(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	for _, end := range []struct {
		name string
		how  syscall.Signal // 0: "nws-vpn down"
	}{{"down", 0}, {"SIGTERM", syscall.SIGTERM}, {"SIGINT", syscall.SIGINT}} {
		t.Run(end.name, func(t *testing.T) {
			tun := tun.with(t)
			up := tun.startUp()
			if tun.snapshot() == before {
				t.Fatal("up changed nothing")
			}
			if end.how == 0 {
				tun.down()
			} else if err := up.Signal(end.how); err != nil {
				t.Fatal(err)
			}
			tun.ended(up, true)
			tun.restored(before)
		})
	}
}

func TestKilledThenUp(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	tun.kill(tun.startUp())
	up := tun.startUp()
	tun.reaches("after a kill and another up")
	tun.undone(up, before)
}

func TestKilledThenDown(t *testing.T) {
	const mark = "probe-after-the-kill"
	tun := served(t)
	before := tun.snapshot()
	up := tun.startUp()
	end := tun.watch(mark)
	tun.kill(up)
	tun.probe(mark)
	if strange, marked := end(); marked > 0 || len(strange) > 0 {
		t.Errorf("after the kill the wire is open: %d marked packets; %s", marked, strings.Join(strange, "\n"))
	}
	tun.down()
	tun.restored(before)
	// Twice is as good as once.
	if res, err := tun.Run(tun.ctx, tun.Client, "down", "--state-dir", world.StateDir); err != nil {
		t.Errorf("down again: %v: %s", err, res.Output)
	}
	tun.restored(before)
	tun.reaches("after down")
}

func TestDetach(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	args := []string{"up", "--exit", tun.key, "--relay", world.RelayURL, "--state-dir", world.StateDir}
	res, err := tun.Run(tun.ctx, tun.Client, append(args, "--detach")...)
	if err != nil || res.Code != 0 {
		t.Fatalf("up --detach ended with code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.reaches("in the background")
	for path, mode := range map[string]string{world.StateDir: "700", world.StateDir + "/control.sock": "600"} {
		if got := tun.run("stat", "-c", "%a", path); got != mode {
			t.Errorf("%s has mode %s", path, got)
		}
	}
	status := tun.status()
	if schema, ok := status["schema"].(float64); !ok || schema < 1 {
		t.Errorf("status has no schema number: %v", status)
	}
	if state, _ := status["state"].(string); !strings.EqualFold(state, "connected") {
		t.Errorf("the state is %v", status)
	}
	if manager := status["dns_manager"]; manager != "file" {
		t.Errorf("the manager of names is %v", manager)
	}
	text, err := tun.Run(tun.ctx, tun.Client, "status", "--state-dir", world.StateDir)
	if err != nil || text.Code != 0 || !strings.Contains(strings.ToLower(text.Stdout), "connected") {
		t.Errorf("status in text ended with code %d, %v: %s", text.Code, err, text.Output)
	}
	second, err := tun.Run(tun.ctx, tun.Client, args...)
	if err != nil || second.Code == 0 || !strings.Contains(second.Output, "nws-vpn down") {
		t.Errorf("a second up ended with code %d, %v: %s", second.Code, err, second.Output)
	}
	tun.down()
	tun.restored(before)
	after, err := tun.Run(tun.ctx, tun.Client, "status", "--state-dir", world.StateDir)
	if err != nil || strings.Contains(strings.ToLower(after.Stdout), "connected to") {
		t.Errorf("status after down: code %d, %v: %s", after.Code, err, after.Output)
	}
}

// startDownload begins a download and returns after its first bytes, with a
// function that reads the rest and compares it.
func (tun *tunnel) startDownload(size string, n int64) (finish func() error) {
	tun.t.Helper()
	c := tun.dial(world.WebIP, world.PortWeb)
	if _, err := io.WriteString(c, "GET /file?size="+size+" HTTP/1.0\r\n\r\n"); err != nil {
		tun.t.Fatal(err)
	}
	first := make([]byte, 100_000)
	if _, err := io.ReadFull(c, first); err != nil {
		tun.t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(first), "\r\n\r\n")
	return func() error {
		digest, got, err := world.Digest(io.MultiReader(strings.NewReader(body), c))
		if err == nil && (got != n || digest != world.FileDigest(n)) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
}

func TestRelayRestartsInMidDownload(t *testing.T) {
	tun := newTunnel(t)
	relay := tun.startRelay()
	tun.startExit()
	tun.startUp()
	finish := tun.startDownload("20000000", 20_000_000)
	tun.kill(relay)
	tun.startRelay()
	if err := finish(); err != nil {
		t.Error("the download:", err)
	}
	tun.reaches("after the restart")
}

func TestCableIsPulledInMidDownload(t *testing.T) {
	tun := connected(t)
	finish := tun.startDownload("20000000", 20_000_000)
	if err := tun.Client.SetLink("eth0", false); err != nil {
		t.Fatal(err)
	}
	// What a DHCP client does when the cable is back.
	if err := tun.Client.SetLink("eth0", true); err != nil {
		t.Fatal(err)
	}
	if err := tun.Client.Route("0.0.0.0/0", world.RouterIP); err != nil {
		t.Fatal(err)
	}
	if err := finish(); err != nil {
		t.Error("the download:", err)
	}
}

// A flow does not outlive its exit, although another one answers to the key.
func TestExitRestartsInMidDownload(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	exit := tun.startExit()
	tun.startUp()
	finish := tun.startDownload("50000000", 50_000_000)
	tun.kill(exit)
	tun.startExit()
	tun.recovers()
	if err := finish(); err == nil {
		t.Error("the download ended well without its exit")
	}
}

// recovers waits until connections work again.
func (tun *tunnel) recovers() {
	tun.t.Helper()
	for {
		got, err := tun.get("http://" + world.WebIP + "/")
		if err == nil && got == "hello from the web" {
			return
		}
		if tun.ctx.Err() != nil {
			tun.t.Fatalf("the client does not find its exit again: %q, %v", got, err)
		}
	}
}

func TestFlowsLeaveNothing(t *testing.T) {
	tun := connected(t)
	for range 20 {
		if _, err := tun.get("http://" + world.WebIP + "/"); err != nil {
			t.Fatal(err)
		}
	}
	c := tun.dial(world.WebIP, world.PortEcho)
	if n := tun.openFlows(); n < 1 {
		t.Errorf("with a connection open, status counts %v flows", n)
	}
	c.Close()
	for tun.openFlows() > 0 {
		if tun.ctx.Err() != nil {
			t.Fatalf("flows stay open: %v", tun.status())
		}
	}
}

// openFlows is the number of open TCP flows in the status.
func (tun *tunnel) openFlows() float64 {
	tun.t.Helper()
	flows, ok := tun.status()["flows"].(map[string]any)
	n, isNumber := flows["tcp"].(float64)
	if !ok || !isNumber {
		tun.t.Fatalf("status has no flows.tcp: %v", tun.status())
	}
	return n
}

// When down says so, the tunnel has ended, also one that had changed nothing yet:
// nobody has the state directory.
func TestDownOfOneThatHasChangedNothing(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	before := tun.snapshot()
	for range 4 {
		up := tun.begin("--retry", "--kill-switch", "off")
		tun.connecting()
		text := tun.nwsEnds(true, "down")
		err := tun.Client.Do(func() error {
			f, err := os.Open(filepath.Join(world.StateDir, "lock"))
			if err != nil {
				return err
			}
			defer f.Close()
			return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		})
		if err != nil || strings.TrimSpace(text) != "down" {
			t.Errorf("down says %q, and the state directory is locked: %v", text, err)
		}
		tun.ended(up, true)
		tun.restored(before)
	}
}
