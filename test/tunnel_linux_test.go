package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// needRoot skips a test that makes network namespaces, unless skipping is
// forbidden.
func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("NWS_REQUIRE_INTEGRATION") == "1":
		t.Fatal("needs root: NWS_REQUIRE_INTEGRATION forbids to skip")
	default:
		t.Skip("needs root: network namespaces")
	}
}

// needProgram returns the path of one of the system's programs.
func needProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("NWS_REQUIRE_INTEGRATION") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

// tunnel is a world with the programs running in it, and what one test knows
// of it.
type tunnel struct {
	*world.World
	t         *testing.T
	ctx       context.Context
	key       string // the exit's npub
	keyFile   string // in the exit
	processes map[string]*netlab.Process
}

// newTunnel builds the world and starts nothing. When the test fails, what the
// programs printed is logged.
func newTunnel(t *testing.T) *tunnel {
	t.Helper()
	needRoot(t)
	limit := 2 * time.Minute
	if raceEnabled {
		limit *= 3
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	w, err := world.New(binary)
	if err != nil {
		t.Fatal(err)
	}
	tun := &tunnel{World: w, t: t, ctx: ctx, keyFile: "/run/exit.key", processes: map[string]*netlab.Process{}}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		for name, p := range tun.processes {
			tun.judgeOutput(name, p.Output())
		}
	})
	if tun.key, err = w.Keygen(ctx, w.Exit, tun.keyFile); err != nil {
		t.Fatal(err)
	}
	return tun
}

// tattle are words that no program may print: signs of a bug, secrets, and at
// the default log level where its users go.
var tattle = []string{"DATA RACE", "panic:", "nsec1", world.WebIP, world.WebIP6, world.DNSIP, "beyond.example", world.UnroutedIP}

func (tun *tunnel) judgeOutput(name, output string) {
	for _, word := range tattle {
		for line := range strings.Lines(output) {
			// An exit names its own name server when that fails.
			own := word == world.DNSIP && strings.Contains(line, `msg="exit: a name server `)
			if strings.Contains(line, word) && !own {
				tun.t.Errorf("%s printed %q", name, word)
			}
		}
	}
	if tun.t.Failed() {
		tun.t.Logf("%s printed:\n%s", name, output)
	}
}

// served is a tunnel that can come up: there are a relay and an exit. The exit
// has a web service behind its name.
func served(t *testing.T) *tunnel {
	t.Helper()
	tun := newTunnel(t)
	tun.startRelay()
	tun.startExit()
	return tun
}

// connected is a tunnel that is up.
func connected(t *testing.T) *tunnel {
	t.Helper()
	tun := served(t)
	tun.startUp()
	return tun
}

func (tun *tunnel) startRelay(args ...string) *netlab.Process {
	tun.t.Helper()
	p, err := tun.StartRelay(tun.ctx, world.Options{Args: args})
	return tun.started("relay", p, err)
}

func (tun *tunnel) startExit(args ...string) *netlab.Process {
	tun.t.Helper()
	if tun.processes["exit"] == nil {
		if err := tun.ServeHTTP(tun.Exit, world.ServiceAddress, world.Handler(world.ServiceText)); err != nil {
			tun.t.Fatal(err)
		}
	}
	args = append(args, "--service", "80="+world.ServiceAddress)
	p, err := tun.StartExit(tun.ctx, tun.keyFile, world.Options{Args: args})
	return tun.started("exit", p, err)
}

func (tun *tunnel) startUp(args ...string) *netlab.Process {
	tun.t.Helper()
	p, err := tun.StartUp(tun.ctx, tun.key, world.Options{Args: args})
	return tun.started("up", p, err)
}

func (tun *tunnel) started(name string, p *netlab.Process, err error) *netlab.Process {
	tun.t.Helper()
	if p != nil {
		for n := 2; tun.processes[name] != nil; n++ {
			name = fmt.Sprintf("%s (%d)", strings.Fields(name)[0], n)
		}
		tun.processes[name] = p
	}
	if err != nil {
		tun.t.Fatal(err)
	}
	return p
}

