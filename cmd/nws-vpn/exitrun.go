package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/service"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/exit/admission"
)

// exitRun is a running exit.
type exitRun struct {
	load  func() (*config.Config, error) // with the flags over it
	out   io.Writer
	log   *slog.Logger
	level *slog.LevelVar
	state string // directory
	// program is the path of the program file, as this process was started by.
	program string
	before  *predecessor // who was there when this process began, to be replaced; or nil
	since   time.Time
	started *config.Config // what the process was started with
	ended   string         // why it has ended, once serve has

	server   *exit.Server
	book     *admission.Book
	embedded *embeddedRelay // or nil
	names    []*exitName    // the exit's own first
	figures  net.Listener   // where they are to be shown, once that is bound; or nil
	closers  []func()       // of what was opened, in that order

	reloading  sync.Mutex // held for a whole reload
	restarting sync.Mutex // held while a new process is started
	// replaced is closed when another process goes on with what this one has let
	// go of.
	replaced  chan struct{}
	replacing sync.Once
	// leaving is closed when this process is to end without another one.
	leaving   chan struct{}
	leaveOnce sync.Once

	mu           sync.Mutex // guards what follows
	cfg          *config.Config
	socket       *control.Server
	heir         *successor // who takes over, or has once replaced is closed; or nil
	draining     drain
	noSuccessor  bool // none may take over now
	closeMetrics func()
	// closeReplaced closes what showReplaced has opened, if it has.
	closeReplaced func()
	closed        bool // closeDoors was called
}

// runExit runs an exit until ctx ends or it has been drained.
func runExit(ctx context.Context, out io.Writer, flags *exitFlags) (err error) {
	if err := keepSecrets(); err != nil {
		return err
	}
	cfg, err := flags.load()
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 && !flags.allowRoot {
		return errors.New("an exit needs no privileges and dials for strangers, so it does not run as root: use another user, as the unit nws-vpn-exit.service does, or say --allow-root")
	}
	r := &exitRun{
		load: flags.load, out: out, started: cfg, cfg: cfg, level: new(slog.LevelVar), since: time.Now(),
		replaced: make(chan struct{}), leaving: make(chan struct{}), program: startedProgram(os.Args[0], os.Executable),
	}
	if r.log, err = newLeveledLogger(cfg.LogLevel, r.level); err != nil {
		return err
	}
	if len(flags.hidden) > 0 {
		r.log.Info("the command line says otherwise than the configuration, and counts", "keys", flags.hidden)
	}
	// Before the state directory is made: it is named like the key.
	npubs, err := exitNPubs(&cfg.Exit)
	if err != nil {
		return err
	}
	r.state = exitStateDir(&cfg.Exit, os.Getenv)
	if err := openExitState(r.state); err != nil {
		return err
	}
	r.before, err = meetPredecessor(ctx, r.state, flags.takeover, &successor{npubs: npubs, version: buildVersion()})
	if err != nil {
		return err
	}
	if r.before != nil && cfg.Exit.RelayListen != "" {
		return errors.New("--takeover: the relay within the exit (relay_listen) cannot be handed over: run it as a process of its own with `nws-vpn relay`")
	}
	defer func() { r.sayStopped(err) }() // when all has been closed
	defer r.close()
	if err := r.open(ctx); err != nil {
		return err
	}
	return r.serve(ctx)
}

