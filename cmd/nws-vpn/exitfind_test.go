package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// Who names an exit gets that one or an error, and never the unit's.
func TestFindExit(t *testing.T) {
	dir := t.TempDir()
	service := filepath.Join(dir, "service")
	for _, d := range []string{service, filepath.Join(dir, "ran.state")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"ran", "new", "service/exit.key"} {
		if err := os.WriteFile(filepath.Join(dir, key), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		what       string
		key, state string // of the configuration, with the flags over it
		byKey      bool
		byFile     bool
		systemd    string
		want       string // a directory, or what the error says
	}{
		{what: "nothing", want: "service"},
		{what: "a configuration that is there by default, of no exit that has run", key: "new", want: "service"},
		{what: "one of an exit that has run", key: "ran", want: "ran.state"},
		{what: "a key", key: "ran", byKey: true, want: "ran.state"},
		{what: "a mistyped key", key: "rann", byKey: true, want: "there is no key file"},
		{what: "a mistyped key, with a state_dir", key: "rann", state: "s", byKey: true, want: "there is no key file"},
		{what: "a mistyped key, in a service", key: "rann", systemd: "/run/s", byKey: true, want: "there is no key file"},
		{what: "a key that never ran", key: "new", byKey: true, want: "no exit has run with the key"},
		{what: "the unit's key", key: "service/exit.key", byKey: true, want: "service"},
		{what: "a configuration", key: "ran", byFile: true, want: "ran.state"},
		{what: "a configuration with a mistyped key", key: "rann", byFile: true, want: "there is no key file"},
		{what: "a configuration of an exit that never ran", key: "new", byFile: true, want: "no exit has run with the key"},
		{what: "a configuration with a state_dir", key: "rann", state: "s", byFile: true, want: "s"},
		{what: "a configuration of no exit", byFile: true, want: "does not say which exit"},
		{what: "a configuration of no exit, in a service", byFile: true, systemd: "/run/s", want: "/run/s"},
	} {
		f := exitFinder{
			service: service, key: test.byKey, file: test.byFile,
			getenv: func(name string) string { return map[string]string{"STATE_DIRECTORY": test.systemd}[name] },
		}
		e := &config.Exit{StateDir: test.state}
		if test.key != "" {
			e.KeyFile = filepath.Join(dir, test.key)
		}
		got, err := f.find(e)
		if err != nil {
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v, want %q", test.what, err, test.want)
			}
			continue
		}
		if got != test.want && got != filepath.Join(dir, test.want) {
			t.Errorf("%s: %s, want %s", test.what, got, test.want)
		}
	}
}

// ranApart runs a command and returns what it says for programs and for people.
func ranApart(t *testing.T, args ...string) (out, notes string, err error) {
	t.Helper()
	cmd := root()
	var stdout, stderr bytes.Buffer
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

// A directory that no exit has used gets no bans, unless the key says that it is
// the exit's.
func TestBanWithoutAnExit(t *testing.T) {
	dir := t.TempDir()
	npub := envelopetest.NewKey(t).Public().NPub()
	if out, _, err := ranApart(t, "exit", "block", npub, "--state-dir", dir); err == nil || !strings.Contains(err.Error(), "no exit's state directory") {
		t.Errorf("block: %q, %v", out, err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("in the directory: %v, %v", list, err)
	}
	e := newTestExit(t, "admission = \"allowlist\"\n")
	if err := os.Mkdir(e.flags.keyPath+".state", 0o700); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"no exit has used", ""} {
		_, notes, err := ranApart(t, "exit", "block", npub, "--config", e.flags.file, "--key", e.flags.keyPath)
		if err != nil || !strings.Contains(notes, want) || want == "" && notes != "" {
			t.Errorf("ban %d: said %q, %v; want %q", i, notes, err, want)
		}
	}
}

// A configuration that leads to the directory of another exit than the key's does
// not lead to that exit.
func TestKeyOfAnotherExit(t *testing.T) {
	e := newTestExit(t, "state_dir = \"DIR/state\"\n")
	e.newKey("other")
	e.start(e.flags, "ready")
	npub := envelopetest.NewKey(t).Public().NPub()
	for _, command := range [][]string{{"drain"}, {"block", npub}} {
		args := append(append([]string{"exit"}, command...), "--config", e.flags.file, "--key", filepath.Join(e.dir, "other"))
		if out, _, err := ranApart(t, args...); err == nil || !strings.Contains(err.Error(), e.key.NPub()) {
			t.Errorf("%q: %q, %v", args, out, err)
		}
	}
	e.mustOperate("blocked")
	if _, err := control.Do(t.Context(), filepath.Join(e.dir, "state"), "GET", "/alive"); err != nil {
		t.Error(err)
	}
}

// A configuration with a mistake is the exit's to judge, and what it says about
// where that is counts.
func TestReloadOfAMistake(t *testing.T) {
	e := newTestExit(t, "")
	e.start(e.flags, "ready")
	broken := "key_file = \"DIR/key\"\nmax_flow = 1\n"
	e.write(broken)
	out, notes, err := ranApart(t, "exit", "reload", "--config", e.flags.file)
	if err == nil || !strings.Contains(err.Error(), "exit.max_flow") || strings.Contains(err.Error(), "\n") || out+notes != "" {
		t.Errorf("%q, %q, %v", out, notes, err)
	}
	e.write(broken + "[")
	out, notes, err = ranApart(t, "exit", "reload", "--config", e.flags.file)
	if err == nil || !strings.Contains(err.Error(), "nws.toml:6") || strings.Contains(err.Error(), "\n") || out+notes != "" {
		t.Errorf("%q, %q, %v", out, notes, err)
	}
	out, notes, err = ranApart(t, "exit", "reload", "--config", e.flags.file, "--key", e.flags.keyPath)
	if err == nil || !strings.Contains(err.Error(), "nws.toml:6") || out+notes != "" {
		t.Errorf("%q, %q, %v", out, notes, err)
	}
}
