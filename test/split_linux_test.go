package test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// Public addresses of the world, for names may not lead to others. Who serves
// there says where the client seems to be.
const (
	publicA, publicA6 = "45.80.0.80", "2a0e:77::80"
	publicB, publicB6 = "45.80.1.80", "2a0e:78::80"
	asExit, asClient  = "from " + world.ExitIP, "from " + world.ClientIP
	asExit6           = "from fd77:3::2"
	asClient6         = "from " + world.ClientIP6
)

// Names as the client's network and the internet have them. They differ, to tell
// who was asked.
const (
	directName = "www.direct.example" // at publicA, says the network
	otherName  = "www.other.example"  // at publicB, says the internet
)

// splitWorld is a world with public addresses.
func splitWorld(t *testing.T) *tunnel {
	t.Helper()
	tun := newTunnel(t)
	who := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "from %s", host)
	})
	var errs []error
	for _, a := range []struct{ host, router string }{
		{publicA + "/24", "45.80.0.1/24"}, {publicB + "/24", "45.80.1.1/24"},
		{publicA6 + "/64", "2a0e:77::1/64"}, {publicB6 + "/64", "2a0e:78::1/64"},
	} {
		errs = append(errs, tun.Internet.AddAddress("eth0", a.host), tun.Router.AddAddress("internet", a.router))
		ip, _, _ := strings.Cut(a.host, "/")
		errs = append(errs, tun.ServeHTTP(tun.Internet, net.JoinHostPort(ip, "80"), who), tun.ServeEcho(tun.Internet, ip, world.PortEcho))
	}
	errs = append(errs, tun.ServeHTTP(tun.Router, world.RouterIP+":80", who))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	at := func(texts ...string) world.Records {
		var r world.Records
		for _, text := range texts {
			r.Addresses = append(r.Addresses, netip.MustParseAddr(text))
		}
		return r
	}
	tun.Uplink.Replace(world.Zone{
		world.RelayName:         at(world.RelayIP, world.RelayIP6),
		directName:              at(publicA),
		"direct.example":        at(publicA),
		otherName:               at(publicA),
		"lan.direct.example":    at(world.RouterIP),
		"relay.direct.example":  at(world.RelayIP),
		"fake.direct.example":   at("198.18.9.9"),
		"metal.direct.example":  at("169.254.169.254"),
		"me.direct.example":     at("127.0.0.1"),
		"listed.direct.example": at("10.77.1.1"),
	})
	tun.Beyond.Replace(world.Zone{otherName: at(publicB), directName: at(publicB)})
	return tun
}

// seen fetches a page by curl, in the client and as a user, and returns what it
// says, or curl's trouble.
func (tun *tunnel) seen(user, url, seconds string) string {
	tun.t.Helper()
	words := []string{needProgram(tun.t, "curl"), "-sS", "--max-time", seconds, url}
	if user != "" {
		words = append([]string{needProgram(tun.t, "setpriv"), "--reuid", user, "--clear-groups"}, words...)
	}
	res := tun.runAny(words[0], "", words[1:]...)
	if res.Code != 0 {
		return fmt.Sprintf("curl ended with code %d", res.Code)
	}
	return strings.TrimSpace(res.Stdout)
}

// sees checks who a server takes the client for.
func (tun *tunnel) sees(user, url, want string) {
	tun.t.Helper()
	seconds := "20"
	if want == "" {
		seconds = "5" // may pass without an answer
	}
	if got := tun.seen(user, url, seconds); got != want && !(want == "" && strings.HasPrefix(got, "curl ended")) {
		tun.t.Errorf("user %q at %s: %q, want %q", user, url, got, want)
	}
}

// askedFor reports whether a resolver was asked for a name.
func askedFor(s *world.DNSServer, name string) bool {
	return slices.ContainsFunc(s.Asked(), func(q string) bool { return strings.HasPrefix(q, name+" ") })
}

