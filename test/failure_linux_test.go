package test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// A failing start is to be over after 15 s. The tests allow for a slow machine.
const failurePatience = 30 * time.Second

// failing runs "up", which must fail in time, leave the machine as it was, and
// name what failed and what to do.
func (tun *tunnel) failing(exit, relay string, words ...string) {
	tun.t.Helper()
	before := tun.snapshot()
	ctx, cancel := context.WithTimeout(tun.ctx, failurePatience)
	defer cancel()
	start := time.Now()
	res, err := tun.Run(ctx, tun.Client, "up", "--exit", exit, "--relay", relay, "--state-dir", world.StateDir)
	if err != nil {
		tun.t.Fatalf("up did not give up: %v: %s", err, res.Output)
	}
	tun.t.Logf("code %d after %.1f s: %s", res.Code, time.Since(start).Seconds(), res.Output)
	if res.Code == 0 {
		tun.t.Error("up ended with code 0")
	}
	_, message, _ := strings.Cut("\n"+res.Output, "\nnws-vpn: ")
	for _, word := range words {
		if !strings.Contains(strings.ToLower(message), word) {
			tun.t.Errorf("the message does not say %q: %s", word, res.Output)
		}
	}
	for _, want := range []string{"the machine is as it was", "--retry", "nws-vpn doctor"} {
		if !strings.Contains(message, want) {
			tun.t.Errorf("the message does not say %q: %s", want, res.Output)
		}
	}
	if strings.Contains(res.Output, "WARN") || strings.Contains(res.Output, "context ") || strings.Contains(message, "dial tcp") || strings.Count(res.Output, exit) > 1 {
		tun.t.Errorf("it says too much: %s", res.Output)
	}
	tun.restored(before)
}

func TestNoExitOfThatKey(t *testing.T) {
	tun := served(t)
	stranger, err := tun.Keygen(tun.ctx, tun.Exit, "/run/stranger.key")
	if err != nil {
		t.Fatal(err)
	}
	tun.failing(stranger, world.RelayURL, "exit")
}

func TestDeadRelay(t *testing.T) {
	failingAt(t, nil)
}

func TestSilentRelay(t *testing.T) {
	t.Parallel() // it waits more than it works
	failingAt(t, func(c net.Conn) error {
		_, err := io.Copy(io.Discard, c)
		return err
	})
}

func TestRelayThatIsNone(t *testing.T) {
	tun := newTunnel(t)
	if err := tun.ServeHTTP(tun.Relay, world.RelayIP+":"+world.RelayPort, http.NotFoundHandler()); err != nil {
		t.Fatal(err)
	}
	tun.failing(tun.key, world.RelayURL, "relay", world.RelayIP)
}

func TestRelayThatHangsUp(t *testing.T) {
	failingAt(t, func(net.Conn) error { return nil })
}

func TestUnreachableRelay(t *testing.T) {
	tun := newTunnel(t)
	tun.failing(tun.key, "ws://"+world.UnroutedIP+":7777", "relay", world.UnroutedIP)
}

// failingAt is a start at a relay that does what talk does, or that is
// not there.
func failingAt(t *testing.T, talk func(net.Conn) error) {
	t.Helper()
	tun := newTunnel(t)
	if talk != nil {
		if err := tun.ServeTCP(tun.Relay, world.RelayIP+":"+world.RelayPort, talk); err != nil {
			t.Fatal(err)
		}
	}
	tun.failing(tun.key, world.RelayURL, "relay", world.RelayIP)
}

func TestReadableKeyFileIsRefused(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	if res := tun.inExit("chmod", "0644", tun.keyFile); res != "" {
		t.Fatal(res)
	}
	res, err := tun.RunNobody(tun.ctx, "exit", "--key", tun.keyFile, "--relay", world.RelayURL)
	if err != nil || res.Code == 0 || !strings.Contains(res.Output, tun.keyFile) || !strings.Contains(res.Output, "600") {
		t.Errorf("the exit ended with code %d, %v: %s", res.Code, err, res.Output)
	}
}

// inExit runs a program in the exit and returns what it printed.
func (tun *tunnel) inExit(name string, args ...string) string {
	tun.t.Helper()
	p, err := tun.Exit.Run(tun.ctx, netlab.CommandOptions{}, needProgram(tun.t, name), args...)
	if err != nil {
		tun.t.Fatal(err)
	}
	return p.Output
}

