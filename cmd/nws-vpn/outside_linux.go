package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/box"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/netstack"
	"github.com/nws-vpn/nws-vpn/tun"
)

// runOutside lets a command out until ctx ends. Two processes do it: this one,
// with the right to mark sockets, and one of the user's, with the box that the
// command runs in.
//
//	command ─ box's device ─ its file ─ stack ─ marked sockets
func runOutside(ctx context.Context, cfg *config.Config, dirs stateDirs, command []string) error {
	if _, err := exec.LookPath(command[0]); err != nil {
		return notStarted(err)
	}
	asking, cancel := context.WithTimeout(ctx, 5*time.Second)
	servers, err := uplinkServers(asking, dirs)
	cancel()
	if err != nil {
		return err
	}
	child, near, err := startOutsideInside(&cfg.Up, command)
	if err != nil {
		return fmt.Errorf("run a command outside the tunnel: %w", err)
	}
	defer near.Close() // the child ends with it
	defer passSignals(ctx, child.Process)()
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	file, err := receiveFile(near)
	if err != nil {
		<-ended // it has said why
		return exitStatus(statusFailed)
	}
	stop, err := serveOutside(ctx, cfg, dirs, servers, file)
	if err != nil {
		return err
	}
	defer stop()
	select {
	case err = <-ended:
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			fmt.Fprintln(os.Stderr, "nws-vpn: the time is up: the command is ended (--for gives it more)")
		}
		near.Close()
		err = <-ended
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitStatus(max(exit.ExitCode(), 1))
	}
	return err
}

// serveOutside lets out what comes by a device's file, until stop or until the
// tunnel ends and leaves the machine closed.
func serveOutside(ctx context.Context, cfg *config.Config, dirs stateDirs, servers []netip.Addr, file *os.File) (stop func(), err error) {
	dev, err := tun.FromFile(file, cfg.Up.MTU)
	if err != nil {
		return nil, err
	}
	log, err := newLogger(cfg.LogLevel)
	var stack *netstack.Stack
	if err == nil {
		stack, err = netstack.New(dev, netstack.Forward(newOutside(&cfg.Up, followServers(ctx, dirs, servers)), netstack.ForwardOptions{}), netstack.Options{Log: log})
	}
	if err != nil {
		dev.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var attending sync.WaitGroup
	attending.Go(func() {
		attendTunnel(ctx, dirs, func() {
			stack.Close()
			fmt.Fprintln(os.Stderr, "nws-vpn: the tunnel has ended, and this machine stays closed: the command has no network any more")
		})
	})
	return func() {
		cancel()
		attending.Wait()
		stack.Close()
	}, nil
}

// passSignals hands the signals that a user sends to this process on to a child,
// unless ctx is what they end. What is typed at the terminal the child, which gets
// it too, tells apart. After stop they end nobody: what is left to do is to end with
// the child's status.
func passSignals(ctx context.Context, child *os.Process) (stop func()) {
	if ctx.Done() != nil {
		return func() {}
	}
	signals, ended := make(chan os.Signal, 16), make(chan struct{})
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			select {
			case s := <-signals:
				_ = child.Signal(s) // it may be gone
			case <-ended:
				return
			}
		}
	})
	return func() {
		close(ended)
		passing.Wait()
	}
}

// startOutsideInside starts the user's process, with a socket for the device.
func startOutsideInside(up *config.Up, command []string) (*exec.Cmd, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	defer far.Close()
	self, err := os.Executable()
	if err != nil {
		near.Close()
		return nil, nil, err
	}
	cmd := exec.Command(self, append([]string{outsideInside, "3", strconv.Itoa(up.MTU)}, command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{far}
	if err = asCaller(cmd, os.Getenv("SUDO_UID")); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		near.Close()
		return nil, nil, err
	}
	return cmd, near, nil
}

// asCaller has a command run as the user who called sudo, if one did.
func asCaller(cmd *exec.Cmd, uid string) error {
	if uid == "" || uid == "0" {
		return nil
	}
	u, err := user.LookupId(uid)
	if err != nil {
		return err
	}
	var ids []uint32
	groups, err := u.GroupIds()
	for _, text := range append([]string{u.Uid, u.Gid}, groups...) {
		id, perr := strconv.ParseUint(text, 10, 32)
		err = errors.Join(err, perr)
		ids = append(ids, uint32(id))
	}
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ids[0], Gid: ids[1], Groups: ids[2:]}}
	cmd.Env = append(os.Environ(), "HOME="+u.HomeDir, "USER="+u.Username, "LOGNAME="+u.Username, "XDG_RUNTIME_DIR=/run/user/"+u.Uid)
	return nil
}

// runOutsideInside runs the command in a box whose device the other process
// serves, until that closes its end of the socket.
func runOutsideInside(fd, mtu int, command []string) error {
	far := os.NewFile(uintptr(fd), "far")
	unix.CloseOnExec(fd)
	path, err := exec.LookPath(command[0])
	if err != nil {
		return notStarted(err)
	}
	b, err := box.Start(box.Config{
		Path: path, Args: command, Device: "direct0", MTU: mtu,
		Addresses: deviceAddrs[:], Nameservers: dnsAddrs[:],
	}, execInside)
	if err != nil {
		return failed(statusFailed, err)
	}
	defer b.Close()
	if err := unix.Sendmsg(fd, []byte{0}, unix.UnixRights(int(b.TUN().Fd())), nil, 0); err != nil {
		return failed(statusFailed, fmt.Errorf("hand out the device: %w", err))
	}
	b.TUN().Close() // the device goes when the other process lets go of it
	go func() {
		far.Read(make([]byte, 1)) // nothing comes but the end
		b.Close()
	}()
	code, err := b.Run(func() {})
	switch start := (*box.StartError)(nil); {
	case errors.As(err, &start):
		return notStarted(err)
	case err != nil:
		return failed(statusFailed, err)
	case code != 0:
		return exitStatus(code)
	}
	return nil
}

// receiveFile waits for the file that comes by a socket.
func receiveFile(near *os.File) (*os.File, error) {
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(near.Fd()), make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, errors.New("no device came")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "TUN"), nil
}
