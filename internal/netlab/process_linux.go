package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// outputPatience is how long a finished command's output may stay open in the
// hands of a child that it left behind.
const outputPatience = 5 * time.Second

// CommandOptions are what a command may need beyond its arguments.
type CommandOptions struct {
	Env    []string          // added to this process's environment
	Stdin  io.Reader         // or nil: nothing
	OnLine func(line string) // or nil: called for every line of output, one at a time
	// User is whom the command runs as, without any capability; 0 for this
	// process's own.
	User uint32
}

// A Process is a command started in a host. It is killed when the host is
// closed or this process dies, however that happens. Its methods may be called
// concurrently.
type Process struct {
	name   string
	cmd    *exec.Cmd
	lines  lineBuffer
	stdout bytes.Buffer // read only after done
	done   chan struct{}
	err    error // read only after done
}

// Start starts a command in the host.
func (h *Host) Start(opts CommandOptions, path string, args ...string) (*Process, error) {
	p := &Process{name: filepath.Base(path), done: make(chan struct{})}
	p.lines.changed = make(chan struct{})
	p.lines.onLine = opts.OnLine
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = append(os.Environ(), opts.Env...)
	p.cmd.Stdin = opts.Stdin
	stdout, stderr := &lineWriter{to: &p.lines}, &lineWriter{to: &p.lines}
	p.cmd.Stdout = io.MultiWriter(&limitedBuffer{to: &p.stdout}, stdout)
	p.cmd.Stderr = stderr
	p.cmd.WaitDelay = outputPatience
	// The signal comes when the thread that started the child ends: a host's
	// keeper ends with the host, and every thread with this process.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if opts.User != 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: opts.User, Gid: opts.User}
	}
	if err := h.onKeeper(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("netlab: start %s in %s: %w", p.name, h.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		stdout.end()
		stderr.end()
		p.lines.end()
		close(p.done)
	}()
	return p, nil
}

// A Result is what a finished command left.
type Result struct {
	Stdout string
	Output string // standard output and error, as the lines came
	Code   int    // exit code, -1 when a signal ended it
}

// Run runs a command in the host to its end. A non-zero exit code is no error;
// when ctx ends first, the command is killed and the error is ctx's.
func (h *Host) Run(ctx context.Context, opts CommandOptions, path string, args ...string) (Result, error) {
	p, err := h.Start(opts, path, args...)
	if err != nil {
		return Result{}, err
	}
	if err := p.Wait(ctx); ctx.Err() != nil && err != nil {
		p.Kill()
		<-p.done
		return p.result(), fmt.Errorf("netlab: %s in %s: %w", p.name, h.name, context.Cause(ctx))
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		return p.result(), fmt.Errorf("netlab: %s in %s: %w", p.name, h.name, p.err)
	}
	return p.result(), nil
}

func (p *Process) result() Result {
	return Result{Stdout: p.stdout.String(), Output: p.Output(), Code: p.cmd.ProcessState.ExitCode()}
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill kills the process at once; one that has ended stays ended.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

// Done is closed when the process has ended and its output has been read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end and returns nil for exit code 0, an *exec.ExitError
// for another, or ctx's error when it ends first.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Output is what the process has printed so far, both streams.
func (p *Process) Output() string { return p.lines.text() }

// WaitLine waits for a line of output that matches, among those already
// printed too, and returns it. It fails when the process ends without one.
func (p *Process) WaitLine(ctx context.Context, match func(line string) bool) (string, error) {
	for seen := 0; ; {
		lines, changed, ended := p.lines.from(seen)
		for _, line := range lines {
			if match(line) {
				return line, nil
			}
		}
		seen += len(lines)
		if ended {
			return "", fmt.Errorf("netlab: %s ended without the line waited for; it printed:\n%s", p.name, p.Output())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", fmt.Errorf("netlab: %s did not print the line waited for: %w; it printed:\n%s", p.name, ctx.Err(), p.Output())
		}
	}
}
