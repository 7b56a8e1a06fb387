package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
)

// A process with other names does not take the place of an exit, which goes on.
func TestTakeoverByAnotherExit(t *testing.T) {
	e := newTestExit(t, "names.blog = { key_file = \"DIR/blog.key\" }\n")
	blog, other := e.newKey("blog.key"), e.newKey("other")
	e.start(e.flags, "ready on "+e.relay+" (blog)")
	for _, test := range []struct {
		text, key string
		names     []string // in the error
	}{
		{"state_dir = \"DIR/key.state\"\n", "other", []string{e.key.NPub(), other.NPub()}},
		{"", "key", []string{blog.NPub(), e.key.NPub()}}, // it has lost a name
	} {
		e.write(test.text)
		next := e.flags
		next.keyPath, next.takeover = filepath.Join(e.dir, test.key), true
		err := runExit(t.Context(), io.Discard, &next)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%q takes over: %v", test.text, err)
		}
		for _, npub := range append(test.names, "drain") {
			if !strings.Contains(err.Error(), npub) {
				t.Errorf("no %s in %v", npub, err)
			}
		}
	}
	for _, path := range []string{"/save", "/drain"} {
		query := (&successor{npubs: []string{other.NPub(), e.key.NPub()}, version: "v2"}).query()
		if _, err := e.ask("POST", path+query); err == nil || !strings.Contains(err.Error(), blog.NPub()) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := e.ask("POST", path+"?successor=1"); err == nil || !strings.Contains(err.Error(), "does not say") {
			t.Errorf("%s of one that does not say its names: %v", path, err)
		}
	}
	if s := e.status(); s.State != "running" {
		t.Errorf("the exit is %s", s.State)
	}
	echo(t, dialFlow(t, e.entry(blog), echoServer(t)), "still there")
}

// What the clients use of a process that has yet to take over counts, once, also
// when it never does.
func TestTakeoverThatFails(t *testing.T) {
	began := time.Now().UTC().Month()
	e := newTestExit(t, "names.blog = { key_file = \"DIR/blog.key\" }\n")
	e.newKey("blog.key")
	old := e.start(e.flags, "ready on "+e.relay+" (blog)")
	alice, to := envelopetest.NewKey(t), echoServer(t)
	flow := dialFlow(t, e.wantIn("alice", showing(&alice, "")), to)
	echo(t, flow, "at the old one")

	e.write(fmt.Sprintf("names.blog = { key_file = \"DIR/blog.key\", relays = [\"ws://%s\"] }\n", to)) // no relay
	next := e.flags
	next.takeover = true
	e.relay = serveTestRelay(t, func(*config.Relay) {}).URL()
	next.relays = []string{e.relay}
	young := e.start(next, "ready on "+e.relay)
	echo(t, dialFlow(t, e.wantIn("alice at the new one", showing(&alice, "")), to), strings.Repeat("x", 2000))
	echo(t, flow, "at the old one again")
	young.stop()
	if err := <-young.ended; err != nil {
		t.Error(err)
	}
	old.stop()
	if err := <-old.ended; err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(filepath.Join(e.flags.keyPath+".state", exitUsageFile))
	if time.Now().UTC().Month() != began {
		t.Skip("a month has ended meanwhile")
	}
	if err != nil || !bytes.Contains(b, []byte(`"month":4068`)) {
		t.Errorf("kept: %s, %v", b, err)
	}
}

func TestSuccessorIsRead(t *testing.T) {
	s := &successor{[]string{"npub1a", "npub1b"}, "v1 & v2", 7, time.Now().UTC().Round(0)}
	q, err := url.ParseQuery(strings.TrimPrefix(s.query(), "?"))
	if err != nil {
		t.Fatal(err)
	}
	got := readSuccessor(q)
	if got == nil || fmt.Sprint(*got) != fmt.Sprint(*s) {
		t.Errorf("%+v", got)
	}
	if want := buildVersion() + " -> v1 & v2"; got.change() != want {
		t.Errorf("%q, want %q", got.change(), want)
	}
	if s := readSuccessor(url.Values{"npub": {"npub1a"}}); s != nil {
		t.Errorf("%+v", s)
	}
}

// What is started anew is what is at the path that the process was started by,
// whatever its own file is called now.
func TestProgramOfARestart(t *testing.T) {
	dir := t.TempDir()
	installed, moved, link, other := filepath.Join(dir, "nws-vpn"), filepath.Join(dir, "nws-vpn.bak"), filepath.Join(dir, "current"), filepath.Join(dir, "other")
	write := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(installed)
	write(other)
	if err := os.Symlink(installed, link); err != nil {
		t.Skip("no links here: ", err)
	}
	t.Setenv("PATH", dir)
	self := func(path string) func() (string, error) {
		return func() (string, error) { return path, nil }
	}
	for arg0, want := range map[string]string{
		installed: installed, "nws-vpn": installed, link: link, "current": link,
		other: installed, "nowhere": installed, "": installed, // not what this process is called
	} {
		if got := startedProgram(arg0, self(installed)); got != want {
			t.Errorf("started by %q: %q, want %q", arg0, got, want)
		}
	}

	if err := os.Rename(installed, moved); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ self, want string }{{moved, moved}, {moved + " (deleted)", moved}} {
		if got, err := nextProgram(installed, self(test.self)); got != test.want || err != nil {
			t.Errorf("nothing is installed, and this is %s: %q, %v", test.self, got, err)
		}
	}
	write(installed)
	if got, err := nextProgram(installed, self(moved)); got != installed || err != nil {
		t.Errorf("a new one is installed: %q, %v", got, err)
	}
	if got, err := nextProgram(filepath.Join(dir, "none"), func() (string, error) { return "", errors.New("gone") }); err == nil {
		t.Errorf("without any program: %q", got)
	}
}
