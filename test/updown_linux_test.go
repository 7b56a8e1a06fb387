package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

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
	if got, err := tun.get("http://" + world.WebIP + "/"); err != nil || got != "hello from the web" {
		t.Errorf("after a kill and another up: %q, %v", got, err)
	}
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
	tun := newTunnel(t)
	before := tun.snapshot()
	tun.startRelay()
	tun.startExit()
	tun.closed("in lockdown", func() { tun.nwsEnds(true, "lockdown") })
	tun.closed("in lockdown, said twice", func() { tun.nwsEnds(true, "lockdown") })
	up := tun.startUp()
	if got := tun.status()["kill_switch"]; got != "lockdown" {
		t.Errorf("the kill switch of a tunnel in lockdown is %v", got)
	}
	if got, err := tun.get("http://" + world.WebIP + "/"); err != nil || got != "hello from the web" {
		t.Errorf("in lockdown: %q, %v", got, err)
	}
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
		tun.nwsEnds(true, "lockdown")
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
	tun := newTunnel(t)
	before := tun.snapshot()
	tun.startRelay()
	tun.startExit()

	up := tun.startUp("--rollback-after", "10m")
	tun.nwsEnds(true, "confirm")
	tun.nwsEnds(false, "confirm")
	tun.down()
	tun.ended(up, true)
	tun.restored(before)

	up = tun.startUp()
	if text := tun.nwsEnds(false, "confirm"); !strings.Contains(text, "nothing") {
		t.Errorf("confirm with nothing to confirm says %s", text)
	}
	tun.down()
	tun.ended(up, true)

	up = tun.startUp("--rollback-after", "1s")
	tun.ended(up, true)
	tun.becomes(before)

	// It hangs, and then it is killed.
	up = tun.startUp("--rollback-after", "1s")
	if err := up.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	tun.kill(up)
	tun.becomes(before)
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

// leak check 22: the device gone
func TestLifeWithoutItsDevice(t *testing.T) {
	tun := connected(t)
	tun.closed("after the device was removed", func() {
		for range 2 {
			since := tun.status()["since"]
			tun.run("ip", "link", "del", "nws0")
			tun.probe(probeMark)
			for s := tun.status(); s["since"] == since || s["state"] != "connected"; s = tun.status() {
				if tun.ctx.Err() != nil {
					t.Fatalf("the tunnel does not come back: %v", s)
				}
			}
		}
	})
	tun.recovers()
}

func TestLifeWithItsRulesRemoved(t *testing.T) {
	tun := connected(t)
	c := tun.dial(world.WebIP, world.PortEcho)
	defer c.Close()
	tun.closed("after the rules were removed", func() {
		for _, family := range []string{"-4", "-6"} {
			tun.run("ip", family, "rule", "del", "pref", "5620")
		}
		for tun.status()["repairs"].(float64) < 1 {
			if tun.ctx.Err() != nil {
				t.Fatalf("status does not say that anything was put back: %v", tun.status())
			}
		}
	})
	if text := tun.nwsEnds(true, "status"); !strings.Contains(text, "put back") {
		t.Errorf("status says\n%s", text)
	}
	// What was open before is open still.
	text := make([]byte, 5)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, text); err != nil || string(text) != "hello" {
		t.Errorf("the open connection says %q, %v", text, err)
	}
}

// leak check 33: stopped and continued
func TestLifeStoppedAndContinued(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	tun.startExit()
	up := tun.startUp()
	tun.closed("while it is stopped", func() {
		if err := up.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		// A connection would wait for the process, so here are datagrams only.
		for range 5 {
			tun.runAny("dig", "", "+time=1", "+tries=1", "@"+world.RouterIP, probeMark+".example")
			tun.runAny("dig", "", "+time=1", "+tries=1", "@"+world.DNSIP6, probeMark+".example")
		}
		if err := up.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		tun.awaitLine(up, "was stopped")
	})
	tun.recovers()
}

func TestLifeOfADryRun(t *testing.T) {
	tun := newTunnel(t)
	before := tun.snapshot()
	text := tun.nwsEnds(true, tun.upArgs("--dry-run")...)
	for _, want := range []string{"ip -4 rule add", "ip addr add 198.18.0.1/32 dev nws0", "unreachable default"} {
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
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "ip tuntap") && !strings.Contains(up.Output(), "+ "+line) {
			t.Errorf("up did not say that it did %q", line)
		}
	}
}

