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
	ended := make(chan error, 1)
	go func() { ended <- next.Wait() }()
	// Whoever asked may go; what was begun is brought to its end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restartTimeout)
	defer cancel()
	select {
	case <-r.replaced:
		// Its own word would not count: it is not yet the service's main process.
		service.Current().Notify(fmt.Sprintf("MAINPID=%d", next.Process.Pid))
		return r.inherited().change(), nil
	case err := <-ended:
		return "", fmt.Errorf("the new process has ended (%v) and this one stays: its log says why", err)
	case <-ctx.Done():
		if !r.refuseSuccessors(true) {
			return "", nil // it takes over in this moment
		}
		defer r.refuseSuccessors(false)
		_ = next.Process.Kill()
		<-ended
		return "", errors.New("the new process reached no relay in time, and this one stays")
	}
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
// one is about to.
func (r *exitRun) refuseSuccessors(refuse bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if refuse && !r.draining.since.IsZero() {
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
