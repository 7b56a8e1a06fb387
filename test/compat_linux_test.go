package test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

const socksAddress = "127.0.0.1:1080"

// overCompatRelays runs f over our relay and another, which promises no order.
// The reference's exit makes events that are larger than the 64 KiB which ours
// takes by default.
func overCompatRelays(t *testing.T, f func(t *testing.T, tun *tunnel)) {
	for _, kind := range []string{"embedded", "khatru"} {
		t.Run(kind, func(t *testing.T) {
			tun := newTunnel(t)
			if kind != "embedded" {
				tun.startRelayOf(kind, world.RelayPort)
			} else {
				if err := tun.Relay.WriteFile("/run/nws.toml", []byte("[relay]\nmax_event_bytes = 131072\n")); err != nil {
					t.Fatal(err)
				}
				tun.startRelay("--config", "/run/nws.toml")
			}
			f(t, tun)
		})
	}
}

// TestReferenceEntry: curl, the SOCKS5 proxy of the reference, our exit.
func TestReferenceEntry(t *testing.T) {
	overCompatRelays(t, func(t *testing.T, tun *tunnel) {
		tun.startExit()
		tun.startReference(tun.Client, "entry", world.RelayURL, tun.key, socksAddress)
		for url, want := range map[string]string{
			"http://" + world.WebIP + "/":        "hello from the web",
			"http://[" + world.WebIP6 + "]/":     "hello from the web",
			"http://" + tun.key + ".nostr/":      "hello from " + world.ServiceText,
			"http://" + world.WebIP + "/missing": "404 page not found",
		} {
			if got := tun.run("curl", "-sS", "--max-time", "30", "--socks5-hostname", socksAddress, url); got != want {
				t.Errorf("%s: got %q", url, got)
			}
		}
		tun.fetch(60_000, "--socks5-hostname", socksAddress)
	})
}

// fetch fetches a file with curl and compares it.
func (tun *tunnel) fetch(size int64, args ...string) {
	tun.t.Helper()
	url := "http://" + world.WebIP + "/file?size=" + strconv.FormatInt(size, 10)
	res := tun.runAny("curl", "", append([]string{"-sS", "--max-time", "60", url}, args...)...)
	digest, n, err := world.Digest(strings.NewReader(res.Stdout))
	if err != nil || res.Code != 0 || digest != world.FileDigest(size) {
		tun.t.Errorf("curl ended with code %d after %d of %d bytes, %v", res.Code, n, size, err)
	}
}

// TestReferenceExit: programs in our VPN, the exit of the reference.
func TestReferenceExit(t *testing.T) {
	for _, mode := range []string{"auto", "nws"} {
		t.Run(mode, func(t *testing.T) {
			overCompatRelays(t, func(t *testing.T, tun *tunnel) {
				if err := tun.ServeHTTP(tun.Exit, world.ServiceAddress, world.Handler(world.ServiceText)); err != nil {
					t.Fatal(err)
				}
				tun.key = tun.startReference(tun.Exit, "exit", world.RelayURL, world.ServiceAddress)
				if err := tun.Client.WriteFile("/run/nws.toml", []byte("[up]\nnws_resolver = \""+world.DNSIP+"\"\n")); err != nil {
					t.Fatal(err)
				}
				before := tun.snapshot()
				up := tun.startUp("--mode", mode, "--config", "/run/nws.toml")
				tun.usesReferenceExit()
				tun.undone(up, before)
			})
		})
	}
}