func TestKeygen(t *testing.T) {
	tun := newTunnel(t)
	secret, err := tun.Exit.ReadFile(tun.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if mode := tun.inExit("stat", "-c", "%a", tun.keyFile); mode != "600" {
		t.Errorf("the key file has mode %s", mode)
	}
	if !strings.Contains(string(secret), "nsec1") {
		t.Error("the key file holds no nsec")
	}
	again, err := tun.Run(tun.ctx, tun.Exit, "keygen", tun.keyFile)
	if err != nil || again.Code == 0 {
		t.Errorf("a second keygen over the file ended with code %d, %v: %s", again.Code, err, again.Output)
	}
	if now, err := tun.Exit.ReadFile(tun.keyFile); err != nil || string(now) != string(secret) {
		t.Error("a second keygen changed the key")
	}
	if strings.Contains(again.Output, "nsec1") {
		t.Error("keygen printed a secret")
	}
}

func TestWrongArguments(t *testing.T) {
	tun := newTunnel(t)
	before := tun.snapshot()
	for _, c := range []struct {
		name, says string
		args       []string
	}{
		{"no exit", "--exit", []string{"up", "--relay", world.RelayURL}},
		{"no relay", "--relay", []string{"up", "--exit", tun.key}},
		{"a key with a typing error", "exit", []string{"up", "--relay", world.RelayURL, "--exit", tun.key[:len(tun.key)-1] + "b"}},
		{"not a relay's URL", "ws", []string{"up", "--exit", tun.key, "--relay", "http://" + world.RelayIP}},
		{"no key file", "keygen", []string{"exit", "--allow-root", "--key", "/run/missing.key", "--relay", world.RelayURL}},
		{"no such flag", "unknown flag", []string{"up", "--exits", tun.key}},
		{"a filter that is off", "packet filter", []string{"up", "--exit", tun.key, "--relay", world.RelayURL, "--kill-switch", "off", "--refuse-inbound"}},
		{"not a service", "--service", []string{"exit", "--key", "/run/x", "--relay", world.RelayURL, "--service", "eighty"}},
		{"not a prefix", "--allow-private", []string{"exit", "--key", "/run/x", "--relay", world.RelayURL, "--allow-private", "10"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := c.args
			if args[0] == "up" {
				args = append(args, "--state-dir", world.StateDir)
			}
			res, err := tun.Run(tun.ctx, tun.Client, args...)
			if err != nil || res.Code == 0 || !strings.Contains(res.Output, c.says) {
				t.Errorf("code %d, %v: %s", res.Code, err, res.Output)
			}
		})
	}
	tun.restored(before)
}

func TestWrongConfigurationKey(t *testing.T) {
	tun := newTunnel(t)
	before := tun.snapshot()
	if err := tun.Client.WriteFile("/run/nws.toml", []byte("[up]\nrelayz = [\""+world.RelayURL+"\"]\n")); err != nil {
		t.Fatal(err)
	}
	res, err := tun.Run(tun.ctx, tun.Client, "up", "--config", "/run/nws.toml", "--exit", tun.key, "--state-dir", world.StateDir)
	if err != nil || res.Code == 0 || !strings.Contains(res.Output, "relayz") || !strings.Contains(res.Output, "relays") {
		t.Errorf("up ended with code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.restored(before)
}

// An exit with room for one session, which somebody else has.
func TestExitThatRefuses(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelay()
	secret := envelopetest.NewKey(t)
	hubAt := func(h *netlab.Host) *nostrlink.Hub {
		return nostrlink.NewHub(nostrlink.HubOptions{Relay: relay.Options{DialContext: h.DialContext}})
	}
	ctx, cancel := context.WithCancel(tun.ctx)
	exitHub, otherHub := hubAt(tun.Exit), hubAt(tun.Internet)
	ready := make(chan string, 1)
	listener := exitHub.NewListener(secret, []string{world.RelayURL}, nostrlink.ListenerOptions{
		MaxSessions: 1, Ready: func(relay string) { ready <- relay },
	})
	other := otherHub.NewLink(secret.Public(), []string{world.RelayURL}, nostrlink.LinkOptions{})
	var running sync.WaitGroup
	running.Go(func() {
		_ = listener.Serve(ctx, func(_ context.Context, req nostrlink.Request) { req.Reject(nil) })
	})
	running.Go(func() { _ = other.Serve(ctx) })
	defer func() {
		cancel()
		running.Wait()
		exitHub.Close()
		otherHub.Close()
	}()
	select {
	case <-ready:
	case <-ctx.Done():
		t.Fatal("the exit does not get ready")
	}
	if err := other.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	tun.failing(secret.Public().NPub(), world.RelayURL, "exit", "refused", "later")
}
