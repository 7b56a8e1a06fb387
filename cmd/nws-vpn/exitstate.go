package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/service"
)

// What is in an exit's state directory, beside the control socket.
const exitUsageFile = "usage.json" // of the clients' quotas

// exitServiceDir is the state directory of the unit nws-vpn-exit.service.
const exitServiceDir = "/var/lib/nws-vpn-exit"

// exitStateDir is where an exit keeps its socket and what it remembers: as
// configured, as systemd says, or beside its key.
func exitStateDir(e *config.Exit, getenv func(string) string) string {
	if dir := setStateDir(e, getenv); dir != "" {
		return dir
	}
	return e.KeyFile + ".state"
}

// setStateDir is the state directory as configured, or as systemd says, or "".
func setStateDir(e *config.Exit, getenv func(string) string) string {
	if e.StateDir != "" {
		return e.StateDir
	}
	return service.StateDir(getenv)
}

// isExitState reports whether an exit has used a directory, as far as can be seen.
func isExitState(dir string) bool {
	for _, file := range []string{control.SocketName, exitUsageFile, exitAdmissionFile} {
		if _, err := os.Lstat(filepath.Join(dir, file)); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// openExitState makes the state directory, and refuses one that others could
// have put something into.
func openExitState(dir string) error {
	if err := openOwnDir(dir); err != nil {
		return fmt.Errorf("the exit's state directory: %w", err)
	}
	return nil
}

// openOwnDir makes a state directory, and refuses one that others could have put
// something into, or whose name is a link of theirs.
func openOwnDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("%w: name another one with --state-dir", err)
	}
	link, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is none: name another one with --state-dir", dir)
	case isForeign(info), isForeign(link):
		return fmt.Errorf("%s belongs to another user, who could put something into it: name another one with --state-dir", dir)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others can write to %s (mode %04o): run `chmod 700 %s`", dir, info.Mode().Perm(), dir)
	}
	return nil
}