// echoes sends a datagram to a service that sends it back.
func (tun *tunnel) echoes(address, text string) {
	tun.t.Helper()
	c, err := tun.Client.DialContext(tun.ctx, "udp", address)
	if err != nil {
		tun.t.Fatal(err)
	}
	defer c.Close()
	deadline, _ := tun.ctx.Deadline()
	buf := make([]byte, 100)
	err = c.SetDeadline(deadline)
	if err == nil {
		_, err = c.Write([]byte(text))
	}
	n := 0
	if err == nil {
		n, err = c.Read(buf)
	}
	if err != nil || string(buf[:n]) != text {
		tun.t.Errorf("the echo of %q is %q, %v", text, buf[:n], err)
	}
}

const otherUser = "65534"

func TestSplitExclude(t *testing.T) {
	tun := splitWorld(t)
	before := tun.snapshot()
	tun.sees("", "http://"+publicA+"/", asClient) // the judge sees
	tun.sees("", "http://"+directName+"/", asClient)
	tun.startRelay()
	tun.startExit()
	args := []string{"--exclude", "45.80.1.0/24,2a0e:78::/64", "--exclude-domain", "direct.example", "--exclude-user", otherUser}
	for _, killSwitch := range []string{"on", "off"} {
		t.Run("kill switch "+killSwitch, func(t *testing.T) {
			tun := tun.with(t)
			up := tun.startUp(append(args, "--kill-switch", killSwitch)...)
			for _, c := range []struct{ user, url, want string }{
				{"", "http://" + publicA + "/", asExit},
				{"", "http://[" + publicA6 + "]/", asExit6},
				{"", "http://" + publicB + "/", asClient},
				{"", "http://[" + publicB6 + "]/", asClient6},
				{"", "http://" + directName + "/", asClient},
				{"", "http://direct.example/", asClient},
				{otherUser, "http://" + publicA + "/", asClient},
				{otherUser, "http://[" + publicA6 + "]/", asClient6},
				{otherUser, "http://" + directName + "/", asClient},
				// The address of an excluded name is not excluded for that.
				{"", "http://" + publicA + "/", asExit},
				// Names that lead where nobody may send by them.
				{"", "http://lan.direct.example/", ""},
				{"", "http://relay.direct.example:7777/", ""},
				{"", "http://fake.direct.example/", ""},
				{"", "http://metal.direct.example/", ""},
				{"", "http://me.direct.example/", ""},
				{"", "http://nothing.direct.example/", ""},
			} {
				tun.sees(c.user, c.url, c.want)
			}
			if killSwitch == "on" {
				tun.closed("with exclusions", func() {})
			}
			if text := tun.nwsEnds(true, "status"); !strings.Contains(text, "outside the tunnel: names under [direct.example]") || !strings.Contains(text, "45.80.1.0/24") {
				t.Errorf("status says\n%s", text)
			}
			tun.undone(up, before)
		})
	}
	if askedFor(tun.Beyond, directName) || !askedFor(tun.Uplink, directName) {
		t.Error("an excluded name was asked for in the tunnel, or not outside")
	}
}

// What a program remembers of an excluded name never leads elsewhere than the name
// does: when it is not excluded any more, and when the tunnel is down.
func TestSplitNameThatIsRemembered(t *testing.T) {
	tun := splitWorld(t)
	tun.startRelay()
	tun.startExit()
	up := tun.startUp("--exclude-domain", "direct.example")
	fake := tun.run("dig", "+short", directName)
	if a, err := netip.ParseAddr(fake); err != nil || !netip.MustParsePrefix("198.18.0.0/15").Contains(a) {
		t.Fatalf("%s is at %s", directName, fake)
	}
	tun.sees("", "http://"+fake+"/", asClient)
	end := tun.watch("datagram of the split test")
	tun.echoes(net.JoinHostPort(fake, world.PortEcho), "datagram of the split test")
	if strange, marked := end(); marked != 2 || !strings.Contains(strings.Join(strange, "\n"), net.JoinHostPort(publicA, world.PortEcho)) {
		t.Errorf("%d datagrams to an excluded name and back are on the wire: %q", marked, strange)
	}
	tun.sees("", "http://"+otherName+"/", asExit)
	if askedFor(tun.Uplink, otherName) {
		t.Error("a name that is not excluded was asked for outside")
	}
	end = tun.watch("datagram of the split test")
	tun.takeDown(up)
	tun.sees("", "http://"+fake+"/", "")
	tun.startUp()
	tun.sees("", "http://"+fake+"/", asExit)
	tun.echoes(net.JoinHostPort(fake, world.PortEcho), "datagram of the split test")
	if strange, marked := end(); len(strange) > 0 || marked > 0 {
		t.Errorf("on the wire: %d datagrams, %s", marked, strings.Join(strange, "\n"))
	}
}

