package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/castore"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
)

func TestTrust(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no true")
	}
	dir := t.TempDir()
	store := &castore.Store{Dir: dir, Update: []string{"true"}, Refresh: []string{"true"}}
	known := true
	tr := &trust{dirs: stateDirs{filepath.Join(t.TempDir(), "state")}, store: func() (*castore.Store, error) {
		if !known {
			return nil, castore.ErrUnknown
		}
		return store, nil
	}}
	var out, notes bytes.Buffer
	fails := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", what, err, want)
		}
	}
	fails("install before create", tr.install(&out, &notes), "trust create")
	fails("show before create", tr.show(&out, &notes), "trust create")
	if err := tr.remove(&out, &notes); err != nil || !strings.Contains(out.String(), "there is no authority") {
		t.Errorf("nothing to remove: %v, %q", err, out.String())
	}
	wanted := config.Default()
	wanted.Up.TrustSites = true
	_, err := new(tunnel).presentSites(nil, nil, nil, wanted, tr.dirs, nil)
	fails("up before create", err, "trust create")
	if err := tr.create(&out, &notes); err != nil {
		t.Fatal(err)
	}
	fails("create again", tr.create(&out, &notes), "exists already")
	show := func(want string) []byte {
		t.Helper()
		out.Reset()
		notes.Reset()
		if err := tr.show(&out, &notes); err != nil || !strings.Contains(notes.String(), want) {
			t.Errorf("show: %v, notes %q, want %q", err, notes.String(), want)
		}
		if strings.Contains(out.String(), "PRIVATE") {
			t.Error("the private key is shown")
		}
		return bytes.Clone(out.Bytes())
	}
	pem := show("trust install")
	a, err := cert.OpenAuthority(tr.dirs.authorityPath(), time.Now())
	if err != nil || !bytes.Equal(pem, a.PEM()) {
		t.Errorf("shown: %q, %v", pem, err)
	}
	if err := tr.install(&out, &notes); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(store.Path()); err != nil || !bytes.Equal(text, pem) {
		t.Errorf("installed: %q, %v", text, err)
	}
	show("in the system's store, as " + store.Path())
	known = false
	show("is not known")
	if err := tr.install(&out, &notes); !errors.Is(err, castore.ErrUnknown) {
		t.Errorf("on a strange system: %v", err)
	}
	known = true
	if err := tr.remove(&out, &notes); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{store.Path(), tr.dirs.authorityPath()} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", path, err)
		}
	}
}
