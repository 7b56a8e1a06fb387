package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A running exit is found also when its configuration has become unreadable.
func TestExitIsFoundWithoutItsConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "nws.toml")
	if err := os.WriteFile(file, []byte("[exit\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, want, notes string }{
		{"exit status --config " + file + " --state-dir " + dir, "no exit runs with the state directory " + dir, ""},
		{"exit status --config " + file, "name the exit's state directory with --state-dir", ""},
		{"exit blocked --config " + file + " --state-dir " + dir, "nws.toml:", ""}, // needs it
	} {
		cmd, notes := root(), new(bytes.Buffer)
		cmd.SetErr(notes)
		cmd.SetArgs(strings.Fields(test.args))
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("nws-vpn %s: %v, want %q", test.args, err, test.want)
		}
		if got := notes.String(); strings.Count(got, "going on without") > 1 || !strings.Contains(got, test.notes) {
			t.Errorf("nws-vpn %s: said %q, want %q", test.args, got, test.notes)
		}
	}
}
