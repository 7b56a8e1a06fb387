package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGlimpseExit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nws.toml")
	for _, test := range []struct{ text, key, state string }{
		{"[exit]\nkey_file = \"/k\"\nstate_dir = \"/s\"\nmax_flow = 1\n", "/k", "/s"},
		{"log_level = 7\n[exit]\nkey_file = \"/k\"\n", "/k", ""},
		{"[exit]\nkey_file = 1\nstate_dir = [\"/s\"]\n", "", ""},
		{"[exit]\nkey_file = \"" + strings.Repeat("0", 64) + "\"\n", "", ""}, // the key itself
		{"exit = 1\n", "", ""},
		{"[exit\n", "", ""},
	} {
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if e := GlimpseExit(file); e.KeyFile != test.key || e.StateDir != test.state {
			t.Errorf("%q: %q, %q", test.text, e.KeyFile, e.StateDir)
		}
	}
	if e := GlimpseExit(file + ".none"); e.KeyFile != "" || e.StateDir != "" {
		t.Errorf("of no file: %+v", e)
	}
}
