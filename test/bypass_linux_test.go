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
	// This machine's own services are not outside.
	if err := tun.ServeHTTP(tun.Client, "[::]:8099", world.Handler("this machine")); err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{world.ClientIP, "[" + world.ClientIP6 + "]", "127.0.0.1", "198.18.0.1"} {
		tun.sees("", "http://"+own+":8099/", "hello from this machine")
		tun.ends(tun.bypass(curl, "-sS", "http://"+own+":8099/"), 7)
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
	p = tun.bypass("sh", "-c", "echo ready; exec tail -f /dev/null")
	tun.awaitLine(p, "ready")
	list := tun.inside(p)
	tun.kill(p)
	tun.gone(list)
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

// When the tunnel ends and leaves the machine closed, what runs outside has no
// network any more, whatever it began before.
//
// leak check 28: bypass has no network once the tunnel has ended
func TestBypassAfterTheTunnel(t *testing.T) {
	const gate = "/run/gate"
	curl := needProgram(t, "curl")
	for name, c := range map[string]struct {
		killSwitch string
		end        func(tun *tunnel, up *netlab.Process)
		cut        bool
	}{
		"down":             {"on", (*tunnel).takeDown, false},
		"down in lockdown": {"lockdown", (*tunnel).takeDown, true},
		"killed":           {"on", (*tunnel).kill, true},
	} {
		t.Run(name, func(t *testing.T) {
			tun := splitWorld(t)
			tun.startRelay()
			tun.startExit()
			tun.run("mkfifo", gate)
			up := tun.startUp("--kill-switch", c.killSwitch)
			p := tun.bypass("sh", "-c", "echo ready; while read n <"+gate+"; do "+curl+" -sS --max-time 20 http://"+publicA+"/; echo \" attempt $n: $?\"; done")
			tun.awaitLine(p, "ready")
			attempt := func(n, want string) {
				t.Helper()
				if err := tun.Client.WriteFile(gate, []byte(n+"\n")); err != nil {
					t.Fatal(err)
				}
				line, err := p.WaitLine(tun.ctx, func(line string) bool { return strings.Contains(line, "attempt "+n) })
				if err != nil || !strings.HasSuffix(line, "attempt "+n+": "+want) {
					t.Errorf("attempt %s: %q, %v; want %s", n, line, err, want)
				}
			}
			attempt("1", "0")
			// One that begins anew takes nothing away.
			if err := up.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if _, err := up.WaitLine(tun.ctx, secondLine("connected to")); err != nil {
				t.Fatal(err)
			}
			attempt("2", "0")
			c.end(tun, up)
			if !c.cut {
				attempt("3", "0")
				tun.kill(p)
				return
			}
			tun.awaitLine(p, "no network any more")
			end := tun.watch(publicA)
			attempt("3", "7")
			if strange, marked := end(); marked > 0 || len(strange) > 0 {
				t.Errorf("after the tunnel, %d packets of the command are on the wire; %s", marked, strings.Join(strange, "\n"))
			}
			tun.kill(p)
			tun.nwsEnds(true, "down", "--unlock")
		})
	}
}
