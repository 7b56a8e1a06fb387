package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/direct"
	"github.com/nws-vpn/nws-vpn/platform"
)

// makePaths makes the paths to exits that need no relay: it listens for their
// connections where the user has a public address, and connects to them where
// the user wants that. What is not to be had is logged: relays do without.
func (t *tunnel) makePaths(ctx context.Context, opts *nostrlink.LinkOptions, up *config.Up, log *slog.Logger) {
	// What is sent has to bypass the tunnel.
	control := platform.Control(up.Mark)
	if up.Direct {
		opts.Direct.Dialer = direct.NewDialer(dialPublic(control))
	}
	clearText := up.NWSClearText && up.Mode != config.ModeSession
	if up.PublicAddress == "" || up.Mode == config.ModeNWS && !clearText {
		return
	}
	if !up.Inbound {
		log.Warn("public_address is not offered to the exit, as connections from outside are refused (inbound)")
		return
	}
	doors, err := listenPublic(ctx, up.PublicAddress, control)
	if err != nil {
		log.Warn("public_address is not offered to the exit", "err", err)
		return
	}
	opts.Direct.Listener = doors
	if clearText {
		opts.Reverse = compat.NewReverseListener(doors.Plain(), up.PublicAddress)
		t.background(opts.Reverse.Serve)
	}
	t.background(doors.Serve)
}

// controlFunc is net.Dialer's and net.ListenConfig's Control.
type controlFunc func(network, address string, c syscall.RawConn) error

// listenPublic listens on the port of a public address.
func listenPublic(ctx context.Context, address string, control controlFunc) (*direct.Listener, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("public_address: %w", err)
	}
	l, err := (&net.ListenConfig{Control: control}).Listen(ctx, "tcp", net.JoinHostPort("", port))
	if err != nil {
		return nil, fmt.Errorf("public_address %s: %w", address, err)
	}
	return direct.NewListener(l, address), nil
}

// dialPublic connects to public addresses and no others: which one, an exit has
// said, and it must not point this machine at its own network. Names are not
// looked up for it.
func dialPublic(control controlFunc) dialFunc {
	d := net.Dialer{ControlContext: carefully(control)}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, errors.New("not an IP address with a port")
		}
		if err := exit.CheckPublic(to.Addr()); err != nil {
			return nil, err
		}
		return d.DialContext(ctx, network, to.String())
	}
}

// exitPaths makes an exit's paths to entries that need no relay, as the operator
// allows: dial applies the policy. stop ends what listens.
func exitPaths(ctx context.Context, e *config.Exit, dial dialFunc) (paths nostrlink.Direct, stop func(), err error) {
	stop = func() {}
	if e.ConnectR != config.ConnectROff {
		paths.Dialer = direct.NewDialer(dial)
	}
	if e.PublicAddress == "" {
		return paths, stop, nil
	}
	if paths.Listener, err = listenPublic(ctx, e.PublicAddress, shareAddress); err != nil {
		return paths, stop, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() { paths.Listener.Serve(ctx) })
	return paths, func() { cancel(); serving.Wait() }, nil
}
