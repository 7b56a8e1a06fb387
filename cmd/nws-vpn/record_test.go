package main

import (
	"os"
	"path/filepath"
	"testing"

	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
)

func TestRecord(t *testing.T) {
	dirs := stateDirs{dir: filepath.Join(t.TempDir(), "state")}
	if r, found := dirs.recall(); found {
		t.Fatalf("found %v where nothing is", r)
	}
	if err := dirs.forget(); err != nil {
		t.Errorf("forget nothing: %v", err)
	}
	if err := dirs.remember(record{KillSwitch: lifecycle.Lockdown}); err != nil {
		t.Fatal(err)
	}
	if r, found := dirs.recall(); !found || r.KillSwitch != lifecycle.Lockdown {
		t.Errorf("recalled %v, %v", r, found)
	}
	path := filepath.Join(dirs.run(), recordName)
	for text, want := range map[string]bool{
		`{"kill_switch":"lockdown","boot":"another"}`: false, // the machine was restarted
		`{"kill_switch":`: true, // half a record: closed, to be safe
		``:                true,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, found := dirs.recall(); found != want {
			t.Errorf("%q is recalled as %v, %v", text, r, found)
		}
	}
	if err := dirs.forget(); err != nil {
		t.Fatal(err)
	}
	if _, found := dirs.recall(); found {
		t.Error("found after it was forgotten")
	}
}
