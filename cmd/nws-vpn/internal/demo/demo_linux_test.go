package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// The test binary plays nws-vpn, and the prober, when this is set.
const fakeEnv = "NWS_DEMO_TEST_FAKE"

func TestMain(m *testing.M) {
	if os.Getenv(fakeEnv) != "" {
		os.Exit(fakeProgram(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// fakeProgram says what nws-vpn says, and does nothing.
func fakeProgram(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch args[0] {
	case "probe":
		return Probe(ctx, args[1:], os.Stdin, os.Stdout, os.Stderr)
	case "keygen":
		fmt.Println("npub1" + strings.Repeat("q", 58))
	case "relay":
		fmt.Println("relay listening")
		fmt.Println("event kind=28333 author=aa recipient=bb size=600 to=" + world.WebName)
		<-ctx.Done()
	case "exit":
		fmt.Println("ready")
		<-ctx.Done()
	case "up":
		fmt.Println("connected")
		if err := os.WriteFile("/etc/resolv.conf", []byte("nameserver "+world.DNSIP+"\n"), 0o644); err != nil {
			return 1
		}
		<-ctx.Done()
	case "down":
		return 1
	}
	return 0
}

func runWithFake(t *testing.T, ctx context.Context) (output string, err error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	t.Setenv(fakeEnv, "1")
	var out bytes.Buffer
	err = Run(ctx, Options{Binary: os.Args[0], Out: &out, Probe: []string{os.Args[0], "probe"}})
	return out.String(), err
}

// Everything works with this nws-vpn, because everything goes past it.
func TestDemoNoticesAVPNThatDoesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	output, err := runWithFake(t, ctx)
	if err == nil {
		t.Fatalf("the demo was content:\n%s", output)
	}
	for _, want := range []string{
		"FAIL  nothing but TCP with the relays", "to 203.0.113.53:53", // the leak, with an example
		"FAIL  curl http://npub1qq",
		"FAIL  nws-vpn down",
		"FAIL  resolv.conf", `+ file /etc/resolv.conf`,
		"FAIL  keys, kinds and sizes", "to=www.beyond.example",
		"ok    curl http://203.0.113.80", "ok    curl a file", "ok    nc 203.0.113.80 81",
		"What nws-vpn relay printed",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	if strings.Contains(output, "\x1b") {
		t.Error("control characters in output that goes to no terminal")
	}
	if t.Failed() {
		t.Log(output)
	}
}

func TestDemoEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	output, err := runWithFake(t, ctx)
	if err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("got %v\n%s", err, output)
	}
}

// Without the programs, the prober does their work.
func TestProbersStandIn(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	t.Setenv("PATH", t.TempDir())
	output, err := runWithFake(t, ctx)
	if err == nil {
		t.Error("the demo was content")
	}
	for _, want := range []string{
		"curl is not installed", "dig is not installed", "nc is not installed", "ping is not installed",
		"ok    its resolver knows nothing", "ok    curl http://203.0.113.80", "ok    dig TXT", "ok    dig @203.0.113.53 -p 5353",
		"ok    ping 203.0.113.80", "ok    nc 203.0.113.80 2121", "ok    nc 203.0.113.80 81", "ok    curl http://www.beyond.example:81",
		"ok    curl a file", "ok    curl sends it back",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(output)
	}
}

func TestMissingProgramsWithoutAProber(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := findTools(nil, nil)
	if err == nil || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("got %v", err)
	}
}
