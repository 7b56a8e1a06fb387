package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/platform"
)

func upCommand() *cobra.Command {
	var (
		flags    configFlags
		dirs     stateDirs
		exit     string
		relays   []string
		spread   string
		double   bool
		mode     string
		detached bool
	)
	cmd := &cobra.Command{
		Use:   "up --exit NPUB --relay URL",
		Short: "Send this machine's traffic through an exit",
		Long: `Makes a TUN device and sends every program's traffic through Nostr relays to
an exit. Runs until "nws-vpn down", Ctrl-C or SIGTERM, and then puts the
machine back as it was. Needs root.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			if exit != "" {
				cfg.Up.Exit = exit
			}
			if len(relays) > 0 {
				cfg.Up.Relays = relays
			}
			if spread != "" {
				if err := config.CheckSpread(spread); err != nil {
					return fmt.Errorf("--spread: %w", err)
				}
				cfg.Up.Spread = spread
			}
			cfg.Up.Duplicate = cfg.Up.Duplicate || double
			if mode != "" {
				if err := config.CheckUpMode(mode); err != nil {
					return fmt.Errorf("--mode: %w", err)
				}
				cfg.Up.Mode = mode
			}
			if detached && !isDetached() {
				if err := detach(dirs.run()); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "connected, in the background; log in %s\n", filepath.Join(dirs.run(), logName))
				return err
			}
			err = runUp(cmd.Context(), cmd.OutOrStdout(), cfg, dirs)
			reportReady(err)
			return err
		},
	}
	flags.add(cmd)
	dirs.add(cmd)
	cmd.Flags().StringVar(&exit, "exit", "", "the exit: npub, nprofile, NAME.nostr, a petname of the configuration, or auto for the best of those it trusts")
	cmd.Flags().StringSliceVar(&relays, "relay", nil, "relay URL (ws:// or wss://); may be given more than once")
	cmd.Flags().StringVar(&spread, "spread", "", "how to use several relays: primary (default) or stripe")
	cmd.Flags().BoolVar(&double, "duplicate", false, "send small packets over two relays at once")
	cmd.Flags().StringVar(&mode, "mode", "", "what to speak with the exit: auto (default), session or nws")
	cmd.Flags().BoolVar(&detached, "detach", false, "go to the background once connected")
	return cmd
}

// stateDirs are where a running tunnel keeps what others must find: its socket,
// which is gone after a restart of the machine, and its journal, which is not.
type stateDirs struct{ dir string }

func (d *stateDirs) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.dir, "state-dir", "", "directory for the socket and the journal (default /run/nws-vpn and /var/lib/nws-vpn)")
}

func (d *stateDirs) run() string {
	if d.dir != "" {
		return d.dir
	}
	return "/run/nws-vpn"
}

func (d *stateDirs) lasting() string {
	if d.dir != "" {
		return d.dir
	}
	return "/var/lib/nws-vpn"
}

// runUp brings the tunnel up, says so, and waits for the end.
func runUp(ctx context.Context, out io.Writer, cfg *config.Config, dirs stateDirs) (err error) {
	log, err := newLogger(cfg.LogLevel)
	if err != nil {
		return err
	}
	if cfg.Up.Exit == config.AutoExit && len(cfg.Up.Trust)+len(cfg.Up.TrustFollows) == 0 {
		return explainChoice(ctx, out, cfg)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t, err := raise(ctx, cfg, dirs, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.lower()) }()
	socket, err := control.Listen(dirs.run(), &controlled{t, cancel})
	if err != nil {
		return err
	}
	defer socket.Close()
	if os.Getenv("SSH_CONNECTION") != "" {
		log.Warn("answers to connections from outside, such as this SSH session, go into the tunnel while it is up: run `nws-vpn down` from a console if the session hangs")
	}
	for _, note := range t.platform.Notes() {
		log.Warn(note)
	}
	link := t.router.Main()
	fmt.Fprintf(out, "connected to %s through %s\n", link.Exit().NPub(), link.Status().Relay)
	reportReady(nil)
	select {
	case <-ctx.Done():
		log.Info("going down")
		return nil
	case <-t.stack.Failed():
		return fmt.Errorf("the device %s is gone: somebody removed it; run `nws-vpn up` again", cfg.Up.Device)
	}
}

// explainChoice lists the exits for a user who has not said whom to trust.
func explainChoice(ctx context.Context, out io.Writer, cfg *config.Config) error {
	if err := runExits(ctx, out, os.Stderr, cfg, exitsOptions{timeout: connectTimeout}); err != nil {
		return err
	}
	return errors.New(`no exit is chosen, for an exit sees the destinations of your traffic: name one with --exit, or those you trust with trust = ["npub1…"] in the section [up] of the configuration`)
}

// controlled answers the control socket.
type controlled struct {
	*tunnel
	cancel context.CancelFunc
}

func (c *controlled) Status() any { return c.status() }
func (c *controlled) Down()       { c.cancel() }

func downCommand() *cobra.Command {
	var dirs stateDirs
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End the tunnel and put the machine back as it was",
		Long: `Ends a running "nws-vpn up" and waits until the machine is as it was before.
If that process was killed, down itself undoes what it left.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDown(cmd.Context(), cmd.OutOrStdout(), dirs)
		},
	}
	dirs.add(cmd)
	return cmd
}

// downTimeout bounds how long down waits for a running tunnel to end.
const downTimeout = 15 * time.Second

func runDown(ctx context.Context, out io.Writer, dirs stateDirs) error {
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	err := control.Down(ctx, dirs.run())
	running := !errors.Is(err, control.ErrNotRunning)
	if err != nil && running {
		return err
	}
	log, err := newLogger("warn")
	if err != nil {
		return err
	}
	// The state directory is free once the running tunnel has undone
	// everything; what a killed one has left is undone here.
	for {
		err := platform.CleanUp(dirs.lasting(), log)
		var locked *platform.LockedError
		switch {
		case err == nil && running:
			_, err = fmt.Fprintln(out, "down")
			return err
		case err == nil:
			_, err = fmt.Fprintln(out, "not running; nothing is left of an earlier run")
			return err
		case !errors.As(err, &locked):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("process %d did not end within %v: end it with `kill %d`, then run `nws-vpn down` again", locked.PID, downTimeout, locked.PID)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}
