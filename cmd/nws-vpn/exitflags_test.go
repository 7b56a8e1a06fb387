package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What the command line hides of the configuration is told, for the shipped unit
// names a key: whoever configures another one looks for it in vain.
func TestExitFlagsHide(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nws.toml")
	text := "[exit]\nkey_file = \"/a/key\"\nstate_dir = \"/a/state\"\nmode = \"session\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := exitFlags{configFlags: configFlags{file: file}, relays: []string{"ws://127.0.0.1:1"}, metrics: "127.0.0.1:2", mode: "auto", stateDir: "/a/state"}
	for path, want := range map[string][]string{"": nil, "/a/key": nil, "/b/key": {"exit.key_file"}} {
		flags.keyPath = path
		c, err := flags.load()
		if err != nil {
			t.Fatal(err)
		}
		if path != "" && c.Exit.KeyFile != path || !slices.Equal(flags.hidden, want) {
			t.Errorf("--key %q: %s is used and %q hidden, want %q", path, c.Exit.KeyFile, flags.hidden, want)
		}
	}
}