func TestSplitInclude(t *testing.T) {
	tun := splitWorld(t)
	before := tun.snapshot()
	tun.startRelay()
	// Without the tunnel's resolver nobody can tell what is included.
	up := tun.begin("--retry", "--include-domain", "other.example")
	tun.awaitLine(up, "no session with the exit")
	tun.closed("while it connects, with names included", func() { tun.sees("", "http://"+publicA+"/", "") })
	tun.nwsEnds(true, "down")
	tun.ended(up, true)

	tun.startExit()
	for _, c := range []struct {
		what string
		args []string
		want map[string]string // by "user url"
	}{
		{"names", []string{"--include-domain", "other.example"}, map[string]string{
			" " + publicA: asClient, " " + publicB: asClient, " " + directName: asClient, " " + otherName: asExit, otherUser + " " + otherName: asExit,
		}},
		{"names and networks", []string{"--include-domain", "other.example", "--include", "45.80.0.0/24"}, map[string]string{
			" " + publicA: asExit, " " + publicB: asClient, " " + otherName: asExit, " [" + publicB6 + "]": asClient6,
		}},
		{"networks", []string{"--include", "45.80.0.0/24,2a0e:77::/64"}, map[string]string{
			" " + publicA: asExit, " [" + publicA6 + "]": asExit6, " " + publicB: asClient, " [" + publicB6 + "]": asClient6,
		}},
		{"users", []string{"--include-user", otherUser}, map[string]string{
			otherUser + " " + publicA: asExit, " " + publicA: asClient, otherUser + " [" + publicA6 + "]": asExit6, " [" + publicA6 + "]": asClient6,
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			tun := tun.with(t)
			up := tun.startUp(c.args...)
			for who, want := range c.want {
				user, host, _ := strings.Cut(who, " ")
				tun.sees(user, "http://"+host+"/", want)
			}
			tun.undone(up, before)
		})
	}
	if askedFor(tun.Uplink, otherName) || askedFor(tun.Beyond, directName) {
		t.Error("an included name was asked for outside, or another one in the tunnel")
	}
}

// Without the resolver's file, included names would leave: nothing does then.
func TestSplitIncludeNeedsNames(t *testing.T) {
	tun := splitWorld(t)
	before := tun.snapshot()
	tun.startRelay()
	tun.startExit()
	tun.run("mount", "--bind", "/etc/resolv.conf", "/etc/resolv.conf")
	tun.run("mount", "-o", "remount,ro,bind", "/etc/resolv.conf")
	// Without a tunnel, it is as if there had been none.
	up := tun.begin("--include-domain", "other.example")
	tun.ended(up, false)
	if out := up.Output(); !strings.Contains(out, "/etc/resolv.conf") || !strings.Contains(out, "the machine is as it was") {
		t.Errorf("it says %s", out)
	}
	tun.restored(before)
	// Who insists stays closed.
	up = tun.begin("--include-domain", "other.example", "--retry")
	tun.awaitLine(up, "state=blocked")
	if because := fmt.Sprint(tun.status()["blocked_because"]); !strings.Contains(because, "/etc/resolv.conf") {
		t.Errorf("status says %s", because)
	}
	tun.closed("without names, which are to be included", func() { tun.sees("", "http://"+publicA+"/", "") })
	tun.nwsEnds(true, "down")
	tun.ended(up, true)
	tun.restored(before)
}