func TestLifeAfterHangUp(t *testing.T) {
	tun := newTunnel(t)
	before := tun.snapshot()
	tun.startRelay()
	tun.startExit()
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

// unitLine finds a setting of the unit.
func unitLine(t *testing.T, key string) string {
	t.Helper()
	text, err := os.ReadFile("../platform/systemd/nws-vpn.service")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("the unit has no %s", key)
	}
	return string(found[1])
}

// What the unit grants is enough, for root and for another user, who cannot
// write the resolver's file.
func TestLifeWithTheUnitsCapabilities(t *testing.T) {
	setpriv := needProgram(t, "setpriv")
	capabilities := "-all"
	for c := range strings.FieldsSeq(unitLine(t, "CapabilityBoundingSet")) {
		capabilities += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	for _, user := range []struct {
		name string
		args []string
	}{
		{"root", []string{"--bounding-set", capabilities, "--no-new-privs"}},
		{"another", []string{"--reuid", "4711", "--regid", "4711", "--clear-groups", "--bounding-set", capabilities,
			"--inh-caps", capabilities, "--ambient-caps", capabilities, "--no-new-privs"}},
	} {
		t.Run(user.name, func(t *testing.T) {
			tun := newTunnel(t)
			tun.startRelay()
			tun.startExit()
			before := tun.snapshot()
			tun.run("mkdir", "-m", "700", world.StateDir)
			if user.name != "root" {
				tun.run("chown", "4711:4711", world.StateDir)
				tun.publicTUN()
			}
			args := append(append(user.args, tun.publicProgram()), tun.upArgs("--state-dir", world.StateDir)...)
			up, err := tun.Client.Start(netlab.CommandOptions{}, setpriv, args...)
			tun.started("up", up, err)
			tun.awaitLine(up, "connected to")
			tun.closed("with the unit's capabilities", func() {
				if got, err := tun.get("http://" + world.WebIP + "/"); err != nil || got != "hello from the web" {
					t.Errorf("got %q, %v", got, err)
				}
			})
			if err := up.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			tun.ended(up, true)
			tun.restored(before)
		})
	}
}

// publicProgram is nws-vpn where every user may run it.
func (tun *tunnel) publicProgram() string {
	tun.t.Helper()
	const path = "/run/nws-vpn-program"
	tun.run("install", "-m", "755", tun.Binary(), path)
	return path
}

// publicTUN makes the client's /dev/net/tun one that every user may open, as
// distributions ship it.
func (tun *tunnel) publicTUN() {
	tun.t.Helper()
	tun.run("mkdir", "/run/dev")
	tun.run("mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run/dev")
	tun.run("mknod", "-m", "666", "/run/dev/tun", "c", "10", "200")
	tun.run("mount", "--bind", "/run/dev/tun", "/dev/net/tun")
}

// The units are what systemd understands, and start what there is.
func TestUnitsAreVerified(t *testing.T) {
	analyze := needProgram(t, "systemd-analyze")
	tun := newTunnel(t)
	dir := t.TempDir()
	args := []string{"verify"}
	for _, name := range []string{"nws-vpn.service", "nws-vpn-lockdown.service", "nws-vpn-exit.service", "nws-vpn-relay.service"} {
		text, err := os.ReadFile("../platform/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		there := strings.ReplaceAll(string(text), "/usr/local/bin/nws-vpn", tun.Binary())
		if err := os.WriteFile(path, []byte(there), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
		for _, line := range regexp.MustCompile(`(?m)^Exec\w+=/usr/local/bin/nws-vpn (.*)$`).FindAllStringSubmatch(string(text), -1) {
			if res, err := tun.Run(tun.ctx, tun.Client, append(strings.Fields(line[1]), "--help")...); err != nil || res.Code != 0 {
				t.Errorf("%s: there is no nws-vpn %s: %s", name, line[1], res.Output)
			}
		}
	}
	if res := tun.runAny(analyze, "", args...); res.Code != 0 || res.Output != "" {
		t.Errorf("systemd-analyze ended with code %d: %s", res.Code, res.Output)
	}
	// The judge sees mistakes.
	bad := filepath.Join(dir, "bad.service")
	if err := os.WriteFile(bad, fmt.Appendf(nil, "[Service]\nExecStart=%s\nNoSuchThing=yes\n", tun.Binary()), 0o644); err != nil {
		t.Fatal(err)
	}
	if res := tun.runAny(analyze, "", "verify", bad); res.Output == "" {
		t.Error("systemd-analyze does not mind a setting that is none")
	}
}

// In a network that wants a login first, one command gets out, and nothing else.
//
// leak check 35: TCP redirected and reset, names answered falsely
func TestLifeBehindAPortal(t *testing.T) {
	curl := needProgram(t, "curl")
	tun := newTunnel(t)
	before := tun.snapshot()
	login := http.RedirectHandler("http://"+world.RouterIP+"/login", http.StatusFound)
	if err := tun.ServeHTTP(tun.Relay, world.RelayIP+":80", login); err != nil {
		t.Fatal(err)
	}
	if text := tun.nwsEnds(false, "portal", curl, "http://"+world.WebIP+"/"); !strings.Contains(text, "no tunnel is up") {
		t.Errorf("portal without a tunnel says %s", text)
	}
	up := tun.begin("--retry")
	tun.awaitLine(up, "ask for a login")
	text := tun.nwsEnds(true, "status")
	if !strings.Contains(text, "portal") || !strings.Contains(text, world.RouterIP) {
		t.Errorf("status behind a portal says\n%s", text)
	}
	end := tun.watch(probeMark)
	portal := func(wellEnds bool, args ...string) string {
		res, err := tun.Run(tun.ctx, tun.Client, append([]string{"portal", "--state-dir", world.StateDir}, args...)...)
		if err != nil || (res.Code == 0) != wellEnds {
			t.Errorf("portal %q ended with code %d, %v: %s", args, res.Code, err, res.Output)
		}
		return res.Output
	}
	if text := portal(true, curl, "-sS", "http://"+world.WebIP+"/"); !strings.Contains(text, "hello from the web") {
		t.Errorf("the command got %s", text)
	}
	// Its names are the network's to resolve.
	if text := portal(true, curl, "-sS", "-o", "/dev/null", "-w", "%{redirect_url}", "http://"+world.RelayName+"/"); !strings.Contains(text, "/login") {
		t.Errorf("the command got %s", text)
	}
	portal(false, curl, "-sS", "http://"+world.WebIP+":"+world.PortRefused+"/")
	if text := portal(false, "--for", "1s", "sleep", "600"); !strings.Contains(text, "time is up") {
		t.Errorf("the end of the time says %s", text)
	}
	// With sudo it is the user's, who needs no rights.
	tun.publicTUN()
	program := tun.publicProgram()
	res, err := tun.Client.Run(tun.ctx, netlab.CommandOptions{Env: []string{"SUDO_UID=65534"}}, program,
		"portal", "--state-dir", world.StateDir, "sh", "-c", "id -u; "+curl+" -sS http://"+world.WebIP+"/")
	if err != nil || res.Code != 0 || !strings.HasPrefix(res.Stdout, "65534\nhello from the web") {
		t.Errorf("portal of a user ended with code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.probe(probeMark)
	if _, marked := end(); marked > 0 {
		t.Errorf("%d probes left behind a portal", marked)
	}
	tun.startRelay()
	tun.startExit()
	tun.awaitState("connected")
	for tun.status()["portal"] != nil {
		if tun.ctx.Err() != nil {
			t.Fatal("the portal stays in status")
		}
	}
	tun.nwsEnds(true, "down")
	tun.ended(up, true)
	tun.restored(before)
}

// What systemd hears of us, from the start to the end.
func TestLifeUnderAServiceManager(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	deadline, _ := tun.ctx.Deadline()
	if err := manager.SetReadDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	var heard []string
	await := func(want string) {
		t.Helper()
		for buf := make([]byte, 256); ; {
			n, err := manager.Read(buf)
			if err != nil {
				t.Fatalf("the manager did not hear %s but %q: %v", want, heard, err)
			}
			heard = append(heard, string(buf[:n]))
			if string(buf[:n]) == want {
				return
			}
		}
	}
	options := netlab.CommandOptions{Env: []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=300000"}}
	up, err := tun.Client.Start(options, tun.Binary(), tun.upArgs("--retry", "--state-dir", world.StateDir)...)
	tun.started("up", up, err)
	await("STATUS=connecting")
	await("READY=1") // closed, and on its way
	await("WATCHDOG=1")
	tun.startExit()
	await("STATUS=connected")
	if err := up.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await("RELOADING=1")
	await("READY=1")
	await("STATUS=connected")
	await("WATCHDOG=1")
	tun.nwsEnds(true, "down")
	await("STOPPING=1")
	tun.ended(up, true)
}
