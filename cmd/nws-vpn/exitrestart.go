package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// restartTimeout bounds how long a new process may take until it has taken over.
const restartTimeout = 90 * time.Second

// restart starts the program anew, as it is on disk now, with the same command
// line, and returns when that process has taken over. Until then nothing changes
// here: if the new one fails, this one stays.
func (r *exitRun) restart(ctx context.Context) error {
	if !r.restarting.TryLock() {
		return errors.New("a restart is under way already")
	}
	defer r.restarting.Unlock()
	if r.isDraining() {
		return errors.New("the exit is draining")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// What Linux adds to the path of a program that was replaced by another.
	self = strings.TrimSuffix(self, " (deleted)")
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool { return strings.HasPrefix(arg, "--takeover") })
	next := exec.Command(self, append(args, "--takeover")...)
	next.Stdout, next.Stderr = os.Stdout, os.Stderr
	if err := next.Start(); err != nil {
		return fmt.Errorf("start the new process: %w", err)
	}
	r.log.Info("a new process is to take over", "pid", next.Process.Pid)
	ended := make(chan error, 1)
	go func() { ended <- next.Wait() }()
	// Whoever asked may go; what was begun is brought to its end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restartTimeout)
	defer cancel()
	select {
	case <-r.replaced:
		// Its own word would not count: it is not yet the service's main process.
		underServiceManager().notify(fmt.Sprintf("MAINPID=%d", next.Process.Pid))
		return nil
	case err := <-ended:
		return fmt.Errorf("the new process has ended (%v) and this one stays: its log says why", err)
	case <-ctx.Done():
		if !r.refuseSuccessors(true) {
			return nil // it takes over in this moment
		}
		defer r.refuseSuccessors(false)
		_ = next.Process.Kill()
		<-ended
		return errors.New("the new process reached no relay in time, and this one stays")
	}
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
			_, err := socket.ask(cmd.Context(), http.MethodPost, "/restart")
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "restarted")
			}
			return err
		},
	}
	socket.add(cmd)
	return cmd
}
