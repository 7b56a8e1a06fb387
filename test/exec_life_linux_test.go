package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// A program that has left its parent, its group and its session is still inside,
// and exec is there for it.
//
// leak check 48: until the last child has ended
func TestExecWaitsForTheLast(t *testing.T) {
	tun := execWorld(t)
	const gate, result = nobodyDir + "/gate", nobodyDir + "/result"
	tun.run(asNobody[0], append(asNobody[1:], "mkfifo", gate)...)
	end := tun.watch(world.WebName)
	p := tun.startExec(netlab.CommandOptions{}, "sh", "-c", fmt.Sprintf(
		`(setsid sh -c '(read go <%s; curl -sS --max-time 30 http://%s/ >%s) </dev/null >/dev/null 2>&1 &' &); exit 33`, gate, world.WebName, result))
	tun.awaitLine(p, "left processes behind")
	if err := tun.Client.WriteFile(gate, []byte("go\n")); err != nil {
		t.Fatal(err)
	}
	tun.ends(p, 33)
	if got, err := tun.Client.ReadFile(result); err != nil || strings.TrimSpace(string(got)) != "hello from the web" {
		t.Errorf("the daemon got %q, %v", got, err)
	}
	if strange, marked := end(); marked > 0 || len(strange) > 0 {
		t.Errorf("%d marked packets on the wire; not of the relay: %s", marked, strings.Join(strange, "\n"))
	}
}

// When the command has ended, a signal ends those that it has left.
func TestExecEndsTheRestOnASignal(t *testing.T) {
	tun := execWorld(t)
	for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		p := tun.startExec(netlab.CommandOptions{}, "sh", "-c", `setsid tail -f /dev/null & exit 33`)
		tun.awaitLine(p, "left processes behind")
		left := tun.inside(p)
		if err := p.Signal(sig); err != nil {
			t.Fatal(err)
		}
		tun.ends(p, 33)
		tun.gone(left)
	}
}

// leak check 48: signals
func TestExecPassesSignalsOn(t *testing.T) {
	tun := execWorld(t)
	for name, sig := range map[string]syscall.Signal{
		"INT": unix.SIGINT, "QUIT": unix.SIGQUIT, "TERM": unix.SIGTERM, "HUP": unix.SIGHUP, "USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2,
	} {
		p := tun.startExec(netlab.CommandOptions{}, "sh", "-c", `trap "echo got `+name+`; exit 9" `+name+`; echo ready; while :; do sleep 0.02; done`)
		tun.awaitLine(p, "ready")
		if err := p.Signal(sig); err != nil {
			t.Fatal(err)
		}
		tun.awaitLine(p, "got "+name)
		tun.ends(p, 9)
	}
	p := tun.startExec(netlab.CommandOptions{}, "sh", "-c", `echo ready; exec tail -f /dev/null`)
	tun.awaitLine(p, "ready")
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	tun.ends(p, 128+15)
}

// inside returns descriptors of all processes below one, such as an exec and its
// box: those above come first, process 1 of an exec's box before all others.
func (tun *tunnel) inside(p *netlab.Process) []int {
	tun.t.Helper()
	var list []int
	for pids := []int{p.PID()}; len(pids) > 0; pids = pids[1:] {
		found, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[0]))
		if err != nil {
			tun.t.Fatal(err)
		}
		for _, path := range found {
			text, _ := os.ReadFile(path) // a thread may have ended
			for _, word := range strings.Fields(string(text)) {
				pid, err := strconv.Atoi(word)
				if err != nil {
					tun.t.Fatal(err)
				}
				pids = append(pids, pid)
				fd, err := unix.PidfdOpen(pid, 0)
				if err != nil {
					tun.t.Fatal(err)
				}
				list = append(list, fd)
			}
		}
	}
	if len(list) < 2 {
		tun.t.Fatalf("there are only %d processes inside", len(list))
	}
	return list
}

// gone waits until processes have ended.
func (tun *tunnel) gone(list []int) {
	tun.t.Helper()
	for _, fd := range list {
		defer unix.Close(fd)
		n, err := 0, error(unix.EINTR)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
		}
		if n != 1 || err != nil {
			tun.t.Fatalf("a process goes on: %d, %v", n, err)
		}
	}
}

