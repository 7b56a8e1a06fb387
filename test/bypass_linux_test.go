package test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// bypass starts a command outside the tunnel.
func (tun *tunnel) bypass(command ...string) *netlab.Process {
	tun.t.Helper()
	p, err := tun.Start(tun.Client, world.Options{}, append([]string{"bypass", "--state-dir", world.StateDir}, command...)...)
	return tun.started("bypass", p, err)
}

func TestBypass(t *testing.T) {
	curl := needProgram(t, "curl")
	tun := splitWorld(t)
	p := tun.bypass("true")
	tun.ends(p, 1)
	if !strings.Contains(p.Output(), "no tunnel is up") {
		t.Errorf("without a tunnel: %s", p.Output())
	}
	tun.startRelay()
	tun.startExit()
	up := tun.startUp()
	says := func(want string, command ...string) {
		t.Helper()
		p := tun.bypass(command...)
		tun.ends(p, 0)
		if got := strings.TrimSpace(p.Output()); got != want {
			t.Errorf("%q says %q, want %q", command, got, want)
		}
	}
	says(asClient, curl, "-sS", "http://"+publicA+"/")
	says(asClient6, curl, "-sS", "http://["+publicA6+"]/")
	says(asClient, curl, "-sS4", "http://"+directName+"/")
	if askedFor(tun.Beyond, directName) {
		t.Error("its name was asked for in the tunnel")
	}
	tun.ends(tun.bypass("sh", "-c", "exit 7"), 7)
	tun.ends(tun.bypass("no-such-program"), 127)
	tun.ends(tun.bypass(curl, "-sS", "http://"+publicA+":81/"), 7) // refused

	// While it runs, the others stay in the tunnel. It gets its signals.
	p = tun.bypass("sh", "-c", `trap "echo caught; exit 9" TERM; echo ready; while :; do sleep 0.05; done`)
	tun.awaitLine(p, "ready")
	tun.sees("", "http://"+publicA+"/", asExit)
	tun.closed("beside a command outside", func() {})
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	tun.ends(p, 9)
	if !strings.Contains(p.Output(), "caught") {
		t.Errorf("the command did not get the signal: %s", p.Output())
	}
	// However late a signal comes, what the command ended with is what counts.
	p = tun.bypass("sh", "-c", `trap "" INT; echo ready; sleep 0.1; exit 9`)
	tun.awaitLine(p, "ready")
	for p.Signal(syscall.SIGINT) == nil {
		continue // until it is gone
	}
	tun.ends(p, 9)
	// Killed, it takes its command with it.
	p = tun.bypass("sh", "-c", "echo $$; exec sleep 600")
	tun.awaitLine(p, "")
	tun.kill(p)
	for tun.runAny("pgrep", "", "-f", "^sleep 600$").Code == 0 {
		if tun.ctx.Err() != nil {
			t.Fatal("the command lives on")
		}
	}
	tun.takeDown(up)
}

// The command has the terminal.
func TestBypassAtATerminal(t *testing.T) {
	tun := splitWorld(t)
	tun.startRelay()
	tun.startExit()
	tun.startUp()
	line := tun.Binary() + " bypass --state-dir " + world.StateDir + ` sh -c 'tty; trap "echo interrupted; exit 5" INT; echo ready; while :; do sleep 0.05; done'`
	p, keys := tun.terminal(line)
	tun.awaitLine(p, "/dev/pts/")
	tun.awaitLine(p, "ready")
	tun.press(keys, "\x03")
	tun.awaitLine(p, "interrupted")
	keys.Close()
	tun.ends(p, 5)
}
