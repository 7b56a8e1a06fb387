package box

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Box is the namespaces with init in them, and later the command. Run may be
// called once; Close at any time, more than once, and by anyone.
type Box struct {
	cfg   Config
	pipe  *pipe
	init  *exec.Cmd
	tun   *os.File
	notes []string

	closing sync.Once
	closed  chan struct{} // init is gone
}

// Start makes a box for a command. initArgs are the arguments by which this
// program calls Init, with what that takes added to them. What forbids a
// box on this machine is a *ForbiddenError.
func Start(cfg Config, initArgs ...string) (*Box, error) {
	near, far, err := newPipe()
	if err != nil {
		return nil, fmt.Errorf("box: %w", err)
	}
	b := &Box{cfg: cfg, pipe: near, closed: make(chan struct{})}
	err = b.startInit(far, initArgs)
	far.Close() // init's end is to be the pipe's
	if err != nil {
		near.close()
		return nil, explained(newFailure(stepNamespaces, err))
	}
	if err := b.awaitReady(); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// startInit starts init with the other end of the pipe. That keeps its number,
// so that no descriptor which the command is to have gets in its way.
func (b *Box) startInit(far *os.File, args []string) error {
	fd := int(far.Fd())
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return err
	}
	args = slices.Concat(args, []string{strconv.Itoa(fd), b.cfg.Path}, b.cfg.Args)
	b.init = exec.Command("/proc/self/exe", args...)
	b.init.Args[0] = os.Args[0]
	b.init.Stdin, b.init.Stdout, b.init.Stderr = os.Stdin, os.Stdout, os.Stderr
	b.init.SysProcAttr = namespaces(privileged())
	if err := b.init.Start(); err != nil {
		return bare(err)
	}
	go func() {
		_ = b.init.Wait() // what it has to say comes by the pipe
		close(b.closed)
	}()
	return nil
}

// bare takes the name of this program's file off an error.
func bare(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// namespaces are those of a box. Root needs no user namespace, which the machine
// may forbid; for others, it gives the first process power over the other
// namespaces, and nobody else.
func namespaces(root bool) *syscall.SysProcAttr {
	const own = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID
	if root {
		return &syscall.SysProcAttr{Cloneflags: own}
	}
	uid, gid := os.Geteuid(), os.Getegid()
	return &syscall.SysProcAttr{
		Cloneflags:  own | unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN},
	}
}

// privileged reports whether this process may make namespaces without a user
// namespace.
func privileged() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	const need = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_ADMIN
	return os.Geteuid() == 0 && unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&need == need
}

// awaitReady has init set everything up, and takes the TUN's file.
func (b *Box) awaitReady() error {
	s := &setup{Device: b.cfg.Device, MTU: b.cfg.MTU, Addresses: b.cfg.Addresses, Nameservers: b.cfg.Nameservers}
	if err := b.pipe.send(order{Setup: s}, nil); err != nil {
		return fmt.Errorf("box: %w", err)
	}
	var r report
	file, err := b.pipe.receive(&r)
	switch {
	case errors.Is(err, io.EOF):
		return ErrKilled
	case err != nil:
		return fmt.Errorf("box: %w", err)
	case r.Failed != nil:
		return explained(r.Failed)
	case file == nil:
		return errors.New("box: init has handed out no device")
	}
	b.tun, b.notes = file, r.Notes
	return nil
}

// TUN is the file of the box's device, for tun.FromFile. It is the caller's.
func (b *Box) TUN() *os.File { return b.tun }

// Notes say what the command will miss.
func (b *Box) Notes() []string { return b.notes }

// Run starts the command and waits until the last process of the box has ended.
// onLeft is called, if so, when the command itself has ended and others have not.
// It passes on the signals that a user sends to this process; from then on, none of
// them ends it. The code is the command's own, or 128 and the number of the signal
// that ended it. The error is a *StartError, or ErrKilled.
func (b *Box) Run(onLeft func()) (code int, err error) {
	terminal := openTerminal()
	defer terminal.restore()
	forwarding := b.catchSignals(terminal)
	defer forwarding.stop()
	if err := b.pipe.send(order{Start: true}, nil); err != nil {
		return 0, ErrKilled
	}
	forwarding.start()
	code, err = b.await(func() {
		forwarding.endOnSignal()
		onLeft()
	})
	<-b.closed
	return code, err
}

// await reads what init reports until that ends.
func (b *Box) await(onLeft func()) (code int, err error) {
	err = ErrKilled
	for {
		var r report
		if _, rerr := b.pipe.receive(&r); rerr != nil {
			b.Close()
			return code, err
		}
		switch {
		case r.Failed != nil:
			err = &StartError{Err: r.Failed}
		case r.Ended:
			code, err = r.Code, nil
			if r.Left {
				onLeft()
			}
		}
	}
}

// Close kills everything in the box and waits until it is gone.
func (b *Box) Close() error {
	b.closing.Do(func() {
		_ = b.init.Process.Kill() // process 1, and so all others
		b.pipe.close()
		if b.tun != nil {
			b.tun.Close()
		}
	})
	<-b.closed
	return nil
}
