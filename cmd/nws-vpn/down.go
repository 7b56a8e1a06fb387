package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/platform"
)

func downCommand() *cobra.Command {
	var (
		dirs   stateDirs
		unlock bool
	)
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End the tunnel and put the machine back as it was",
		Long: `Ends a running "nws-vpn up" and waits until the machine is as it was before.
If that process was killed, down itself undoes what it left. A machine in lockdown
stays closed, unless --unlock is given.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDown(cmd.Context(), cmd.OutOrStdout(), dirs, unlock)
		},
	}
	dirs.add(cmd)
	cmd.Flags().BoolVar(&unlock, "unlock", false, "end a lockdown too")
	return cmd
}

// downTimeout bounds how long down waits for a running tunnel to end.
const downTimeout = 15 * time.Second

func runDown(ctx context.Context, out io.Writer, dirs stateDirs, open bool) error {
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	err := control.Down(ctx, dirs.run(), open)
	running := !errors.Is(err, control.ErrNotRunning)
	if err != nil && running {
		return err
	}
	// The state directory is free once the running tunnel has undone
	// everything; what a killed one has left is undone here.
	locked, leftover := false, false
	err = whenUnlocked(ctx, func() error {
		if !running { // one that begins, or begins anew, cannot be asked for a moment
			running = control.Down(ctx, dirs.run(), open) == nil
		}
		left, closed := dirs.recall()
		leftover = leftover || closed
		locked = closed && left.KillSwitch == lifecycle.Lockdown && !open
		if locked {
			return stayClosed(dirs)
		}
		return unlock(dirs)
	})
	if err != nil {
		return err
	}
	text := "not running; nothing is left of an earlier run"
	switch {
	case locked:
		text = "the machine stays closed (lockdown): `nws-vpn down --unlock` opens it"
	case running:
		text = "down"
	case leftover:
		text = "not running; what was left of an earlier run is undone, and this machine is open again"
	}
	_, err = fmt.Fprintln(out, text)
	return err
}

// unlock undoes what is left of a tunnel whose process is gone, lockdown or not.
func unlock(dirs stateDirs) error {
	log, err := newLogger("warn")
	if err != nil {
		return err
	}
	if err := platform.Unlock(dirs.lasting(), log); err != nil {
		return err
	}
	return dirs.forget()
}

// stayClosed undoes what is left of a tunnel whose process is gone, but for what
// a lockdown has in force.
func stayClosed(dirs stateDirs) error {
	log, err := newLogger("warn")
	if err != nil {
		return err
	}
	return platform.CleanUp(dirs.lasting(), log)
}
