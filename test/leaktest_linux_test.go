package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// leakReport is what of `nws-vpn leaktest --json` these tests look at.
type leakReport struct {
	Schema  int
	Verdict string
	Lines   []struct{ Check, Verdict, Found, Do string }
}

func (r *leakReport) String() string {
	var b strings.Builder
	for _, l := range r.Lines {
		fmt.Fprintf(&b, "%-11s %-20s %s\n", l.Verdict, l.Check, l.Found)
	}
	return b.String()
}

// leaktest runs it in the client.
func (tun *tunnel) leaktest() *leakReport {
	tun.t.Helper()
	res, err := tun.Run(tun.ctx, tun.Client, "leaktest", "--json", "--state-dir", world.StateDir)
	if err != nil {
		tun.t.Fatal(err)
	}
	var r leakReport
	if err := json.Unmarshal([]byte(res.Stdout), &r); err != nil {
		tun.t.Fatalf("%v: %s", err, res.Output)
	}
	code := map[string]int{"ok": 0, "LEAK": 1, "WEAK": 1, "cannot tell": 2}
	if want, ok := code[r.Verdict]; !ok || r.Schema != 1 || res.Code != want {
		tun.t.Errorf("schema %d, verdict %q, code %d", r.Schema, r.Verdict, res.Code)
	}
	return &r
}

func (r *leakReport) line(check string) (verdict, found string) {
	for _, l := range r.Lines {
		if l.Check == check {
			return l.Verdict, l.Found
		}
	}
	return "", ""
}

