package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nbd-wtf/go-nostr/nip19"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// exitStatus asks the running exit.
func (tun *tunnel) exitStatus() (s struct {
	PID     int                `json:"pid"`
	State   string             `json:"state"`
	Flows   map[string]float64 `json:"flows"`
	Clients []map[string]any   `json:"clients"`
}) {
	tun.t.Helper()
	if err := json.Unmarshal([]byte(tun.asNobody("exit", "status", "--json", "--key", tun.keyFile)), &s); err != nil {
		tun.t.Fatal(err)
	}
	return s
}

// asNobody runs nws-vpn in the exit, which must end well, and returns what it
// answers.
func (tun *tunnel) asNobody(args ...string) string {
	tun.t.Helper()
	res, err := tun.RunNobody(tun.ctx, args...)
	if err != nil || res.Code != 0 {
		tun.t.Fatalf("nws-vpn %q ended with code %d, %v: %s", args, res.Code, err, res.Output)
	}
	return res.Stdout
}

// A restart of the exit cuts no flow, and leaves no time without an exit.
func TestExitRestartsWithoutAGap(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	old := tun.startExit("--announce", "--metrics", "127.0.0.1:9477")
	tun.startUp()
	before := tun.exitStatus()
	const size = 30_000_000
	c := tun.dial(world.WebIP, world.PortWeb)
	if _, err := fmt.Fprintf(c, "GET /file?size=%d HTTP/1.0\r\n\r\n", size); err != nil {
		t.Fatal(err)
	}
	download, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	visited := tun.visits()
	tun.asNobody("exit", "restart", "--key", tun.keyFile)
	after := tun.exitStatus()
	if after.PID == before.PID || after.State != "running" {
		t.Errorf("process %d in state %q answers after the restart of %d", after.PID, after.State, before.PID)
	}
	if !strings.Contains(tun.asNobody("exits", "--json", "--relay", world.RelayURL), tun.key) {
		t.Error("the exit is not announced any more")
	}
	if digest, n, err := world.Digest(download.Body); err != nil || n != size || digest != world.FileDigest(size) {
		t.Errorf("the download: %d bytes, %v", n, err)
	}
	c.Close()
	tun.awaitLine(old, "drained")
	if n := visited(); n < 3 {
		t.Errorf("%d visits meanwhile", n)
	}
	if now := tun.exitStatus(); now.PID != after.PID || now.Flows["tcp"] == 0 {
		t.Errorf("process %d has had %v flows", now.PID, now.Flows["tcp"])
	}
}

// visits loads a page over new connections, one after the other, none of which may
// fail, until stop is called, which says how many there were.
func (tun *tunnel) visits() (stop func() int) {
	n, stopped := 0, make(chan struct{})
	var visiting sync.WaitGroup
	visiting.Go(func() {
		for {
			select {
			case <-stopped:
				return
			default:
			}
			if got, err := tun.get("http://" + world.WebIP + "/"); err != nil || got != "hello from the web" {
				tun.t.Errorf("visit %d: %q, %v", n, got, err)
				return
			}
			n++
		}
	})
	return func() int {
		close(stopped)
		visiting.Wait()
		return n
	}
}

// leak check 54: the exit's secret key is nowhere to be found: not in logs at any
// level, in what the process shows of itself, in its state, status and figures
//
// leak check 55: other users are not let at the exit's control socket, nor even its
// own user at its memory
func TestExitKeepsItsSecret(t *testing.T) {
	tun := newTunnel(t)
	secret := tun.secretKey()
	tun.startRelay()
	exit, err := tun.StartExit(tun.ctx, tun.keyFile, world.Options{Args: []string{"--verbose", "--announce", "--metrics", "unix:/run/metrics"}})
	if err != nil {
		t.Fatal(err)
	}
	tun.startUp()
	tun.reaches("to be shown")
	shown := map[string]string{
		"status":  tun.asNobody("exit", "status", "--key", tun.keyFile) + tun.asNobody("exit", "status", "--json", "--key", tun.keyFile),
		"metrics": tun.inExit("curl", "-sS", "--unix-socket", "/run/metrics", "http://exit/metrics"),
	}
	for _, file := range []string{"cmdline", "environ", "status", "limits"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", exit.PID(), file))
		if err != nil {
			t.Fatal(err)
		}
		shown[file] = string(b)
	}
	if !strings.Contains(shown["metrics"], "nws_exit_flows_total{network=\"tcp\"} 1\n") {
		t.Errorf("the figures are\n%s", shown["metrics"])
	}
	if core := strings.Fields(shown["limits"][strings.Index(shown["limits"], "Max core file size"):]); !slices.Equal(core[4:6], []string{"0", "0"}) {
		t.Errorf("core files: %v", core[4:6])
	}
	tun.noAccess(exit)
	tun.kill(exit)
	shown["log"] = exit.Output()
	for _, name := range []string{"usage.json"} {
		if b, err := tun.Exit.ReadFile(filepath.Join(tun.keyFile+".state", name)); err == nil {
			shown[name] = string(b)
		}
	}
	if !strings.Contains(shown["log"], world.WebIP) {
		t.Error("at debug level the log does not tell where flows go: is it the log?")
	}
	_, digits, err := nip19.Decode(secret.NSec())
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{secret.NSec(), digits.(string)} {
		for what, text := range shown {
			if strings.Contains(text, form) {
				t.Errorf("%s: the secret key is in there", what)
			}
		}
	}
}

// noAccess finds out what others get at of an exit that runs.
func (tun *tunnel) noAccess(exit *netlab.Process) {
	tun.t.Helper()
	for who, user := range map[string]uint32{"another user": 4711, "the same user": 65534} {
		for _, file := range []string{"mem", "environ", "maps"} {
			path := fmt.Sprintf("/proc/%d/%s", exit.PID(), file)
			res, err := tun.Exit.Run(tun.ctx, netlab.CommandOptions{User: user}, "/bin/sh", "-c", "exec 3<"+path)
			if err != nil || res.Code == 0 {
				tun.t.Errorf("%s may open %s", who, file)
			}
		}
	}
	res, err := tun.Exit.Run(tun.ctx, netlab.CommandOptions{User: 4711}, "/run/nws-vpn-program", "exit", "status", "--state-dir", tun.keyFile+".state")
	if err != nil || res.Code == 0 || !strings.Contains(res.Output, "permission denied") {
		tun.t.Errorf("another user's status: code %d, %v: %s", res.Code, err, res.Output)
	}
}

// An exit refuses root, and says what else to do.
func TestExitRefusesRoot(t *testing.T) {
	tun := newTunnel(t)
	res, err := tun.Run(tun.ctx, tun.Exit, "exit", "--key", tun.keyFile, "--relay", world.RelayURL)
	if err != nil || res.Code == 0 || !strings.Contains(res.Output, "--allow-root") {
		t.Errorf("as root: code %d, %v: %s", res.Code, err, res.Output)
	}
}
