package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// readyFD is the descriptor on which a detached child tells its parent how
// starting went: wordReady, wordEnded and how the machine is, or an error.
const readyFD = 3

// The words of a detached child. What follows the second, after a blank, is for
// the user.
const (
	wordReady = "ready"
	wordEnded = "ended"
)

// detachedEnv marks the child of --detach.
const detachedEnv = "NWS_VPN_DETACHED"

const logName = "up.log"

// detach starts this command again in a session of its own, with its log in
// the state directory, and returns once the child is usable or has failed. A
// signal ends the child, and a second one the wait for its end.
func detach(ctx context.Context, stateDir string) error {
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
	signals := make(chan os.Signal, 2)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // as after nohup
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	if ctx.Err() != nil {
		childEnd.Close()
		return errors.New("interrupted: nothing was changed")
	}
	err = cmd.Start()
	childEnd.Close()
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	return (&background{cmd, log.Name(), stateDirs{stateDir}}).await(ready, signals)
}

// background is a detached child, seen from its parent.
type background struct {
	cmd  *exec.Cmd
	log  string
	dirs stateDirs
}

// await waits until the child says that it is ready, or has ended.
func (b *background) await(ready io.Reader, signals <-chan os.Signal) error {
	words, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(ready, maxWords))
		words <- string(bytes.TrimSpace(text))
	}()
	go func() { ended <- b.cmd.Wait() }()
	interrupted, said := false, ""
	heard := words
	for heard != nil || interrupted || said != wordReady {
		select {
		case said = <-heard:
			heard = nil
		case err := <-ended:
			if heard != nil {
				said = <-heard
			}
			return b.conclude(said, err, interrupted)
		case <-signals:
			if interrupted {
				return errors.New("interrupted again, and the background process is not at its end yet: `nws-vpn down` ends it")
			}
			interrupted = true
			if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("interrupted, and the background process cannot be ended (%w): `nws-vpn down` ends it", err)
			}
		}
	}
	return nil
}

// maxWords bounds what a child says.
const maxWords = 64 << 10

// conclude is what is to be said of a child that has ended.
func (b *background) conclude(said string, err error, interrupted bool) error {
	after, early := strings.CutPrefix(said, wordEnded+" ")
	var exit *exec.ExitError
	switch {
	case interrupted && early:
		return fmt.Errorf("interrupted: %s", after)
	case interrupted && said == wordReady:
		return errors.New("interrupted as it had just connected, and ended: see " + b.log)
	case interrupted && said == "" && errors.As(err, &exit) && killedBy(exit.ProcessState, syscall.SIGTERM):
		if _, closed := b.dirs.recall(); closed { // it was about to begin anew
			return errors.New("interrupted, and the machine is closed: `nws-vpn down` opens it")
		}
		return errors.New("interrupted: the machine is as it was") // it had not begun
	case early:
		return fmt.Errorf("ended before it was connected: %s", after)
	case said != "":
		return errors.New(said)
	}
	return fmt.Errorf("the background process ended without a word (%v): see %s; `nws-vpn down` undoes what it may have left", err, b.log)
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

// readiness is how a detached child tells its parent how starting went. A nil one
// has nobody to tell.
type readiness struct{ pipe *os.File }

// readyEnv tells a process that takes the place of a detached child (see restart)
// on which descriptor the parent still waits.
const readyEnv = "NWS_VPN_READY"

// openReadiness is called once, before the process opens anything else.
func openReadiness() *readiness {
	if !isDetached() {
		return nil
	}
	fd := readyFD
	if isRestarted() { // then that descriptor is something else by now
		var err error
		if fd, err = strconv.Atoi(os.Getenv(readyEnv)); err != nil {
			return nil
		}
	}
	return &readiness{inherited(fd, "ready")}
}

// leave has the process that takes the place of this one tell the parent, if that
// still waits.
func (r *readiness) leave() error {
	if r == nil || r.pipe == nil {
		return os.Unsetenv(readyEnv)
	}
	fd, err := inheritable(r.pipe)
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	return os.Setenv(readyEnv, strconv.Itoa(fd))
}

// tell has the parent know. Only the first words count.
func (r *readiness) tell(words string) {
	if r == nil || r.pipe == nil {
		return
	}
	fmt.Fprintln(r.pipe, words)
	r.pipe.Close()
	r.pipe = nil
}