func TestLeaktestFindsNothing(t *testing.T) {
	tun := newTunnel(t)
	res, err := tun.Run(tun.ctx, tun.Client, "leaktest", "--state-dir", world.StateDir)
	if err != nil || res.Code != 2 || !strings.Contains(res.Output, "no tunnel is up") {
		t.Errorf("without a tunnel: code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.startRelay()
	tun.startExit()
	tun.startUp()
	before := tun.snapshot()
	r := tun.leaktest()
	if r.Verdict != "ok" {
		t.Errorf("as it should be:\n%v", r)
	}
	tun.restored(before)
	if text := tun.nwsEnds(true, "status"); strings.Contains(text, "192.0.2.") || !strings.Contains(text, "probes of `nws-vpn leaktest`") {
		t.Errorf("what the exit refused to it:\n%s", text)
	}
	// Its probes were tried, and its judge saw.
	if _, found := r.line("judge"); !strings.Contains(found, "eth0") {
		t.Errorf("the judge: %s", found)
	}
	for _, check := range []string{"any program", "bound to a device", "own address", "raw packets", "forged mark", "this network", "multicast", "name servers", "resolver"} {
		if _, found := r.line(check); !strings.Contains(found, "probe") {
			t.Errorf("%s: %q", check, found)
		}
	}
}

// A plain user learns what can be read, and is told what cannot.
func TestPlainUser(t *testing.T) {
	tun := connected(t)
	const copied = "/run/nws-vpn-of-all"
	tun.inClient("cp", tun.Binary(), copied)
	tun.inClient("chmod", "0755", copied)
	as := func(args ...string) netlab.Result {
		t.Helper()
		args = append([]string{"--reuid", "65534", "--regid", "65534", "--clear-groups", copied}, args...)
		res, err := tun.Client.Run(tun.ctx, netlab.CommandOptions{}, needProgram(t, "setpriv"), append(args, "--json", "--state-dir", world.StateDir)...)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	res := as("leaktest")
	var leaks leakReport
	if err := json.Unmarshal([]byte(res.Stdout), &leaks); err != nil {
		t.Fatalf("%v: %s", err, res.Output)
	}
	if res.Code != 2 || leaks.Verdict != "cannot tell" {
		t.Errorf("code %d: %v", res.Code, &leaks)
	}
	for check, want := range map[string]string{
		"tunnel": "cannot tell", "rules IPv4": "ok", "rules IPv6": "ok", "routes IPv4": "ok", "packet filter": "cannot tell",
		"ways IPv4": "ok", "ways IPv6": "ok", "judge": "cannot tell", "raw packets": "cannot tell", "forged mark": "cannot tell",
	} {
		if verdict, found := leaks.line(check); verdict != want {
			t.Errorf("%s: %s %s, want %s", check, verdict, found, want)
		}
	}
	if strings.Contains(res.Stdout, "invalid") {
		t.Errorf("a probe without an address: %v", &leaks)
	}
	var report doctorReport
	res = as("doctor", "--exit", tun.key, "--relay", world.RelayURL)
	if err := json.Unmarshal([]byte(res.Stdout), &report); err != nil || report.Failing != nil || report.Works {
		t.Errorf("%v: %s", err, res.Output)
	}
	for _, l := range report.Lines {
		if l.Place == "relay "+world.RelayURL && l.Verdict != "not tried" || l.Hop == "tunnel" && l.Verdict != "unknown" {
			t.Errorf("%+v", l)
		}
	}
}

// A plain user's doctor finds nothing wrong with a machine where exec works.
func TestDoctorOfAPlainUser(t *testing.T) {
	tun := served(t)
	const copied = "/run/nws-vpn-of-all"
	tun.inClient("cp", tun.Binary(), copied)
	tun.inClient("chmod", "0755", copied)
	res, err := tun.Client.Run(tun.ctx, netlab.CommandOptions{}, needProgram(t, "setpriv"), "--reuid", "65534", "--regid", "65534", "--clear-groups",
		copied, "doctor", "--state-dir", world.StateDir, "--exit", tun.key, "--relay", world.RelayURL, "--target", world.WebName+":80")
	if err != nil || res.Code != 0 || !strings.Contains(res.Stdout, "Everything works") || !strings.Contains(res.Stdout, "`nws-vpn up` needs root; `nws-vpn exec` does not") {
		t.Errorf("code %d, %v: %s", res.Code, err, res.Output)
	}
}

// What the user lets past is no leak, and nothing else gets past with it.
func TestLeaktestWithLAN(t *testing.T) {
	tun := served(t)
	tun.startUp("--allow-lan")
	if r := tun.leaktest(); r.Verdict != "ok" {
		t.Errorf("\n%v", r)
	}
}

// Where root is let out, who runs the leak test with it, the tunnel is as tight for
// others, and what is not tight is found.
func TestLeaktestOfAnExcludedUser(t *testing.T) {
	for _, c := range []struct{ name, killSwitch, verdict, bound string }{
		{"with the filter", "on", "ok", "ok"},
		{"without it", "off", "LEAK", "LEAK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tun := served(t)
			tun.startUp("--exclude-user", "root", "--kill-switch", c.killSwitch)
			r := tun.leaktest()
			if r.Verdict != c.verdict {
				t.Errorf("verdict %s:\n%v", r.Verdict, r)
			}
			for check, want := range map[string]string{
				"user": "ok", "any program": "ok", "ways IPv4": "ok", "ways IPv6": "ok", "resolver": "ok", "judge": "ok",
				"bound to a device": c.bound, "own address": "ok", "this network": "ok",
			} {
				if verdict, found := r.line(check); verdict != want {
					t.Errorf("%s: %s %s, want %s", check, verdict, found, want)
				}
			}
		})
	}
}

// Without the kill switch, programs that choose their own way get past: the
// leak test does not gloss over it.
func TestLeaktestWithoutKillSwitch(t *testing.T) {
	tun := served(t)
	tun.startUp("--kill-switch", "off")
	r := tun.leaktest()
	for check, want := range map[string]string{
		"any program": "ok", "ways IPv4": "ok", "ways IPv6": "ok", "resolver": "ok", "packet filter": "WEAK", "bound to a device": "LEAK",
	} {
		if verdict, found := r.line(check); verdict != want {
			t.Errorf("%s: %s %s, want %s", check, verdict, found, want)
		}
	}
}

// A machine that is closed, for want of a relay or of the tunnel itself, is as
// tight.
func TestLeaktestOfAClosedMachine(t *testing.T) {
	tun := newTunnel(t)
	relay := tun.startRelay()
	tun.startExit()
	up := tun.startUp()
	tun.kill(relay)
	if r := tun.leaktest(); r.Verdict != "ok" {
		t.Errorf("without a relay:\n%v", r)
	}
	tun.kill(up)
	r := tun.leaktest()
	if _, found := r.line("tunnel"); r.Verdict != "ok" || !strings.Contains(found, "not running") {
		t.Errorf("without the tunnel's program:\n%v", r)
	}
	for _, check := range []string{"routes IPv4", "routes IPv6"} {
		if _, found := r.line(check); !strings.HasPrefix(found, "closed") {
			t.Errorf("%s: %s", check, found)
		}
	}
}

// freeze stops a process, and waits until all of its threads stand still.
func freeze(t *testing.T, p *netlab.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for {
		err := unix.Waitid(unix.P_PID, p.PID(), nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

// Each sabotage is named. The tunnel's program is stopped meanwhile, since it
// would mend it.
func TestLeaktestNamesTheSabotage(t *testing.T) {
	type finding struct{ check, verdict, says string }
	for _, c := range []struct {
		name     string
		sabotage func(tun *tunnel)
		want     []finding
	}{
		{"foreign rule", func(tun *tunnel) { tun.inClient("ip", "rule", "add", "pref", "100", "lookup", "main") },
			[]finding{{"rules IPv4", "WEAK", "100:"}, {"ways IPv4", "WEAK", "eth0"}, {"rules IPv6", "ok", ""}, {"any program", "ok", ""}}},
		{"no filter", func(tun *tunnel) { tun.inClient("nft", "delete", "table", "inet", "nws-vpn") },
			[]finding{{"packet filter", "WEAK", "inet nws-vpn"}, {"bound to a device", "LEAK", "192.0.2."}, {"forged mark", "LEAK", ""}, {"any program", "ok", ""}}},
		{"resolver overwritten", func(tun *tunnel) {
			if err := tun.Client.WriteFile("/etc/resolv.conf", []byte(world.UplinkResolvConf)); err != nil {
				tun.t.Fatal(err)
			}
		}, []finding{{"resolver's file", "WEAK", world.RouterIP}, {"name servers", "ok", ""}, {"bound to a device", "ok", ""}}},
		{"IPv6 rule gone", func(tun *tunnel) { tun.inClient("ip", "-6", "rule", "del", "pref", "5620") },
			[]finding{{"rules IPv6", "WEAK", "missing"}, {"ways IPv6", "WEAK", "eth0"}, {"rules IPv4", "ok", ""}, {"any program", "ok", ""}}},
		{"IPv6 rule and filter gone", func(tun *tunnel) {
			tun.inClient("ip", "-6", "rule", "del", "pref", "5620")
			tun.inClient("nft", "delete", "table", "inet", "nws-vpn")
		}, []finding{{"rules IPv6", "LEAK", "missing"}, {"any program", "LEAK", "2001:db8:"}}},
		{"guard route gone", func(tun *tunnel) { tun.inClient("ip", "route", "del", "unreachable", "default", "table", "20055") },
			[]finding{{"routes IPv4", "WEAK", "guard"}, {"routes IPv6", "ok", ""}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			tun := served(t)
			up := tun.startUp()
			freeze(t, up)
			c.sabotage(tun)
			r := tun.leaktest()
			for _, w := range append(c.want, finding{"tunnel", "cannot tell", ""}, finding{"judge", "ok", "eth0"}) {
				if verdict, found := r.line(w.check); verdict != w.verdict || !strings.Contains(found, w.says) {
					t.Errorf("%s: %s %s, want %s %s", w.check, verdict, found, w.verdict, w.says)
				}
			}
			if t.Failed() {
				t.Logf("\n%v", r)
			}
		})
	}
}
