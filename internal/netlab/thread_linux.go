package netlab

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f in a goroutine that owns its OS thread. The thread ends with
// f, so f may change its namespaces freely. It is never the process's first
// thread: that one cannot end, and /proc/self speaks for it.
func onThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			f()
			return
		}
		// While this goroutine holds the first thread, the next gets another.
		locked := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(locked)
			f()
		}()
		<-locked
		runtime.UnlockOSThread()
	}()
}

var errNoReturn = errors.New("the function ended its goroutine (t.Fatal may not be called in it)")

// guarded runs f and reports when it left by runtime.Goexit, as t.Fatal does,
// so that whoever waits for it is not left waiting.
func guarded(f func() error, report func(error)) {
	err := errNoReturn
	defer func() { report(err) }()
	err = f()
}

// namespaces are descriptors that keep a host's namespaces alive and let
// threads enter them.
type namespaces struct {
	net, mnt *os.File
}

// currentNamespaces opens those of the calling thread.
func currentNamespaces() (namespaces, error) {
	n, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return namespaces{}, err
	}
	m, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		n.Close()
		return namespaces{}, err
	}
	return namespaces{net: n, mnt: m}, nil
}

// enter moves the calling thread, which must be locked, into the namespaces.
// Its working directory becomes the root.
func (n namespaces) enter() error {
	// A thread that shares its root and directory with others may not change
	// its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(int(n.net.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	if err := unix.Setns(int(n.mnt.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the mount namespace: %w", err)
	}
	return nil
}

func (n namespaces) close() {
	n.net.Close()
	n.mnt.Close()
}
