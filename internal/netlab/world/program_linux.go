package world

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

// StateDir is where the client's nws-vpn keeps its state: in the host's own
// /run, so that it goes with the host.
const StateDir = "/run/nws-vpn"

// Options are how to start one of the programs.
type Options struct {
	Args   []string          // added to the command's
	OnLine func(line string) // or nil: called for every line that it prints
}

// Binary is the path of nws-vpn.
func (w *World) Binary() string { return w.binary }

// Run runs nws-vpn with args in a host to its end.
func (w *World) Run(ctx context.Context, h *netlab.Host, args ...string) (netlab.Result, error) {
	return h.Run(ctx, netlab.CommandOptions{}, w.binary, args...)
}

// Start starts nws-vpn with args in a host.
func (w *World) Start(h *netlab.Host, o Options, args ...string) (*netlab.Process, error) {
	return h.Start(netlab.CommandOptions{OnLine: o.OnLine}, w.binary, append(args, o.Args...)...)
}

var npub = regexp.MustCompile(`\bnpub1[a-z0-9]{58}\b`)

// Keygen makes a key file in a host and returns its public key, an npub.
func (w *World) Keygen(ctx context.Context, h *netlab.Host, file string) (string, error) {
	res, err := w.Run(ctx, h, "keygen", file)
	if err != nil {
		return "", err
	}
	key := npub.FindString(res.Stdout)
	if res.Code != 0 || key == "" {
		return "", fmt.Errorf("world: keygen ended with code %d and no npub: %s", res.Code, res.Output)
	}
	return key, nil
}

// StartRelay starts the relay and waits until it listens.
func (w *World) StartRelay(ctx context.Context, o Options) (*netlab.Process, error) {
	return w.startUntil(ctx, w.Relay, "relay listening", o, "relay", "--listen", RelayIP+":"+RelayPort)
}

// StartRelayAt starts a relay on an address and port of any host and waits
// until it listens.
func (w *World) StartRelayAt(ctx context.Context, h *netlab.Host, address string) (*netlab.Process, error) {
	return w.startUntil(ctx, h, "relay listening", Options{}, "relay", "--listen", address)
}

// StartExit starts the exit with a key file of its host and waits until it is
// ready. It may reach the internet of this world, whose addresses no exit would
// dial unasked, and asks the resolver there.
func (w *World) StartExit(ctx context.Context, keyFile string, o Options) (*netlab.Process, error) {
	return w.startUntil(ctx, w.Exit, "ready", o, "exit", "--key", keyFile, "--relay", RelayURL,
		"--allow-private", "203.0.113.0/24", "--allow-private", "2001:db8::/32", "--allow-private", "198.51.100.0/24",
		"--dns", DNSIP)
}

// StartUp starts the client to an exit and waits until it is connected.
func (w *World) StartUp(ctx context.Context, exit string, o Options) (*netlab.Process, error) {
	return w.startUntil(ctx, w.Client, "connected", o, "up", "--exit", exit, "--relay", RelayURL, "--state-dir", StateDir)
}

func (w *World) startUntil(ctx context.Context, h *netlab.Host, start string, o Options, args ...string) (*netlab.Process, error) {
	p, err := w.Start(h, o, args...)
	if err != nil {
		return nil, err
	}
	if _, err := p.WaitLine(ctx, func(line string) bool { return strings.HasPrefix(line, start) }); err != nil {
		return p, err
	}
	return p, nil
}

// Down runs "nws-vpn down" in the client.
func (w *World) Down(ctx context.Context) error {
	res, err := w.Run(ctx, w.Client, "down", "--state-dir", StateDir)
	if err == nil && res.Code != 0 {
		err = errors.New(res.Output)
	}
	if err != nil {
		return fmt.Errorf("world: down: %w", err)
	}
	return nil
}
