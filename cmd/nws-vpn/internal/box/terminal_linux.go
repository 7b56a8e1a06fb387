package box

import (
	"errors"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// terminal is this process's controlling terminal, if it has one. The command
// shares it, with its size, its signals and its job control.
type terminal struct {
	file  *os.File // or nil
	group int      // in the foreground when the command was started
}

func openTerminal() *terminal {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return &terminal{}
	}
	t := &terminal{file: f}
	t.group = t.foreground()
	return t
}

// foreground is the process group that the terminal's signals go to, 0 for none.
func (t *terminal) foreground() int {
	group, err := unix.IoctlGetInt(int(t.file.Fd()), unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return group
}

// isOurs reports whether the terminal's signals go to this process's group, to
// which the command belongs as long as it makes none for itself.
func (t *terminal) isOurs() bool {
	return t.file != nil && t.foreground() == unix.Getpgrp()
}

// restore gives the terminal back to who had it: a shell in the box takes it for
// its jobs, and cannot name the group outside that it came from. Who has taken it
// outside in the meantime keeps it.
func (t *terminal) restore() {
	if t.file == nil {
		return
	}
	defer t.file.Close()
	if t.group != unix.Getpgrp() || !isGone(t.foreground()) {
		return
	}
	signal.Ignore(unix.SIGTTOU) // we are in the background
	defer signal.Reset(unix.SIGTTOU)
	_ = unix.IoctlSetPointerInt(int(t.file.Fd()), unix.TIOCSPGRP, t.group)
}

// isGone reports whether a process group has no process any more.
func isGone(group int) bool {
	return group > 0 && errors.Is(unix.Kill(-group, 0), unix.ESRCH)
}
