package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/platform"
)

// maxRollback bounds --rollback-after.
const maxRollback = 24 * time.Hour

// rollback is a second process that puts the machine back when nobody confirms
// in time. It does so too when this one hangs or was killed: whoever set up a
// remote machine has no other way back to it.
type rollback struct {
	guard int           // process number
	ended chan struct{} // closed when the guard has ended

	mu   sync.Mutex
	pipe *os.File // to the guard; nil once it is not needed any more
}

// rollbackEnv tells a process that takes the place of this one (see restart) that
// there is a guard already, by its process number and the pipe's descriptor, or
// that it was let go.
const rollbackEnv = "NWS_VPN_ROLLBACK"

// The words of the pipe to the guard. Its end without a word means that the
// tunnel's process is gone.
const wordConfirmed = "confirmed"

// guardRollback starts the guard, unless an earlier process in the place of this
// one has. It is nil when that was confirmed.
func guardRollback(dirs stateDirs, after time.Duration, closed bool) (*rollback, error) {
	if left := os.Getenv(rollbackEnv); left != "" && isRestarted() {
		return inheritRollback(left)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"rollback-guard", "--after", after.String(), "--parent", strconv.Itoa(os.Getpid())}
	if dirs.dir != "" {
		args = append(args, "--state-dir", dirs.dir)
	}
	if closed {
		args = append(args, "--stay-closed")
	}
	in, pipe, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("--rollback-after: %w", err)
	}
	defer in.Close()
	cmd := exec.Command(self, args...)
	cmd.Stdin, cmd.Stderr = in, os.Stderr
	cmd.SysProcAttr = newSession()
	if err := cmd.Start(); err != nil {
		pipe.Close()
		return nil, fmt.Errorf("--rollback-after: %w", err)
	}
	return newRollback(cmd.Process, pipe), nil
}

// newRollback takes over the guard and the pipe to it.
func newRollback(guard *os.Process, pipe *os.File) *rollback {
	r := &rollback{guard: guard.Pid, pipe: pipe, ended: make(chan struct{})}
	go func() {
		guard.Wait()
		close(r.ended)
	}()
	return r
}

// inheritRollback goes on with the guard of the process before.
func inheritRollback(left string) (*rollback, error) {
	if left == wordConfirmed {
		return nil, nil
	}
	var pid, fd int
	_, err := fmt.Sscanf(left, "%d %d", &pid, &fd)
	var guard *os.Process
	if err == nil {
		guard, err = os.FindProcess(pid)
	}
	if err != nil {
		return nil, fmt.Errorf("--rollback-after: find the process that waits for `nws-vpn confirm`: %w", err)
	}
	return newRollback(guard, inherited(fd, "rollback")), nil
}

// leave has the process that takes the place of this one go on with the guard. A
// nil rollback is none, or is confirmed and has been left before.
func (r *rollback) leave() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pipe == nil {
		return os.Setenv(rollbackEnv, wordConfirmed)
	}
	fd, err := inheritable(r.pipe)
	if err != nil {
		return fmt.Errorf("--rollback-after: %w", err)
	}
	return os.Setenv(rollbackEnv, fmt.Sprintf("%d %d", r.guard, fd))
}

// confirm lets the guard go.
func (r *rollback) confirm() error {
	if err := r.dismiss(); err != nil {
		return err
	}
	select {
	case <-r.ended:
		return nil
	case <-time.After(guardPatience):
		return errors.New("too late: the machine is being put back")
	}
}

// guardPatience is how long the guard may take to hear a word. Once its time is
// up it hears none.
const guardPatience = 2 * time.Second

// dismiss tells the guard that it is not needed any more, and does not wait: it
// may be waiting for our end.
func (r *rollback) dismiss() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pipe == nil {
		return errors.New("it is confirmed already")
	}
	_, err := fmt.Fprintln(r.pipe, wordConfirmed)
	err = errors.Join(err, r.pipe.Close())
	r.pipe = nil
	return err
}

func rollbackGuardCommand() *cobra.Command {
	var (
		dirs   stateDirs
		after  time.Duration
		closed bool
		parent int
	)
	cmd := &cobra.Command{
		Use:    "rollback-guard",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRollbackGuard(cmd.InOrStdin(), dirs, after, closed, parent)
		},
	}
	dirs.add(cmd)
	cmd.Flags().DurationVar(&after, "after", 0, "when to put the machine back")
	cmd.Flags().BoolVar(&closed, "stay-closed", false, "the machine was closed before")
	cmd.Flags().IntVar(&parent, "parent", 0, "the tunnel's process")
	return cmd
}

// runRollbackGuard waits for the word of its parent, and ends the tunnel if it
// does not come.
func runRollbackGuard(in io.Reader, dirs stateDirs, after time.Duration, closed bool, parent int) error {
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(io.LimitReader(in, 64)).ReadString('\n')
		said <- line
	}()
	deadline := time.After(after)
	select {
	case line := <-said:
		if line == wordConfirmed+"\n" {
			return nil
		}
		<-deadline // it was killed; somebody may still start it anew
	case <-deadline:
	}
	endParent(parent)
	ctx, cancel := context.WithTimeout(context.Background(), downTimeout)
	defer cancel()
	undo := unlock
	if closed {
		undo = stayClosed
	}
	if err := whenUnlocked(ctx, func() error { return undo(dirs) }); err != nil {
		return fmt.Errorf("nobody ran `nws-vpn confirm` within %v, and the machine cannot be put back: %w", after, err)
	}
	// Not before: where nobody reads this any more it may take for ever.
	_, err := fmt.Fprintf(os.Stderr, "nws-vpn: nobody ran `nws-vpn confirm` within %v: the machine was put back\n", after)
	return err
}

// endParent ends the process that has started this one. If it has ended already, who
// takes its children in is not it, and its number may be another's.
func endParent(parent int) {
	p, err := os.FindProcess(parent)
	if err != nil {
		return
	}
	defer p.Release()
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Kill} {
		if os.Getppid() != parent {
			return
		}
		_ = p.Signal(signal)
		awaitOrphaned(parent, downTimeout)
	}
}

// awaitOrphaned waits until the parent is gone.
func awaitOrphaned(parent int, limit time.Duration) {
	for end := time.Now().Add(limit); os.Getppid() == parent && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
}

func confirmCommand() *cobra.Command {
	var dirs stateDirs
	cmd := &cobra.Command{
		Use:   "confirm",
		Short: "Keep a tunnel that was started with --rollback-after",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), downTimeout)
			defer cancel()
			if err := control.Confirm(ctx, dirs.run()); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "confirmed: the tunnel stays up")
			return err
		},
	}
	dirs.add(cmd)
	return cmd
}

// whenUnlocked repeats undo while another process has the state directory.
func whenUnlocked(ctx context.Context, undo func() error) error {
	for {
		err := undo()
		var locked *platform.LockedError
		switch {
		case !errors.As(err, &locked):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("process %s did not end within %v: end it with `kill %[1]s`, then run `nws-vpn down` again", strconv.Itoa(locked.PID), downTimeout)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}
