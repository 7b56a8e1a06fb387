package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

func TestChooseExit(t *testing.T) {
	key := envelopetest.NewKey(t)
	n := name.Name{Key: key.Public(), Relays: []string{"ws://10.0.0.1:7777"}}
	book, err := name.NewBook(map[string]string{"home": n.Host()})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		text       string
		flags      []string
		wantRelays []string
		wantErr    string
	}{
		{text: "", wantErr: "no exit is chosen"},
		{text: n.NPub(), wantErr: "no relay is known"},
		{text: n.NPub(), flags: []string{"wss://a"}, wantRelays: []string{"wss://a"}},
		{text: n.Host(), wantRelays: n.Relays},
		{text: n.Host(), flags: []string{"wss://a"}, wantRelays: []string{"wss://a"}},
		{text: "home.nostr", wantRelays: n.Relays},
		{text: config.AutoExit, flags: []string{"wss://a"}, wantRelays: []string{"wss://a"}},
		{text: config.AutoExit, wantErr: "no relay is known"},
		{text: "blög.nostr", flags: []string{"wss://a"}, wantErr: "no petname blög in [names]"},
		{text: "home", wantRelays: n.Relays},
		{text: "HOME", wantRelays: n.Relays},
		{text: "hume.nostr", wantErr: "no petname hume in [names] of the configuration: did you mean home.nostr?"},
		{text: "höme", wantErr: "nor one of [names] in the configuration or of the exits that were joined: did you mean home.nostr?"},
		{text: "blög", wantErr: "neither an npub, an nprofile"},
		{text: "example.com", wantErr: "of the exits that were joined"},
		{text: "npub1broken", flags: []string{"wss://a"}, wantErr: "not a valid npub (mistyped?)"},
	} {
		exit, relays, err := chooseExit(test.text, test.flags, book)
		switch {
		case test.wantErr != "":
			if err == nil || !strings.Contains(err.Error(), test.wantErr) || strings.Contains(err.Error(), "mean") != strings.Contains(test.wantErr, "mean") {
				t.Errorf("chooseExit(%q) = %v, want an error with %q", test.text, err, test.wantErr)
			}
		case err != nil || exit.Key != key.Public() && test.text != config.AutoExit || !slices.Equal(relays, test.wantRelays):
			t.Errorf("chooseExit(%q) = %v, %q, %v; want relays %q", test.text, exit, relays, err, test.wantRelays)
		}
	}
}

func TestErrorsForUsers(t *testing.T) {
	for text, want := range map[string]string{
		"platform: tun: set after close":                    "set after close",
		"with --mtu 1: platform: an MTU of 1: use more":     "with --mtu 1: an MTU of 1: use more",
		"first\ntun: open: box: no":                         "first\nopen: no",
		"the platform: is no package here, nor is ws://box": "the platform: is no package here, nor is ws://box",
	} {
		if got := forUser(errors.New(text)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAddServices(t *testing.T) {
	var e config.Exit
	if err := addServices(&e, []string{"80=127.0.0.1:8080", "443=tls:unix:/run/web.sock"}); err != nil {
		t.Fatal(err)
	}
	if got := e.Services[80].String() + " " + e.Services[443].String(); got != "127.0.0.1:8080 tls:unix:/run/web.sock" {
		t.Errorf("services %q", got)
	}
	for _, bad := range []string{"", "80", "0=a:1", "65536=a:1", "x=a:1", "80=a", "80=unix:", "80=tls:"} {
		if err := addServices(&e, []string{bad}); err == nil || !strings.Contains(err.Error(), "--service") {
			t.Errorf("--service %q: %v, want an error that names the flag", bad, err)
		}
	}
}

func TestStatusText(t *testing.T) {
	since := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	raw, err := json.Marshal(&status{
		Schema: statusSchema, State: "connecting", Since: since, Exit: "npub1x", LastError: "relay ws://r: gone",
		Bytes: statusBytes{Sent: 999, Received: 51_234_567},
	})
	if err != nil {
		t.Fatal(err)
	}
	var s status
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := printStatus(&out, &s, since.Add(90*time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"connecting for 1m30s", "relay ws://r: gone", "npub1x", "999 B sent, 51.2 MB received"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "round trip") {
		t.Errorf("a round trip that is not known is shown:\n%s", out.String())
	}
}

// Who stops reading knows, and whoever else has gone is told of.
func TestUnreadAnswer(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	_, gone := w.Write([]byte("x"))
	answer := &fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: syscall.EPIPE}
	for _, test := range []struct {
		err  error
		said bool
	}{{fmt.Errorf("x: %w", answer), true}, {gone, false}, {&fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: syscall.ENOSPC}, false}} {
		if status, said := statusOf(root(), test.err); status != 1 || said != test.said {
			t.Errorf("after %v: status %d, all said: %v", test.err, status, said)
		}
	}
}