func TestSplitRefusesNonsense(t *testing.T) {
	tun := newTunnel(t)
	for want, args := range map[string][]string{
		"either excluded or included":   {"--exclude", "45.80.0.0/24", "--include-domain", "direct.example"},
		"users are either":              {"--exclude-user", "0", "--include-user", "1"},
		"there is no user":              {"--exclude-user", "nobody-at-all"},
		"a domain such as":              {"--exclude-domain", "*.direct.example"},
		"in any case":                   {"--exclude-domain", "x.nostr"},
		"want a prefix":                 {"--exclude", "45.80.0.0"},
		"want a network":                {"--include", "0.0.0.0/0"},
		"the tunnel's own":              {"--exclude", "198.18.4.0/24"},
		"needs kill_switch":             {"--exclude-cgroup", "/x", "--kill-switch", "off"},
		"nobody can be let past":        {"--exclude-cgroup", "/nws-vpn-test-that-is-not-there"},
		"want the path of a cgroup":     {"--exclude-cgroup", "x"},
		"only these go into the tunnel": {"--include-domain", "direct.example", "--dry-run"},
	} {
		dry := slices.Contains(args, "--dry-run")
		if !dry {
			args = append(args, "--dry-run")
		}
		if text := tun.nwsEnds(dry, tun.upArgs(args...)...); !strings.Contains(text, want) {
			t.Errorf("up %q says %s, want %q", args, text, want)
		}
	}
}

// A cgroup of the test's own: there is but one tree of them on a machine, so it is
// made at the top and taken away.
func TestSplitCgroup(t *testing.T) {
	tun := splitWorld(t)
	tun.run("mkdir", "/run/cgroup")
	if res := tun.runAny("mount", "", "-t", "cgroup2", "none", "/run/cgroup"); res.Code != 0 {
		t.Skip("no cgroups of version 2 here: ", res.Output)
	}
	name := fmt.Sprintf("nws-vpn-test-%d", os.Getpid())
	if res := tun.runAny("mkdir", "", "-p", "/run/cgroup/"+name+"/below"); res.Code != 0 {
		t.Skip("no cgroup can be made here: ", res.Output)
	}
	remove := func() { tun.runAny("rmdir", "", "/run/cgroup/"+name+"/below", "/run/cgroup/"+name) }
	defer remove()
	inside := func(below string) string {
		return tun.run("sh", "-c", "echo $$ >/run/cgroup/"+name+below+"/cgroup.procs && exec curl -sS --max-time 20 http://"+publicA+"/")
	}
	tun.startRelay()
	tun.startExit()
	up := tun.startUp("--exclude-cgroup", "/"+name)
	for _, below := range []string{"", "/below"} {
		if got := inside(below); got != asClient {
			t.Errorf("in the cgroup%s: %q", below, got)
		}
	}
	res := tun.runAny("sh", "", "-c", "echo $$ >/run/cgroup/"+name+"/below/cgroup.procs && exec "+tun.Binary()+" leaktest --state-dir "+world.StateDir)
	if res.Code != 2 || !strings.Contains(res.Output, "/"+name+", which is outside the tunnel") {
		t.Errorf("leaktest in the cgroup ended with code %d: %s", res.Code, res.Output)
	}
	tun.sees("", "http://"+publicA+"/", asExit)
	tun.closed("beside an excluded cgroup", func() {})
	// When it goes, what it was is nobody's, and all else is watched over as before.
	remove()
	tun.run("ip", "-4", "rule", "del", "pref", "5620")
	for tun.status()["repairs"].(float64) < 1 {
		if tun.ctx.Err() != nil {
			t.Fatalf("nothing is put back any more: %v", tun.status())
		}
	}
	tun.closed("after the excluded cgroup went", func() {})
	tun.takeDown(up)
}
