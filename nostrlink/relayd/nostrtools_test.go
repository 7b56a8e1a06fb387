package relayd_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// TestNostrTools uses the relay with the client that most web programs use. It
// needs Node and the packages that testdata names, in exactly those versions.
func TestNostrTools(t *testing.T) {
	if testing.Short() {
		t.Skip("installs packages")
	}
	missing := t.Skipf
	if os.Getenv("NWS_REQUIRE_INTEGRATION") == "1" {
		missing = t.Fatalf
	}
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			missing("needs %s: %v", program, err)
			return
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()
	for _, file := range []string{"package.json", "client.js"} {
		text, err := os.ReadFile(filepath.Join("testdata", "nostrtools", file))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"); err != nil {
		missing("npm could not install nostr-tools, perhaps for want of a network: %v\n%s", err, out)
		return
	}
	url, _ := start(t, relayd.Options{Keep: relayd.AllKinds()})
	if out, err := run("node", "client.js", url); err != nil || !strings.HasSuffix(out, "ok\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
