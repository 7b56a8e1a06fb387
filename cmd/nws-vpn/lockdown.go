package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/platform"
)

func lockdownCommand() *cobra.Command {
	var (
		flags configFlags
		dirs  stateDirs
	)
	cmd := &cobra.Command{
		Use:   "lockdown",
		Short: "Close the machine to all traffic but a tunnel's",
		Long: `Closes the machine at once: nothing leaves it but through a tunnel, whether
there is one or not. A running tunnel goes on. It stays so after "nws-vpn down",
until "nws-vpn down --unlock" or a restart of the machine; the unit
nws-vpn-lockdown.service runs it before the network comes up.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			return runLockdown(cmd.Context(), cmd.OutOrStdout(), cfg, dirs)
		},
	}
	flags.add(cmd)
	dirs.add(cmd)
	return cmd
}

func runLockdown(ctx context.Context, out io.Writer, cfg *config.Config, dirs stateDirs) error {
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	says := "the tunnel goes on, and when it ends the machine stays closed: `nws-vpn down --unlock` opens it"
	err := control.Lock(ctx, dirs.run())
	if errors.Is(err, control.ErrNotRunning) {
		says = "the machine is closed: `nws-vpn up` connects it, `nws-vpn down --unlock` opens it"
		err = lockMachine(cfg, dirs)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, says)
	return err
}

// lockMachine closes the machine when no tunnel runs.
func lockMachine(cfg *config.Config, dirs stateDirs) (err error) {
	log, err := newLogger(cfg.LogLevel)
	if err != nil {
		return err
	}
	p, err := platform.New(dirs.lasting(), platform.Options{Log: log})
	if err != nil {
		return err
	}
	machine, err := newMachine(lifecycle.Lockdown, &cfg.Up, freeRange(&cfg.Up, log), lifecycle.Options{})
	if err != nil {
		return errors.Join(err, p.Close())
	}
	_, before := dirs.recall()
	err = dirs.remember(record{KillSwitch: lifecycle.Lockdown})
	if err == nil {
		err = p.Set(machine.On(lifecycle.DownRequested, nil).Policy)
	}
	if err != nil && !before {
		return errors.Join(err, dirs.forget(), p.Close())
	}
	return errors.Join(err, p.Close())
}
