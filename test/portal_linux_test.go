package test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

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
