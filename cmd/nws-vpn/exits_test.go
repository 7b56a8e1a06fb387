package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// announcedExit runs a relay with an announced exit and returns both.
func announcedExit(t *testing.T) (relay string, exit envelope.PublicKey) {
	t.Helper()
	server := relayd.New(relayd.Options{})
	web := httptest.NewServer(server)
	key := envelopetest.NewKey(t)
	relay = "ws" + strings.TrimPrefix(web.URL, "http")
	ctx, cancel := context.WithCancel(context.Background())
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	ready := make(chan struct{})
	l := hub.NewListener(key, []string{relay}, nostrlink.ListenerOptions{Ready: func(string) { close(ready) }})
	var running sync.WaitGroup
	running.Go(func() {
		l.Serve(ctx, func(_ context.Context, req nostrlink.Request) { req.Reject(errors.New("no")) })
	})
	running.Go(func() {
		select {
		case <-ready:
		case <-ctx.Done():
		}
		l.Announce(ctx, func() announce.Announcement {
			return announce.Announcement{
				Software: "test/1", Policy: announce.Policy{IPv4: true, Ports: []announce.PortRange{{First: 1, Last: 24}, {First: 26, Last: 65535}}},
			}
		}, nil)
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		hub.Close()
		server.Close()
		web.Close()
	})
	return relay, key.Public()
}

func TestExits(t *testing.T) {
	relay, exit := announcedExit(t)
	file := filepath.Join(t.TempDir(), "nws.toml")
	text := "log_level = \"error\"\n[up]\nrelays = [\"" + relay + "\"]\ntrust = [\"" + exit.NPub() + "\"]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var list exitList
	for begun := time.Now(); len(list.Exits) == 0; {
		text, err := ran("exits", "--config", file, "--probe", "--json", "--timeout", "30s")
		if err == nil {
			err = json.Unmarshal([]byte(text), &list)
		}
		if err != nil || time.Since(begun) > time.Minute {
			t.Fatalf("%v: %s", err, text)
		}
	}
	x := list.Exits[0]
	if list.Schema != 1 || x.NPub != exit.NPub() || !x.Trusted || x.Trust != "listed" || x.Load == nil || !x.IPv4 || x.IPv6 || x.Handshake <= 0 || x.Problem != "" {
		t.Errorf("listed %+v", x)
	}
	out, err := ran("exits", "--config", file)
	for _, want := range []string{exit.NPub(), "listed", "0%", "ports 1-24 26-65535, ipv4", "test/1", relay} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s%v", want, out, err)
		}
	}
	if out, err := ran("exits"); err == nil || !strings.Contains(err.Error(), "--relay") {
		t.Errorf("without a relay: %v: %s", err, out)
	}
}

// A relay with members answers those who name the key of one.
func TestExitsOfAPrivateRelay(t *testing.T) {
	dir := t.TempDir()
	key, file := filepath.Join(dir, "key"), filepath.Join(dir, "nws.toml")
	member := envelopetest.NewKey(t)
	if err := keyfile.Create(key, member); err != nil {
		t.Fatal(err)
	}
	relay := serveTestRelay(t, func(c *config.Relay) { c.Members = []string{member.Public().NPub()} }).URL()
	for settings, answered := range map[string]bool{"": false, "relay_key_file = \"" + filepath.ToSlash(key) + "\"\n": true} {
		text := "log_level = \"error\"\n[up]\nrelays = [\"" + relay + "\"]\n" + settings
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := ran("exits", "--config", file)
		if (err == nil) != answered || err != nil && !strings.Contains(err.Error(), "for its members") {
			t.Errorf("with %q: %v: %s", settings, err, out)
		}
	}
}

func TestAdmissionIsListed(t *testing.T) {
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	defer hub.Close()
	d := hub.NewDirectory([]string{"wss://relay.example"}, nil)
	found := &nostrlink.Found{Trust: announce.NewTrust(nil, nil)}
	for _, admission := range []string{announce.Listed, ""} {
		found.Exits = append(found.Exits, announce.Entry{Announcement: announce.Announcement{Key: envelopetest.NewKey(t).Public(), Admission: admission, Load: announce.NoLoad}})
	}
	list := listExits(d, found, make([]announce.Probe, 2))
	if list.Exits[0].Admission != "allowlist" || list.Exits[1].Admission != "" {
		t.Errorf("%+v", list.Exits)
	}
	var out strings.Builder
	if err := printExits(&out, list); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if at := strings.Index(lines[0], "ADMISSION"); at < 0 || !strings.HasPrefix(lines[1][at:], "allowlist ") || !strings.HasPrefix(lines[2][at:], "- ") {
		t.Errorf("printed\n%s", out.String())
	}
}

func TestAutoTakesTrust(t *testing.T) {
	_, err := autoRule(&config.Up{Exit: config.AutoExit})
	if err == nil || !strings.Contains(err.Error(), "trust =") || !strings.Contains(err.Error(), "trust_follows") || !strings.Contains(err.Error(), "[up]") {
		t.Error(err)
	}
}
