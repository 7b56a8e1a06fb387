package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/invite"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

func invitation(t *testing.T, as string, relays ...string) invite.Invite {
	t.Helper()
	return invite.Invite{Exit: name.Name{Key: envelopetest.NewKey(t).Public(), Relays: relays}, Token: invite.NewToken(), As: as}
}

func keyFile(t *testing.T, path string) envelope.SecretKey {
	t.Helper()
	key := envelopetest.NewKey(t)
	if err := keyfile.Create(path, key); err != nil {
		t.Fatal(err)
	}
	return key
}

// upWith is the section [up] of a configuration for an exit.
func upWith(exit string, relays ...string) *config.Config {
	cfg := config.Default()
	cfg.Up.Exit, cfg.Up.Relays = exit, relays
	return cfg
}

func TestJoin(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "exits")
	i := invitation(t, "home", "wss://relay.example.org")
	var said strings.Builder
	if err := (&joinOptions{}).join(&said, i, dir, nil); err != nil {
		t.Fatal(err)
	}
	if s := said.String(); !strings.Contains(s, "joined home") || !strings.Contains(s, "--exit home") || strings.Contains(s, i.Token.Text()) || strings.Contains(s, "nsec") {
		t.Errorf("join says %q", s)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
	npub := i.Exit.NPub()
	for _, c := range []struct {
		cfg   *config.Config
		given bool
		want  []string // relays
	}{
		{upWith("home"), false, i.Exit.Relays},
		{upWith("HOME.nostr", "wss://other.example.org"), false, i.Exit.Relays},
		{upWith("home", "wss://mine.example.org"), true, []string{"wss://mine.example.org"}},
		{upWith(npub), false, i.Exit.Relays},
		{upWith(npub, "wss://mine.example.org"), false, []string{"wss://mine.example.org"}},
	} {
		what := c.cfg.Up.Exit
		credentials, err := dialAs(c.cfg, dir, c.given)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if c.cfg.Up.Exit != npub || !slices.Equal(c.cfg.Up.Relays, c.want) {
			t.Errorf("%s is %s on %q", what, c.cfg.Up.Exit, c.cfg.Up.Relays)
		}
		if got := credentials(i.Exit.Key); got.Token != i.Token.Text() || got.Identity == nil {
			t.Errorf("%s is shown %+v", what, got)
		}
		if got := credentials(envelopetest.NewKey(t).Public()); got != (nostrlink.Credentials{}) {
			t.Errorf("another exit is shown %+v", got)
		}
		if book, err := name.NewBook(c.cfg.Names); err != nil {
			t.Error(err)
		} else if n, err := book.Lookup("home.nostr"); err != nil || n.Key != i.Exit.Key {
			t.Errorf("home.nostr is %v, %v", n, err)
		}
	}
}

