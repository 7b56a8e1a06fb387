package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/box"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/dnsintercept"
	"github.com/nws-vpn/nws-vpn/internal/segments"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/tun"
)

// runExec runs a command in a box whose TUN a tunnel of this process serves.
func runExec(ctx context.Context, o execOptions) error {
	cfg, err := o.load()
	if err != nil {
		return failed(statusFailed, err)
	}
	log, err := newLogger(cfg.LogLevel)
	if err != nil {
		return failed(statusFailed, err)
	}
	path, err := exec.LookPath(o.command[0])
	if err != nil {
		return notStarted(err)
	}
	b, err := box.Start(box.Config{
		Path: path, Args: o.command, Device: cfg.Up.Device, MTU: cfg.Up.MTU,
		Addresses: deviceAddrs[:], Nameservers: dnsAddrs[:],
	}, execInside)
	if err != nil {
		return failed(statusFailed, err)
	}
	defer b.Close()
	for _, note := range b.Notes() {
		log.Warn(note)
	}
	t, err := raiseInto(ctx, b, cfg, o.credentials, log)
	if err != nil {
		return failed(statusFailed, err)
	}
	defer t.lower()
	if ctx.Err() != nil {
		return failed(statusFailed, ctx.Err())
	}
	return runBox(b, t)
}

// runBox runs the command, and ends everything in the box when the tunnel fails.
func runBox(b *box.Box, t *tunnel) error {
	ended, watched := make(chan struct{}), make(chan struct{})
	broken := false
	go func() {
		defer close(watched)
		select {
		case <-t.stack.Failed():
			broken = true
			b.Close()
		case <-ended:
		}
	}()
	code, err := b.Run(func() {
		fmt.Fprintln(os.Stderr, "nws-vpn: the command has ended, and has left processes behind: waiting for them (Ctrl-C ends them)")
	})
	close(ended)
	<-watched
	switch start := (*box.StartError)(nil); {
	case errors.As(err, &start):
		return notStarted(err)
	case err != nil && broken:
		return failed(statusFailed, fmt.Errorf("the tunnel has failed: %w", err))
	case err != nil:
		return failed(statusFailed, err)
	case code != 0:
		return exitStatus(code)
	}
	return nil
}

func notStarted(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return failed(statusNotFound, err)
	}
	return failed(statusNotRun, err)
}

// raiseInto brings a tunnel up for the box's device. Nothing of the machine is
// changed, so its relays are dialed as any program would.
func raiseInto(ctx context.Context, b *box.Box, cfg *config.Config, credentials credentialsFunc, log *slog.Logger) (_ *tunnel, err error) {
	t := &tunnel{credentials: credentials}
	defer func() {
		if err != nil {
			t.lower()
		}
	}()
	if t.relayKey, err = relayKey(&cfg.Up); err != nil {
		return nil, err
	}
	book, err := name.NewBook(cfg.Names)
	if err != nil {
		return nil, err
	}
	exit, relays, err := chooseExit(cfg.Up.Exit, cfg.Up.Relays, book)
	if err != nil {
		return nil, err
	}
	first, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	dialer := &net.Dialer{Timeout: 10 * time.Second, ControlContext: segments.Control}
	wayLog, tell := holdBack(log)
	if err := t.connectTo(first, dialer.DialContext, exit, relays, cfg, wayLog); err != nil {
		if ctx.Err() != nil {
			return nil, errors.New("interrupted before it was connected")
		}
		return nil, fmt.Errorf("%w\n`nws-vpn doctor` looks for the fault", explainNoWay(err, cfg.Up.Exit))
	}
	tell(true)
	// The fake addresses are the command's alone, and forgotten with it.
	var key [32]byte
	rand.Read(key[:])
	pool, err := dnsintercept.NewPool(key, dnsintercept.PoolOptions{Log: log})
	if err != nil {
		return nil, err
	}
	dev, err := tun.FromFile(b.TUN(), cfg.Up.MTU)
	if err != nil {
		return nil, err
	}
	if err := t.startStack(dev, pool, t.router, book, cfg, log); err != nil {
		return nil, err
	}
	t.followNetwork(log)
	return t, nil
}

func runExecInside(fd int, path string, args []string) error { return box.Init(fd, path, args) }
