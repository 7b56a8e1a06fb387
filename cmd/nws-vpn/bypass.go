package main

import (
	"context"

	"github.com/spf13/cobra"
)

func bypassCommand() *cobra.Command {
	var (
		flags configFlags
		dirs  stateDirs
	)
	cmd := &cobra.Command{
		Use:   "bypass COMMAND [ARG…]",
		Short: "Run one command outside the tunnel",
		Long: `Runs one command whose traffic leaves this machine directly, while that of all
others stays in the tunnel. Its names are asked of this network's own name servers.
Needs root, and a tunnel that is up; with sudo, the command runs as the user who
called it. It has its terminal, its signals and its exit code, in namespaces of its
own as with "nws-vpn exec": TCP and UDP to the outside, no ping, no connections from
there, none to this machine's own services, and no privileges. When the tunnel ends
and leaves the machine closed, it has no network any more.

What stays outside for good, root's services among it, is for exclude_cgroup and
exclude_users in the configuration.`,
		Example: `  sudo nws-vpn bypass curl https://example.com`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			// Signals are the command's, and end it or not.
			return runOutside(context.WithoutCancel(cmd.Context()), cfg, dirs, args)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the command is the command's
	flags.add(cmd)
	dirs.add(cmd)
	return cmd
}
