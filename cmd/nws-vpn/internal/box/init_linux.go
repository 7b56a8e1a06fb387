package box

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/platform"
	"github.com/nws-vpn/nws-vpn/tun"
)

// Init is process 1 of a box. fd is the descriptor that Start has added to the
// arguments; path and args are the command's. It returns when nothing is left to
// wait for, or when the process outside has ended; the caller must then exit,
// which kills what is left in the box. The error is for those who call it
// elsewhere.
func Init(fd int, path string, args []string) error {
	if os.Getpid() != 1 {
		return errors.New("box: this command is for nws-vpn's own use, by `nws-vpn exec`")
	}
	unix.CloseOnExec(fd)
	p, err := openPipe(os.NewFile(uintptr(fd), "box"))
	if err != nil {
		return fmt.Errorf("box: %w", err)
	}
	defer p.close()
	i := &initProcess{pipe: p}
	// A terminal's signals come to us as well; they are the command's. They are
	// not ignored, for it would inherit that.
	if list := notified(); len(list) > 0 {
		signal.Notify(make(chan os.Signal, 1), list...)
	}
	if f := i.run(path, args); f != nil {
		return p.send(report{Failed: f}, nil)
	}
	return nil
}

type initProcess struct {
	pipe *pipe
	main atomic.Int64 // the command's process, 0 when it is none any more
}

func (i *initProcess) run(path string, args []string) *failure {
	var o order
	if _, err := i.pipe.receive(&o); err != nil || o.Setup == nil {
		return nil
	}
	if f := i.setUp(o.Setup); f != nil {
		return f
	}
	if _, err := i.pipe.receive(&o); err != nil || !o.Start {
		return nil
	}
	pid, err := startBare(path, args)
	if err != nil {
		return newFailure(stepCommand, err)
	}
	i.main.Store(int64(pid))
	outside := make(chan struct{})
	go func() {
		defer close(outside)
		i.obey()
	}()
	inside := make(chan struct{})
	go func() {
		defer close(inside)
		i.reap(pid)
	}()
	select {
	case <-inside:
	case <-outside:
	}
	return nil
}

// setUp makes the box and hands its device out.
func (i *initProcess) setUp(s *setup) *failure {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return newFailure(stepFiles, fmt.Errorf("separate the mounts: %w", err))
	}
	notes, err := arrangeFiles(s.Nameservers)
	if err != nil {
		return newFailure(stepFiles, err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return newFailure(stepProc, fmt.Errorf("mount /proc: %w", err))
	}
	file, err := tun.OpenFile(s.Device)
	if err != nil {
		return newFailure(stepDevice, err)
	}
	defer file.Close()
	inside := platform.Inside{Device: s.Device, MTU: s.MTU, Addresses: s.Addresses, Group: os.Getegid(), AllGroups: os.Geteuid() == 0}
	if err := platform.ConfigureInside(inside); err != nil {
		return newFailure(stepNetwork, err)
	}
	if err := i.pipe.send(report{Ready: true, Notes: notes}, file); err != nil {
		return newFailure(stepDevice, err)
	}
	// The command is of the same user, and must not look into this process.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return newFailure(stepFiles, err)
	}
	return nil
}

// startBare starts the command without capabilities. Those are a thread's, and
// what a thread starts has no more than it.
func startBare(path string, args []string) (pid int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		if err = dropPrivileges(); err != nil {
			return
		}
		pid, err = syscall.ForkExec(path, args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
		if err != nil {
			err = &os.PathError{Op: "run", Path: path, Err: err}
		}
	}()
	<-done
	return pid, err
}

// dropPrivileges leaves the calling thread without capabilities, and what it
// starts without a way to any. The bounding set stays: with no_new_privs nothing
// is gained by it, and without it programs that have capabilities of their own,
// such as ping, could not be run at all.
func dropPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop the ambient capabilities: %w", err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		return fmt.Errorf("drop the capabilities: %w", err)
	}
	return nil
}

// obey passes signals on until the process outside is gone.
func (i *initProcess) obey() {
	for {
		var o order
		if _, err := i.pipe.receive(&o); err != nil {
			return
		}
		if pid := int(i.main.Load()); pid > 1 && o.Signal > 0 {
			_ = unix.Kill(pid, syscall.Signal(o.Signal))
		}
	}
}

// reap waits for the command, and then for all that it has left behind: orphans
// become children of process 1.
func (i *initProcess) reap(pid int) {
	options := 0
	r := report{}
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, options, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && got != 0 && got != pid:
			continue
		case err == nil && got == pid:
			i.main.Store(0)
			r = report{Ended: true, Code: exitCode(status)}
			options = unix.WNOHANG // is anybody left?
			continue
		}
		// Nobody is left, or nobody who has ended.
		r.Left = err == nil
		if r.Ended {
			_ = i.pipe.send(r, nil)
		}
		if err != nil {
			return
		}
		options, r = 0, report{}
	}
}

func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