// kill ends a process with no chance to clean up.
func (tun *tunnel) kill(p *netlab.Process) {
	p.Kill()
	<-p.Done()
}

// run runs one of the system's programs in the client and returns its standard
// output; it must end with code 0.
func (tun *tunnel) run(name string, args ...string) string {
	tun.t.Helper()
	res := tun.runAny(name, "", args...)
	if res.Code != 0 {
		tun.t.Errorf("%s %q ended with code %d: %s", name, args, res.Code, res.Output)
	}
	return strings.TrimSpace(res.Stdout)
}

// runAny runs a program with input, whatever its exit code.
func (tun *tunnel) runAny(name, input string, args ...string) netlab.Result {
	tun.t.Helper()
	path := needProgram(tun.t, name)
	res, err := tun.Client.Run(tun.ctx, netlab.CommandOptions{Stdin: strings.NewReader(input)}, path, args...)
	if err != nil {
		tun.t.Fatal(err)
	}
	return res
}

// with is the same tunnel, reporting to a subtest.
func (tun *tunnel) with(t *testing.T) *tunnel {
	of := *tun
	of.t = t
	return &of
}

// httpClient makes requests from the client to IP addresses, each on a
// connection of its own.
func (tun *tunnel) httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: tun.Client.DialContext, DisableKeepAlives: true}}
}

// get fetches a page and returns its text.
func (tun *tunnel) get(url string) (string, error) {
	req, err := http.NewRequestWithContext(tun.ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := tun.httpClient().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(body)), err
}

// reaches checks that the tunnel leads to the web.
func (tun *tunnel) reaches(when string) {
	tun.t.Helper()
	if got, err := tun.get("http://" + world.WebIP + "/"); err != nil || got != "hello from the web" {
		tun.t.Errorf("%s: %q, %v", when, got, err)
	}
}

// snapshot is the client's network state.
func (tun *tunnel) snapshot() string {
	tun.t.Helper()
	text, err := tun.Client.Snapshot()
	if err != nil {
		tun.t.Fatal(err)
	}
	return text
}

// restored checks that the client is as it was.
func (tun *tunnel) restored(before string) {
	tun.t.Helper()
	if now := tun.snapshot(); now != before {
		tun.t.Errorf("the client is not as it was. Before:\n%s\nnow:\n%s", before, now)
	}
}

// status is what "status --json" says.
func (tun *tunnel) status() map[string]any {
	tun.t.Helper()
	res, err := tun.Run(tun.ctx, tun.Client, "status", "--json", "--state-dir", world.StateDir)
	if err != nil || res.Code != 0 {
		tun.t.Fatalf("status ended with code %d, %v: %s", res.Code, err, res.Output)
	}
	var status map[string]any
	if err := json.Unmarshal([]byte(res.Stdout), &status); err != nil {
		tun.t.Fatalf("status --json printed %q: %v", res.Stdout, err)
	}
	return status
}

func (tun *tunnel) down() {
	tun.t.Helper()
	if err := tun.Down(tun.ctx); err != nil {
		tun.t.Fatal(err)
	}
}

// ended waits for a process and checks whether it ended well.
func (tun *tunnel) ended(p *netlab.Process, well bool) {
	tun.t.Helper()
	if err := p.Wait(tun.ctx); (err == nil) != well {
		tun.t.Errorf("nws-vpn ended with %v", err)
	}
}

// takeDown runs down, by which up ends well.
func (tun *tunnel) takeDown(up *netlab.Process) {
	tun.t.Helper()
	tun.down()
	tun.ended(up, true)
}

// undone takes the tunnel down, by which the client is as it was.
func (tun *tunnel) undone(up *netlab.Process, before string) {
	tun.t.Helper()
	tun.takeDown(up)
	tun.restored(before)
}

// secondLine finds the second line with a prefix.
func secondLine(prefix string) func(line string) bool {
	n := 0
	return func(line string) bool {
		if strings.HasPrefix(line, prefix) {
			n++
		}
		return n == 2
	}
}