// open makes all parts of the exit. Nothing is sent before serve.
func (r *exitRun) open(ctx context.Context) error {
	e := &r.cfg.Exit
	first, err := r.openName("", config.ExitName{
		KeyFile: e.KeyFile, CertificateFile: e.CertificateFile, Relays: e.Relays, Announce: e.Announce, Services: e.Services,
	})
	if err != nil {
		return err
	}
	r.names = append(r.names, first)
	if err := r.openAdmission(); err != nil {
		return err
	}
	if r.server, err = exit.New(r.serverConfig(first)); err != nil {
		return err
	}
	r.closing(func() {
		if err := r.server.Close(); err != nil {
			r.log.Error("exit", "err", err)
		}
	})
	for _, label := range slices.Sorted(maps.Keys(e.Names)) {
		n, err := r.openName(label, e.Names[label])
		if err == nil {
			err = r.server.SetSite(n.site(e.Names[label].Services))
		}
		if err != nil {
			return fmt.Errorf("the name %s: %w", label, err)
		}
		r.names = append(r.names, n)
	}
	if e.RelayListen != "" {
		if r.embedded, err = embedRelay(&r.cfg.Relay, e.RelayListen, first.key.Public(), nil, r.out, r.log); err != nil {
			return err
		}
		r.closing(r.embedded.Close)
	}
	if err := r.bindFigures(); err != nil {
		return err
	}
	for _, n := range r.names {
		if err := r.listen(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (r *exitRun) serverConfig(first *exitName) exit.Config {
	e := &r.cfg.Exit
	site := first.site(e.Services)
	return exit.Config{
		Key: site.Key, Services: site.Services, TLS: site.TLS,
		Policy:      exitPolicy(e),
		Nameservers: e.Nameservers,
		MaxFlows:    e.MaxFlows,
		DialTimeout: e.DialTimeout.Duration(),
		UDPIdle:     e.UDPIdle.Duration(),
		Limits:      e.Limits(),
		UsageFile:   filepath.Join(r.state, exitUsageFile),
		Successor:   r.before != nil,
		Log:         r.log,
	}
}

// closing has something closed when the exit ends, before what was opened
// earlier.
func (r *exitRun) closing(f func()) { r.closers = append(r.closers, f) }

func (r *exitRun) close() {
	for _, f := range slices.Backward(r.closers) {
		f()
	}
}

// serve serves until ctx ends or the exit has been drained, and then ends all
// that is its own. A predecessor is there until this process is ready.
func (r *exitRun) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	beside.Go(func() { r.keepHouse(ctx, hup) })
	r.watchGuests(ctx, &beside)
	defer r.closeDoors()
	if r.before == nil {
		if err := r.openDoors(ctx, &beside); err != nil {
			return err
		}
	}
	failed := make(chan error, len(r.names)+1)
	var serving sync.WaitGroup
	for _, n := range r.names {
		serving.Go(func() {
			if err := n.serve(ctx, r.server); ctx.Err() == nil {
				failed <- err
			}
		})
	}
	if r.before != nil {
		beside.Go(func() {
			if err := r.takeOver(ctx, &beside); err != nil {
				failed <- err
			}
		})
	}
	why, err := r.wait(ctx, failed)
	r.ended = why
	for _, n := range r.names {
		n.stopTelling(r.isReplaced())
	}
	cancel()
	serving.Wait()
	// A process that takes over reads what is saved once the control socket is gone.
	if err := errors.Join(r.server.SaveUsage(), r.passOnUsage(context.WithoutCancel(ctx))); err != nil {
		r.log.Error("exit", "err", err)
	}
	return err
}

// sayStopped logs that the exit has ended, and why, unless that was by an error,
// which the caller tells.
func (r *exitRun) sayStopped(err error) {
	if err == nil {
		r.log.Info("stopped", "why", r.ended)
	}
}

// wait returns when the exit is to end, and says why.
func (r *exitRun) wait(ctx context.Context, failed <-chan error) (why string, err error) {
	look := time.NewTicker(drainCheck)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return endOf(ctx), nil
		case err := <-failed:
			return "", err
		case <-look.C:
			switch {
			case !r.isDrained(time.Now()):
			case r.isReplaced():
				return "another process has taken over", nil
			default:
				return "drained", nil
			}
		}
	}
}

// endOf says why ctx has ended: by a signal, if one has come.
func endOf(ctx context.Context) string {
	// That of a signal is context.Canceled, too, for errors.Is.
	if cause := context.Cause(ctx); cause != nil && cause != context.Canceled {
		return cause.Error()
	}
	return "asked to end"
}

// saveEvery is how much of the clients' usage is forgiven when the process is
// killed.
const saveEvery = time.Minute

// keepHouse saves what the clients have used, and reloads for each signal, until
// ctx ends.
func (r *exitRun) keepHouse(ctx context.Context, hup <-chan os.Signal) {
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			_, _ = r.reload() // which has logged it
		case <-save.C:
			if err := errors.Join(r.server.SaveUsage(), r.passOnUsage(ctx)); err != nil {
				r.log.Error("exit", "err", err)
			}
		}
	}
}

// openDoors answers the control socket, and shows figures, from now on, unless ctx
// has ended.
func (r *exitRun) openDoors(ctx context.Context, beside *sync.WaitGroup) error {
	ctx, cancel := context.WithCancel(ctx)
	shown := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	// closeDoors is called after the end of ctx: it comes later than this, or it is
	// seen here.
	err := ctx.Err()
	if err == nil {
		r.socket, err = control.Serve(r.state, r.routes())
	}
	if err != nil {
		cancel()
		return err
	}
	service.Current().Notify("READY=1")
	r.closeMetrics = func() { cancel(); <-shown }
	beside.Go(func() {
		defer close(shown)
		r.showFigures(ctx)
	})
	return nil
}

func (r *exitRun) closeDoors() {
	r.leave()
	r.mu.Lock()
	socket, closeReplaced := r.socket, r.closeReplaced
	r.closed = true
	r.mu.Unlock()
	if socket != nil {
		socket.Close()
	}
	if closeReplaced != nil {
		closeReplaced()
	}
}

// leave has a restart that is under way given up.
func (r *exitRun) leave() { r.leaveOnce.Do(func() { close(r.leaving) }) }