// With exec killed, its command has no network, even while process 1, which
// would end it, is held up; and then it is ended.
//
// leak check 49: killed
func TestExecKilled(t *testing.T) {
	const mark = "probe-without-exec"
	tun := execWorld(t)
	before := tun.snapshot()
	const gate, result = nobodyDir + "/gate", nobodyDir + "/result"
	tun.run(asNobody[0], append(asNobody[1:], "mkfifo", gate, result)...)
	probe := fmt.Sprintf(`curl -sS --max-time 20 http://%[1]s/?%[3]s 2>&1; curl -sS --max-time 20 'http://[%[2]s]/?%[3]s' 2>&1
curl -sS --max-time 20 http://%[4]s/?%[3]s 2>&1; dig +time=1 +tries=1 @%[5]s %[3]s.example 2>&1`, world.WebIP, world.WebIP6, mark, world.WebName, world.RouterIP)
	end := tun.watch(mark)
	p := tun.startExec(netlab.CommandOptions{}, "sh", "-c", fmt.Sprintf("echo ready; read go <%s; (%s) >%s; exec tail -f /dev/null", gate, probe, result))
	tun.awaitLine(p, "ready")
	list := tun.inside(p)
	if err := unix.PidfdSendSignal(list[0], unix.SIGSTOP, nil, 0); err != nil {
		t.Fatal(err)
	}
	tun.kill(p)
	if err := tun.Client.WriteFile(gate, []byte("go\n")); err != nil {
		t.Fatal(err)
	}
	got, err := tun.Client.ReadFile(result)
	if err != nil || strings.Contains(string(got), "hello") || !strings.Contains(string(got), "curl: (7)") || !strings.Contains(string(got), "network unreachable") {
		t.Errorf("without exec, the command got %q, %v", got, err)
	}
	if err := unix.PidfdSendSignal(list[0], unix.SIGCONT, nil, 0); err != nil {
		t.Fatal(err)
	}
	tun.gone(list)
	if strange, marked := end(); marked > 0 || len(strange) > 0 {
		t.Errorf("%d marked packets on the wire; not of the relay: %s", marked, strings.Join(strange, "\n"))
	}
	tun.restored(before)
}

// What forbids exec is named, and nothing is half done.
//
// leak check 46: where user namespaces are forbidden
func TestExecForbidden(t *testing.T) {
	tun := execWorld(t)
	needProgram(t, "unshare")
	for name, c := range map[string]struct {
		prepare string
		want    []string
	}{
		"user namespaces":    {"echo 0 >/proc/sys/user/max_user_namespaces", []string{"user.max_user_namespaces=0", "sysctl user.max_user_namespaces="}},
		"network namespaces": {"echo 0 >/proc/sys/user/max_net_namespaces", []string{"user.max_net_namespaces=0", "sysctl user.max_net_namespaces="}},
	} {
		t.Run(name, func(t *testing.T) {
			tun := tun.with(t)
			words := append([]string{"unshare", "--user", "--map-root-user", "sh", "-c", c.prepare + ` && exec "$@"`, "sh",
				"setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"}, tun.execWords("true")[len(asNobody):]...)
			res := tun.runAny(words[0], "", words[1:]...)
			if res.Code != 125 || slices.ContainsFunc(c.want, func(w string) bool { return !strings.Contains(res.Output, w) }) || strings.Count(res.Output, "\n") > 1 {
				t.Errorf("code %d, output %q", res.Code, res.Output)
			}
		})
	}
	t.Run("the device", func(t *testing.T) {
		tun := tun.with(t)
		tun.run("chmod", "600", "/dev/net/tun")
		if res := tun.exec("true"); res.Code != 125 || !strings.Contains(res.Output, "chmod 0666 /dev/net/tun") {
			t.Errorf("code %d, output %q", res.Code, res.Output)
		}
	})
}

// Why exec does not get through is said once.
func TestExecWithoutAWay(t *testing.T) {
	tun := newTunnel(t)
	res, err := tun.Run(tun.ctx, tun.Client, "exec", "--exit", tun.key, "--relay", world.RelayURL, "true")
	if err != nil || res.Code != 125 || strings.Count(res.Output, world.RelayIP) != 1 || strings.Count(res.Output, tun.key) != 1 ||
		!strings.Contains(res.Output, "nws-vpn: there is no way to the exit") || !strings.Contains(res.Output, "nws-vpn doctor") {
		t.Errorf("code %d, %v: %s", res.Code, err, res.Output)
	}
}
