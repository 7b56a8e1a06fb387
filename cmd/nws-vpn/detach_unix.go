//go:build unix

package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func newSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// killedBy reports whether a signal has ended a process.
func killedBy(p *os.ProcessState, s syscall.Signal) bool {
	w, ok := p.Sys().(syscall.WaitStatus)
	return ok && w.Signaled() && w.Signal() == s
}

// inheritable returns a descriptor of f that a program which is executed in this
// process has too.
func inheritable(f *os.File) (fd int, err error) {
	return unix.Dup(int(f.Fd()))
}

// inherited is the file of a descriptor that a process has left to this one, which
// leaves it to no other.
func inherited(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}
