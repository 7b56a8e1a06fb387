package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

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
			tun := served(t)
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
				tun.reaches("with the unit's capabilities")
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
