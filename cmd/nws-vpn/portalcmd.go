package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	lifecycle "github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/tunnel"
	"github.com/nws-vpn/nws-vpn/platform"
)

// maxPortal bounds how long a command may be let out.
const maxPortal = time.Hour

// outsideInside is the command that runs another one for portal and bypass, as the
// user who asked for it.
const outsideInside = "outside-inside"

func portalCommand() *cobra.Command {
	var (
		flags configFlags
		dirs  stateDirs
		limit time.Duration
	)
	cmd := &cobra.Command{
		Use:   "portal COMMAND [ARG…]",
		Short: "Let one command out past the tunnel, to log in to this network",
		Long: `Runs one command whose traffic leaves this machine directly, for a network that
wants a login before it lets anything through. "nws-vpn status" says when it looks
so. Everything else stays closed. Needs root; with sudo, the command runs as the
user who called it, in namespaces of its own, as with "nws-vpn exec". After the
time it is ended, with all it has started.

What the command sends is seen by the network: use a browser profile that knows
nothing, as in the example, and close it after the login.`,
		Example: `  sudo nws-vpn portal firefox --no-remote --profile "$(mktemp -d)" http://neverssl.com`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit <= 0 || limit > maxPortal {
				return fmt.Errorf("--for: want a time up to %v, such as 5m", maxPortal)
			}
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			return runOutside(ctx, cfg, dirs, args)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the command is the command's
	flags.add(cmd)
	dirs.add(cmd)
	cmd.Flags().DurationVar(&limit, "for", 5*time.Minute, "how long at most")
	return cmd
}

// outsideInsideCommand runs a command in a box. Its arguments are the descriptor
// by which the box's device goes outside, the device's MTU and the command.
func outsideInsideCommand() *cobra.Command {
	return &cobra.Command{
		Use:                outsideInside,
		Hidden:             true,
		DisableFlagParsing: true,
		Args:               cobra.MinimumNArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			fd, err := strconv.Atoi(args[0])
			mtu, merr := strconv.Atoi(args[1])
			if err = errors.Join(err, merr); err != nil {
				return err
			}
			return runOutsideInside(fd, mtu, args[2:])
		},
	}
}

// uplinkServers asks the running tunnel for the name servers of the network.
func uplinkServers(ctx context.Context, dirs stateDirs) ([]netip.Addr, error) {
	raw, err := control.Status(ctx, dirs.run())
	if errors.Is(err, control.ErrNotRunning) {
		return nil, withoutTunnel(dirs)
	}
	if err != nil {
		return nil, err
	}
	var s status
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("the running program gave no proper answer: %w", err)
	}
	return s.UplinkDNS, nil
}

// withoutTunnel says how programs get on that are to go past a tunnel, when there
// is none.
func withoutTunnel(dirs stateDirs) error {
	switch left, closed := dirs.recall(); {
	case closed && left.KillSwitch == lifecycle.Lockdown:
		return errors.New("no tunnel is up, and the machine is in lockdown: run `nws-vpn up --retry --detach` first, or open it with `nws-vpn down --unlock`")
	case closed:
		return errors.New("no tunnel is up, and what is left of an earlier one keeps the machine closed: run `nws-vpn up --retry --detach` first, or open it with `nws-vpn down`")
	}
	return errors.New("no tunnel is up: without one, programs reach the network by themselves")
}

// outside dials past the tunnel. What is for the tunnel's own name server goes to
// the network's.
type outside struct {
	net.Dialer
	servers func() []netip.Addr
	way     func(to netip.Addr) (platform.Way, error) // of what it sends
}

func newOutside(up *config.Up, servers func() []netip.Addr) *outside {
	return &outside{
		Dialer: *bypassDialer(up.Mark, servers), servers: servers,
		way: func(to netip.Addr) (platform.Way, error) {
			return platform.Ask(platform.Question{To: to, Mark: up.Mark})
		},
	}
}

// followServers goes on asking the running tunnel, as the network may change. When
// it ends, what it said last counts.
func followServers(ctx context.Context, dirs stateDirs, known []netip.Addr) func() []netip.Addr {
	return remembered(func() []netip.Addr {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if now, err := uplinkServers(asking, dirs); err == nil {
			known = now
		}
		return known
	})
}

// How often a tunnel is looked for that is to come, and one that has left the
// machine closed without it, as one that was killed or begins anew: that often at
// most.
const (
	tunnelPause = time.Second
	tunnelSoon  = 100 * time.Millisecond
	tunnelTries = 50
)

// attendTunnel calls cut, and returns, as soon as no tunnel is up while the machine
// is closed all the same: nothing may leave then. Where a tunnel has ended that left
// the machine open, it awaits the next one. It begins with one that is up.
func attendTunnel(ctx context.Context, dirs stateDirs, cut func()) {
	for left := 0; ; {
		over := false
		err := control.Attend(ctx, dirs.run(), func(leaves string) {
			if over = leaves == control.LeavesClosed; over {
				cut() // while the tunnel waits
			}
		})
		if over || ctx.Err() != nil {
			return
		}
		pause := tunnelSoon
		_, closed := dirs.recall()
		switch {
		case closed && left == 0 && errors.Is(err, control.ErrNotRunning):
			cut()
			return
		case closed && errors.Is(err, control.ErrNotRunning):
			left--
		case closed && err == nil:
			left = tunnelTries
		default:
			left, pause = tunnelTries, tunnelPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// DialContext is a netstack.Dialer's. There is no ping.
func (o *outside) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" && network != "udp" {
		return nil, syscall.EPROTONOSUPPORT
	}
	to, err := o.place(address)
	if err != nil {
		return nil, err
	}
	return o.Dialer.DialContext(ctx, network, to.String())
}

// place is where an address leads outside: never to this machine itself, but for
// its own name servers, and for their names only.
func (o *outside) place(address string) (netip.AddrPort, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return to, err
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	for i, own := range dnsAddrs {
		if to.Addr() == own {
			servers := o.servers()
			if len(servers) == 0 || to.Port() != 53 {
				return to, syscall.ECONNREFUSED
			}
			return netip.AddrPortFrom(servers[min(i, len(servers)-1)], to.Port()), nil
		}
	}
	for _, fake := range fakeRanges {
		if fake.Contains(to.Addr()) {
			return to, syscall.EHOSTUNREACH // it means something in the tunnel only
		}
	}
	if a := to.Addr(); a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
		return to, syscall.EHOSTUNREACH
	}
	if way, err := o.way(to.Addr().WithZone("")); err != nil || way.Here {
		return to, errors.Join(syscall.EHOSTUNREACH, err)
	}
	return to, nil
}
