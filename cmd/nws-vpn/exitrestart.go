package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/service"
)

// restartTimeout bounds how long a new process may take until it has taken over.
const restartTimeout = 90 * time.Second

// restart starts the program anew, as it is on disk now, with the same command
// line, and returns when that process has taken over. Until then nothing changes
// here: if the new one fails, this one stays. It says from which version to which
// that leads.
func (r *exitRun) restart(ctx context.Context) (change string, err error) {
	if !r.restarting.TryLock() {
		return "", errors.New("a restart is under way already")
	}
	defer r.restarting.Unlock()
	if r.isDraining() {
		return "", errors.New("the exit is draining")
	}
	program, err := nextProgram(r.program, os.Executable)
	if err != nil {
		return "", err
	}
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool { return strings.HasPrefix(arg, "--takeover") })
	next := exec.Command(program, append(args, "--takeover")...)
	next.Stdout, next.Stderr = os.Stdout, os.Stderr
	if err := next.Start(); err != nil {
		return "", fmt.Errorf("the new process does not start, and this one stays: %w", err)
	}
	r.log.Info("a new process is to take over", "pid", next.Process.Pid, "program", program)
	child := &startedExit{pid: next.Process.Pid, ended: make(chan struct{}), kill: next.Process.Kill}
	go func() {
		child.err = next.Wait()
		close(child.ended)
	}()
	// Whoever asked may go; what was begun is brought to its end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restartTimeout)
	defer cancel()
	if err := r.letIn(ctx, child); err != nil {
		return "", err
	}
	return r.inherited().change(), nil
}

// startedExit is a process that was started to take over.
type startedExit struct {
	pid   int
	kill  func() error
	ended chan struct{}
	err   error // of its end, once ended is closed
}

// letIn returns when the new process has taken over. It ends that if it has not before
// the end of ctx, or when this process is to end without a successor.
func (r *exitRun) letIn(ctx context.Context, next *startedExit) (err error) {
	select {
	case <-r.replaced:
	case <-next.ended:
		err = fmt.Errorf("the new process has ended (%v) and this one stays: its log says why", next.err)
	case <-r.leaving:
		err = errors.New("the exit is to end, so the new process is ended too")
	case <-ctx.Done():
		err = errors.New("the new process reached no relay in time, and this one stays")
	}
	if err != nil && r.refuseSuccessors(true) {
		defer r.refuseSuccessors(false)
		_ = next.kill()
		<-next.ended
		return err
	}
	// It takes over in this moment, if it has not.
	select {
	case <-r.replaced:
	case <-next.ended:
		return fmt.Errorf("the new process has ended (%v) when it took over, and this one ends with its flows: start the exit again", next.err)
	case <-time.After(2 * drainWithin):
		return errors.New("the new process takes over, but this one does not let go: `nws-vpn exit status` tells which one answers")
	}
	// Its own word would not count: it is not yet the service's main process.
	service.Current().Notify(fmt.Sprintf("MAINPID=%d", next.pid))
	return nil
}

// inherited is who has taken over.
func (r *exitRun) inherited() *successor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heir
}

// startedProgram is the path that this process was started by, which stays when
// the file is given another name, so that a new one can be put in its place. It is
// that of the file itself when arg0 leads elsewhere.
func startedProgram(arg0 string, self func() (string, error)) string {
	running, err := self()
	if err != nil {
		return ""
	}
	path, err := exec.LookPath(arg0)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil || !sameFile(path, running) {
		return running
	}
	return path
}

// nextProgram is what to start in the place of a program that was started by a
// path: what is there now, or else the same program again.
func nextProgram(started string, self func() (string, error)) (string, error) {
	if info, err := os.Stat(started); err == nil && info.Mode().IsRegular() {
		return started, nil
	}
	path, err := self()
	if err != nil {
		return "", fmt.Errorf("there is no program %s to start: %w", started, err)
	}
	// What Linux adds to the path of a program that was replaced by another.
	return strings.TrimSuffix(path, " (deleted)"), nil
}

// refuseSuccessors has no process take over, or any again. It reports false when
// one does already.
func (r *exitRun) refuseSuccessors(refuse bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if refuse && r.heir != nil {
		return false
	}
	r.noSuccessor = refuse
	return true
}

func exitRestartCommand() *cobra.Command {
	var socket exitSocket
	cmd := &cobra.Command{
		Use:   "restart",
		Short: "Replace the running exit by a new process without cutting flows",
		Long: `Has the running exit start the program anew, as it is installed now, with the
same command line and the configuration as it is now. The new process serves those
who come from then on; the old one ends when its flows have. If the new one cannot
start, the old one stays.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			change, err := socket.ask(cmd.Context(), restartTimeout+askPatience, http.MethodPost, "/restart")
			if err != nil {
				return err
			}
			text := "restarted"
			if len(change) > 0 {
				text += ": " + oneLine(string(change))
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
	socket.add(cmd)
	return cmd
}
