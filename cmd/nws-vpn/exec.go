package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
)

// What exec ends with that are not the command's, as env and timeout have them.
const (
	statusFailed   exitStatus = 125 // exec itself
	statusNotRun   exitStatus = 126 // the command is there, and cannot be run
	statusNotFound exitStatus = 127
)

// execInside is the command that is process 1 inside.
const execInside = "exec-inside"

// execName is the name of exec itself.
const execName = "exec"

// failed says why exec itself could not do its work, and ends with a status.
func failed(status exitStatus, err error) error {
	fmt.Fprintln(os.Stderr, "nws-vpn:", forUser(err))
	return status
}

type execOptions struct {
	config  configFlags
	exit    string
	relays  []string
	mode    string
	command []string

	identity    string
	credentials credentialsFunc // of the configuration
}

func execCommand() *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   execName + " --exit NPUB --relay URL COMMAND [ARG…]",
		Short: "Run one command in the VPN, without root and without a change to this machine",
		Long: `Runs one command whose only network is the tunnel, and nothing else in it. It
needs no root and changes nothing on this machine, which makes it the safest way
to try nws-vpn: no route, no rule, no resolver, no firewall. Linux only.

The command is you, with your files, your terminal and its exit code, in user,
network, mount and process namespaces of its own. It cannot reach this machine's
own services (127.0.0.1). The sockets of name services, D-Bus and container
engines are hidden, since they would do its work outside. It has no privileges
and gets none: sudo does not work in it.

exec ends when the last process that the command has left behind ends, with the
command's exit code (128 + the signal's number if one ended it), or with 125 when
it fails itself, 126 when the command cannot be run, 127 when it is not found. If
exec is killed, so is everything in it, and nothing leaks.

A program that hands its work to one that already runs outside is not held: a
browser opens its window in the browser that is running, unless it is told to
use another profile; tmux goes to the server that is running.`,
		Example: `  nws-vpn exec --exit npub1… --relay wss://relay.example curl https://example.com
  nws-vpn exec --exit auto bash`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.command = args
			return runExec(cmd.Context(), o)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the command is the command's
	o.config.add(cmd)
	cmd.Flags().StringVar(&o.exit, "exit", "", "the exit: npub, nprofile, NAME.nostr, a petname of the configuration, the name of one that was joined, or auto for the best of those it trusts")
	cmd.Flags().StringVar(&o.identity, "identity", "", "key file of the identity that is proven to the exit, and to no other")
	cmd.Flags().StringSliceVar(&o.relays, "relay", nil, "relay URL (ws:// or wss://); may be given more than once")
	cmd.Flags().StringVar(&o.mode, "mode", "", "what to speak with the exit: auto (default), session or nws")
	return cmd
}

// load is the configuration with what the flags say.
func (o *execOptions) load() (*config.Config, error) {
	cfg, err := o.config.load()
	if err != nil {
		return nil, err
	}
	if err := overrideExit(&cfg.Up, o.exit, o.relays, o.identity); err != nil {
		return nil, err
	}
	if o.credentials, err = dialAs(cfg, o.config.joinedDir(), len(o.relays) > 0); err != nil {
		return nil, err
	}
	if o.mode != "" {
		if err := config.CheckUpMode(o.mode); err != nil {
			return nil, fmt.Errorf("--mode: %w", err)
		}
		cfg.Up.Mode = o.mode
	}
	// Standard error is the command's, unless more is wanted.
	if cfg.LogLevel == "info" {
		cfg.LogLevel = "warn"
	}
	// Paths without a relay need marked sockets, and so rights; the authority
	// that presents sites is the machine's.
	cfg.Up.PublicAddress, cfg.Up.Direct, cfg.Up.TrustSites = "", false, false
	return cfg, nil
}

// execInsideCommand is process 1 of exec's namespaces. Its arguments are the
// descriptor by which it speaks with exec, the command's file and its arguments.
func execInsideCommand() *cobra.Command {
	return &cobra.Command{
		Use:                execInside,
		Hidden:             true,
		DisableFlagParsing: true,
		Args:               cobra.MinimumNArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			fd, err := strconv.Atoi(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", execInside, err)
			}
			return runExecInside(fd, args[1], args[2:])
		},
	}
}
