package castore

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
)

// debian returns a store as Debian's, in a directory of the test's, which its
// own program builds; bundle is what programs read.
func debian(t *testing.T) (s *Store, bundle func() string) {
	t.Helper()
	program, err := exec.LookPath("update-ca-certificates")
	if err != nil {
		t.Skip(err)
	}
	root := t.TempDir()
	dir := func(name string) string {
		path := filepath.Join(root, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	local, etc := dir("local"), dir("etc")
	// Somebody else's, without which the program builds nothing.
	if err := os.WriteFile(filepath.Join(local, "other.crt"), authority(t), 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(root, "config")
	if err := os.WriteFile(config, []byte("# none\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	update := []string{program, "--localcertsdir", local, "--etccertsdir", etc, "--certsdir", dir("certs"), "--hooksdir", dir("hooks"), "--certsconf", config}
	bundle = func() string {
		text, err := os.ReadFile(filepath.Join(etc, "ca-certificates.crt"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(text)
	}
	return &Store{Dir: local, Update: update, Refresh: append(update, "--fresh")}, bundle
}

func authority(t *testing.T) []byte {
	t.Helper()
	a, err := cert.OpenAuthority(filepath.Join(t.TempDir(), "authority"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a.PEM()
}

func TestInstallAndRemove(t *testing.T) {
	s, bundle := debian(t)
	first, second := authority(t), authority(t)
	if removed, err := s.Remove(); removed || err != nil {
		t.Errorf("nothing to remove: %v, %v", removed, err)
	}
	for _, pem := range [][]byte{first, first, second} {
		if err := s.Install(pem); err != nil {
			t.Fatal(err)
		}
		if !s.Installed(pem) || strings.Count(bundle(), "BEGIN CERTIFICATE") != 2 || !strings.Contains(bundle(), string(pem)) {
			t.Errorf("installed %v, the bundle is %q", s.Installed(pem), bundle())
		}
	}
	if s.Installed(first) {
		t.Error("what was replaced counts as installed")
	}
	info, err := os.Stat(s.Path())
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v: others cannot read it", info, err)
	}
	if removed, err := s.Remove(); !removed || err != nil {
		t.Errorf("removed %v, %v", removed, err)
	}
	if s.Installed(second) || strings.Count(bundle(), "BEGIN CERTIFICATE") != 1 || strings.Contains(bundle(), string(second)) {
		t.Errorf("after Remove the bundle is %q", bundle())
	}
	left, err := os.ReadDir(s.Dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFailures(t *testing.T) {
	program := filepath.Join(t.TempDir(), "update")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho first\necho no room >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := &Store{Dir: t.TempDir(), Update: []string{program}, Refresh: []string{program}}
	err := s.Install([]byte("x"))
	if err == nil || !strings.Contains(err.Error(), "no room") || strings.Contains(err.Error(), "first") {
		t.Errorf("the update fails: %v", err)
	}
	if s.Installed([]byte("x")) {
		t.Error("what could not be installed is left behind")
	}
	s.Dir = filepath.Join(s.Dir, "none")
	if err := s.Install([]byte("x")); err == nil || !strings.Contains(err.Error(), s.Dir) {
		t.Errorf("without a directory: %v", err)
	}
}