// An invitation changes nothing that is there, and sends nobody to places that a
// stranger must not name.
func TestJoinRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "exits")
	first := invitation(t, "home", "wss://relay.example.org")
	if err := (&joinOptions{}).join(io.Discard, first, dir, nil); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "home.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine.key"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := first
	again.Token = invite.NewToken()
	for what, c := range map[string]struct {
		i    invite.Invite
		o    joinOptions
		want string
	}{
		"a name in use":           {invitation(t, "home", "wss://relay.example.org"), joinOptions{}, "--as"},
		"a petname in use":        {invitation(t, "blog", "wss://relay.example.org"), joinOptions{}, "--as"},
		"auto":                    {invitation(t, "auto", "wss://relay.example.org"), joinOptions{}, "--as"},
		"a key file in its place": {invitation(t, "mine", "wss://relay.example.org"), joinOptions{}, "left as it is"},
		"a path as name":          {invitation(t, "", "wss://relay.example.org"), joinOptions{as: "../x"}, "letters"},
		"without TLS":             {invitation(t, "new", "ws://relay.example.org"), joinOptions{}, "--allow-private"},
		"a private relay":         {invitation(t, "new", "wss://192.168.1.1", "wss://router.lan"), joinOptions{}, "--allow-private"},
		"the same exit":           {again, joinOptions{}, "--again"},
		"again, as another":       {again, joinOptions{again: true, as: "work"}, "leave out --as"},
		"a missing identity":      {invitation(t, "new", "wss://relay.example.org"), joinOptions{identity: filepath.Join(dir, "none")}, "keygen"},
	} {
		err := c.o.join(io.Discard, c.i, dir, map[string]string{"blog": first.Exit.NPub()})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), c.i.Token.Text()) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if after, err := os.ReadFile(filepath.Join(dir, "home.json")); err != nil || string(after) != string(before) {
		t.Errorf("the file has changed: %s, %v", after, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 3 {
		t.Errorf("files %v, %v", files, err)
	}
	// What the user says holds.
	if err := (&joinOptions{again: true}).join(io.Discard, again, dir, nil); err != nil {
		t.Error(err)
	}
	credentials, err := dialAs(upWith("home"), dir, false)
	if err != nil || credentials(first.Exit.Key).Token != again.Token.Text() {
		t.Errorf("after another invitation: %v", err)
	}
	if err := (&joinOptions{private: true}).join(io.Discard, invitation(t, "lab", "ws://192.168.1.1:7777"), dir, nil); err != nil {
		t.Error(err)
	}
	// A relay that may be used is enough, and the only one that is.
	mixed := invitation(t, "mixed", "ws://127.0.0.1", "wss://relay.example.org")
	if err := (&joinOptions{}).join(io.Discard, mixed, dir, nil); err != nil {
		t.Error(err)
	}
	cfg := upWith("mixed")
	if _, err := dialAs(cfg, dir, false); err != nil || !slices.Equal(cfg.Up.Relays, []string{"wss://relay.example.org"}) {
		t.Errorf("relays %q, %v", cfg.Up.Relays, err)
	}
}

// A joined exit whose files are wrong stops only those who want it.
func TestBadJoinedFiles(t *testing.T) {
	dir := t.TempDir()
	i := invitation(t, "home", "wss://relay.example.org")
	if err := (&joinOptions{}).join(io.Discard, i, dir, nil); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, "home.json"))
	if err != nil {
		t.Fatal(err)
	}
	other := upWith(envelopetest.NewKey(t).Public().NPub(), "wss://relay.example.org")
	for what, spoil := range map[string]func(path string) error{
		"others can read it": func(path string) error { return os.Chmod(path, 0o644) },
		"no JSON":            func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
		"a relay that is none": func(path string) error {
			return os.WriteFile(path, []byte(strings.Replace(string(good), "wss://", "file://", 1)), 0o600)
		},
		"no token": func(path string) error {
			return os.WriteFile(path, []byte(strings.Replace(string(good), i.Token.Text(), "", 1)), 0o600)
		},
		"an unknown key": func(path string) error {
			return os.WriteFile(path, []byte(strings.Replace(string(good), "{", `{"x":1,`, 1)), 0o600)
		},
		"long": func(path string) error { return os.WriteFile(path, make([]byte, maxJoinedFile+1), 0o600) },
	} {
		path := filepath.Join(dir, "home.json")
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		if _, err := dialAs(upWith("home"), dir, false); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := dialAs(other, dir, false); err != nil {
			t.Errorf("%s, for another exit: %v", what, err)
		}
	}
}

// The configuration's identity is for the configuration's exit alone.
func TestIdentityFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "me.key")
	me := keyFile(t, file)
	mine, other := envelopetest.NewKey(t).Public(), envelopetest.NewKey(t).Public()
	configured := func() *config.Config {
		cfg := upWith(mine.NPub(), "wss://relay.example.org")
		cfg.Up.IdentityFile = file
		return cfg
	}
	for _, c := range []struct {
		exit, identity string
		shown          envelope.PublicKey // who sees the identity
	}{
		{"", "", mine},
		{mine.NPub(), "", mine},
		{other.NPub(), "", envelope.PublicKey{}},
		{"auto", "", envelope.PublicKey{}},
		{other.NPub(), file, other},
	} {
		cfg := configured()
		if err := overrideExit(&cfg.Up, c.exit, nil, c.identity); err != nil {
			t.Fatal(err)
		}
		credentials, err := dialAs(cfg, dir, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []envelope.PublicKey{mine, other} {
			got := credentials(key).Identity
			if key == c.shown && (got == nil || got.Public() != me.Public()) || key != c.shown && got != nil {
				t.Errorf("--exit %q --identity %q: exit %s is shown %v", c.exit, c.identity, key, got)
			}
		}
	}
	if err := overrideExit(&configured().Up, "auto", nil, file); err == nil {
		t.Error("an identity is for whatever exit is chosen")
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := dialAs(configured(), dir, false); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key file that others can read: %v", err)
	}
}
