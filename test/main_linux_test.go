package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// binary is the path of the nws-vpn under test, empty when none was built.
var binary string

func TestMain(m *testing.M) {
	if as := os.Getenv(relayAs); as != "" {
		fmt.Fprintln(os.Stderr, serveAsRelay(as))
		os.Exit(1)
	}
	if as := os.Getenv(referenceAs); as != "" {
		fmt.Fprintln(os.Stderr, serveAsReference(as))
		os.Exit(1)
	}
	remove, err := buildBinary()
	if err != nil {
		fmt.Fprintln(os.Stderr, "test: build nws-vpn:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		remove()
		os.Exit(code)
	}))
}

// buildBinary builds nws-vpn once for all tests, with the race detector when
// the tests themselves have it. NWS_BINARY in the environment names one that is
// already there.
func buildBinary() (remove func(), err error) {
	if os.Geteuid() != 0 {
		return func() {}, nil
	}
	if binary = os.Getenv("NWS_BINARY"); binary != "" {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "nws-vpn-test-")
	if err != nil {
		return nil, err
	}
	binary = filepath.Join(dir, "nws-vpn")
	args := []string{"build", "-trimpath", "-o", binary}
	env := append(os.Environ(), "CGO_ENABLED=0")
	if raceEnabled {
		// A program with the race detector otherwise ends a second late.
		os.Setenv("GORACE", "atexit_sleep_ms=0")
		args, env = append(args, "-race"), append(os.Environ(), "CGO_ENABLED=1")
	}
	cmd := exec.Command("go", append(args, "github.com/nws-vpn/nws-vpn/cmd/nws-vpn")...)
	cmd.Env, cmd.Stderr = env, os.Stderr
	if err := cmd.Run(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return func() { os.RemoveAll(dir) }, nil
}
