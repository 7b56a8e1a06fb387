package main

import (
	"errors"
	"os"
	"syscall"
)

func newSession() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// Signals end nothing.
func killedBy(*os.ProcessState, syscall.Signal) bool { return false }

// No program is executed in this process.
func inheritable(*os.File) (fd int, err error) { return 0, errors.ErrUnsupported }

func inherited(fd int, name string) *os.File { return os.NewFile(uintptr(fd), name) }
