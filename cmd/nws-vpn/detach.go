package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// readyFD is the descriptor on which a detached child tells its parent how
// starting went: the line "ready", or one line with the error.
const readyFD = 3

// detachedEnv marks the child of --detach.
const detachedEnv = "NWS_VPN_DETACHED"

const logName = "up.log"

// detach starts this command again in a session of its own, with its log in
// the state directory, and returns once the child is usable or has failed.
func detach(stateDir string) error {
	log, err := openLog(stateDir)
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer log.Close()
	ready, childEnd, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer ready.Close()
	self, err := os.Executable()
	if err != nil {
		childEnd.Close()
		return fmt.Errorf("detach: %w", err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), detachedEnv+"=1")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{childEnd}
	cmd.SysProcAttr = newSession()
	err = cmd.Start()
	childEnd.Close()
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	line, err := bufio.NewReader(ready).ReadString('\n')
	switch line = strings.TrimSpace(line); {
	case line == "ready":
		return cmd.Process.Release()
	case line != "":
		cmd.Wait()
		return errors.New(line)
	}
	cmd.Wait()
	return fmt.Errorf("the background process ended without a word (%v): see %s", err, log.Name())
}

// openLog opens the log for appending, in a state directory that only we can put
// something into: else root would write where somebody's link leads.
func openLog(stateDir string) (*os.File, error) {
	if err := openOwnDir(stateDir); err != nil {
		return nil, fmt.Errorf("the state directory: %w", err)
	}
	path := filepath.Join(stateDir, logName)
	switch info, err := os.Lstat(path); { // nobody else can change what it is meanwhile
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular(), isForeign(info):
		return nil, fmt.Errorf("%s is not a file of ours: look who has made it, and remove it", path)
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// isDetached reports whether this process is the child of --detach.
func isDetached() bool { return os.Getenv(detachedEnv) != "" }

// reportReady tells the parent of a detached process how starting went.
func reportReady(err error) {
	if !isDetached() || isRestarted() { // then the descriptor is something else by now
		return
	}
	f := os.NewFile(readyFD, "ready")
	if f == nil {
		return
	}
	defer f.Close()
	line := "ready"
	if err != nil {
		line = oneLine(err.Error())
	}
	fmt.Fprintln(f, line)
}