func (tun *tunnel) usesReferenceExit() {
	tun.t.Helper()
	for url, want := range map[string]string{
		"http://" + world.WebName + "/":  "hello from the web",
		"http://" + world.WebIP + "/":    "hello from the web",
		"http://" + tun.key + ".nostr/":  "hello from " + world.ServiceText,
		"http://[" + world.WebIP6 + "]/": "hello from the web",
	} {
		if got := tun.run("curl", "-sS", "--max-time", "30", url); got != want {
			tun.t.Errorf("%s: got %q", url, got)
		}
	}
	tun.fetch(300_000)
	if got := tun.run("dig", "+short", "+time=10", "+tries=2", world.WebName); got != world.WebIP {
		tun.t.Errorf("dig: got %q", got)
	}
	if res := tun.runAny("ping", "", "-c", "1", "-W", "5", world.WebIP); res.Code == 0 {
		tun.t.Error("ping works without a session")
	}
	nws, _ := tun.status()["nws"].(map[string]any)
	if received, _ := nws["bytes_received"].(float64); received < 300_000 {
		tun.t.Errorf("status says %v", tun.status())
	}
	res, err := tun.Run(tun.ctx, tun.Client, "status", "--state-dir", world.StateDir)
	if err != nil || !strings.Contains(res.Stdout, "without a session") {
		tun.t.Errorf("status: %v, %s", err, res.Output)
	}
}

// TestConnectR: either end connects to the other instead of sending over relays,
// and a large file arrives whole.
func TestConnectR(t *testing.T) {
	const address = world.ClientIP + ":9333"
	tun := newTunnel(t)
	tun.startRelay()
	if err := tun.Exit.WriteFile("/run/nws.toml", []byte("[exit]\nconnectr = \"clear\"\n")); err != nil {
		t.Fatal(err)
	}
	tun.startExit("--config", "/run/nws.toml", "--allow-private", world.ClientIP+"/32")
	tun.startReference(tun.Client, "entry", world.RelayURL, tun.key, socksAddress, address)
	tun.fetch(5_000_000, "--socks5-hostname", socksAddress)

	const other = world.ClientIP + ":9334"
	key := tun.startReference(tun.Exit, "exit", world.RelayURL, world.ServiceAddress)
	text := "[up]\npublic_address = \"" + other + "\"\nnws_clear_text = true\nnws_resolver = \"" + world.DNSIP + "\"\n"
	if err := tun.Client.WriteFile("/run/nws.toml", []byte(text)); err != nil {
		t.Fatal(err)
	}
	tun.key = key
	tun.startUp("--mode", "nws", "--config", "/run/nws.toml")
	tun.fetch(5_000_000)
	if got := tun.run("curl", "-sS", "--max-time", "30", "http://"+world.WebName+"/"); got != "hello from the web" {
		t.Errorf("got %q", got)
	}
	nws, _ := tun.status()["nws"].(map[string]any)
	if reversed, _ := nws["reversed"].(float64); reversed < 3 || nws["opened"] != float64(0) {
		t.Errorf("status says %v", nws)
	}
}

// TestNoExit: where a relay does not tell that nobody listens, an exit that is
// not there is not taken for one of the reference.
func TestNoExit(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelayOf("rely", world.RelayPort)
	before := tun.snapshot()
	res, err := tun.Run(tun.ctx, tun.Client, "up", "--exit", tun.key, "--relay", world.RelayURL, "--state-dir", world.StateDir)
	if err != nil || res.Code == 0 || !strings.Contains(res.Output, "did not answer") {
		t.Errorf("up ended with code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.restored(before)
}

// TestModeSession: an entry and an exit that want the session get nothing less.
func TestModeSession(t *testing.T) {
	tun := newTunnel(t)
	tun.startRelayOf("khatru", world.RelayPort)
	key := tun.startReference(tun.Exit, "exit", world.RelayURL, world.ServiceAddress)
	res, err := tun.Run(tun.ctx, tun.Client, "up", "--mode", "session", "--exit", key, "--relay", world.RelayURL, "--state-dir", world.StateDir)
	if err != nil || res.Code == 0 || !strings.Contains(res.Output, "did not answer") {
		t.Errorf("up ended with code %d, %v: %s", res.Code, err, res.Output)
	}
	tun.startExit("--mode", "session")
	tun.startReference(tun.Client, "entry", world.RelayURL, tun.key, socksAddress)
	if res := tun.runAny("curl", "", "-sS", "--max-time", "15", "--socks5-hostname", socksAddress, "http://"+world.WebIP+"/"); res.Code == 0 {
		t.Errorf("an exit with --mode session serves an entry without: %q", res.Stdout)
	}
	tun.startUp("--mode", "session")
	tun.reaches("in sessions over a relay for all")
}
