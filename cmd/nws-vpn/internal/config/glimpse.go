package config

import (
	"io"
	"os"

	"github.com/BurntSushi/toml"
)

// GlimpseExit reads of a file that Load refuses what it says about where its exit
// is: KeyFile and StateDir, and nothing else. They are empty when it does not say,
// or cannot be read at all. An empty path stands for Path.
func GlimpseExit(path string) *Exit {
	if path == "" {
		path = Path()
	}
	e := new(Exit)
	f, err := os.Open(path)
	if err != nil {
		return e
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return e
	}
	var tree map[string]any
	if toml.Unmarshal(text, &tree) != nil {
		return e
	}
	section, _ := tree["exit"].(map[string]any)
	if key, _ := section["key_file"].(string); CheckKeyFile(key) == nil {
		e.KeyFile = key
	}
	e.StateDir, _ = section["state_dir"].(string)
	return e
}
