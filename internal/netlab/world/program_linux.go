package world

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	Root   bool              // the exit runs as root
}

// Binary is the path of nws-vpn.
func (w *World) Binary() string { return w.binary }

// nobody is whom the exit runs as.
const nobody = 65534

// exitBinary is where nobody finds the program in the exit, whoever may look into
// the directory that it is in.
const exitBinary = "/run/nws-vpn-program"

// readyNobody has nobody run the exit: the files of its /run are his.
func (w *World) readyNobody() error {
	program, err := os.ReadFile(w.binary)
	if err != nil {
		return fmt.Errorf("world: %w", err)
	}
	return w.Exit.Do(func() error {
		if err := os.WriteFile(exitBinary, program, 0o755); err != nil {
			return err
		}
		return os.Chown("/run", nobody, nobody)
	})
}

// RunNobody runs nws-vpn with args in the exit as a user without privileges, to
// its end.
func (w *World) RunNobody(ctx context.Context, args ...string) (netlab.Result, error) {
	return w.Exit.Run(ctx, netlab.CommandOptions{User: nobody}, exitBinary, args...)
}

// StartNobody starts nws-vpn exit with args in the exit, as a user without
// privileges unless the options say otherwise.
func (w *World) StartNobody(o Options, args ...string) (*netlab.Process, error) {
	if o.Root {
		return w.Start(w.Exit, o, append(args, "--allow-root")...)
	}
	return w.Exit.Start(netlab.CommandOptions{OnLine: o.OnLine, User: nobody}, exitBinary, append(args, o.Args...)...)
}

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
	run := func(args ...string) (netlab.Result, error) { return w.Run(ctx, h, args...) }
	if h == w.Exit {
		run = func(args ...string) (netlab.Result, error) { return w.RunNobody(ctx, args...) }
	}
	res, err := run("keygen", file)
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

// StartExit starts the exit with a key file of its host, as a user without
// privileges, and waits until it is ready. It may reach the internet of this world, whose addresses no exit would
// dial unasked, and asks the resolver there.
func (w *World) StartExit(ctx context.Context, keyFile string, o Options) (*netlab.Process, error) {
	p, err := w.StartNobody(o, "exit", "--key", keyFile, "--relay", RelayURL,
		"--allow-private", "203.0.113.0/24", "--allow-private", "2001:db8::/32", "--allow-private", "198.51.100.0/24",
		"--dns", DNSIP)
	return until(ctx, p, err, "ready")
}

// StartUp starts the client to an exit and waits until it is connected.
func (w *World) StartUp(ctx context.Context, exit string, o Options) (*netlab.Process, error) {
	return w.startUntil(ctx, w.Client, "connected", o, "up", "--exit", exit, "--relay", RelayURL, "--state-dir", StateDir)
}

func (w *World) startUntil(ctx context.Context, h *netlab.Host, start string, o Options, args ...string) (*netlab.Process, error) {
	p, err := w.Start(h, o, args...)
	return until(ctx, p, err, start)
}

// until waits for a line of a process that was started, if it was.
func until(ctx context.Context, p *netlab.Process, err error, start string) (*netlab.Process, error) {
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
