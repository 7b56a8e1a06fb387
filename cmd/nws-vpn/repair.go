package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/platform"
)

func repairCommand() *cobra.Command {
	var (
		dirs  stateDirs
		crash bool
	)
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Put the machine back as it was after a tunnel that was killed",
		Long: `Undoes everything that a tunnel has changed on this machine and that is still
in force although its process is gone, a lockdown included. It needs no running
program, and does nothing when there is nothing to undo.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRepair(cmd.OutOrStdout(), dirs, crash)
		},
	}
	dirs.add(cmd)
	cmd.Flags().BoolVar(&crash, "after-crash", false, "for units: keep a machine closed that the kill switch keeps closed")
	return cmd
}

func runRepair(out io.Writer, dirs stateDirs, crash bool) error {
	left, closed := dirs.recall()
	if crash && closed && left.KillSwitch != lifecycle.Off {
		_, err := fmt.Fprintf(out, "the machine stays closed (kill switch %s) until a tunnel is up again: `nws-vpn down --unlock` opens it\n", left.KillSwitch)
		return err
	}
	err := unlock(dirs)
	var locked *platform.LockedError
	if errors.As(err, &locked) {
		return fmt.Errorf("a tunnel is running (process %d): there is nothing to repair; `nws-vpn down` ends it", locked.PID)
	}
	if err != nil {
		return err
	}
	text := "there is nothing to repair: nothing of a tunnel is left on this machine"
	if closed {
		text = "repaired: what a tunnel had left is undone, and this machine is open again"
	}
	_, err = fmt.Fprintln(out, text)
	return err
}
