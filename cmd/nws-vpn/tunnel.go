package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/dnsintercept"
	"github.com/nws-vpn/nws-vpn/netstack"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/tun"
)

// dialFunc makes connections, as net.Dialer.DialContext does.
type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// tunnel is everything between this machine's programs and the exit.
//
//	programs ─ device ─ stack ─ interceptor ─ router ─ link ═ relays ═ exit
type tunnel struct {
	hub       *nostrlink.Hub
	router    *nostrlink.Router
	stack     *netstack.Stack
	intercept *dnsintercept.Interceptor
	memory    nostrlink.Memory    // or nil
	relayKey  envelope.SecretKey  // who we are to relays that ask; zero: nobody
	split     *dnsintercept.Split // or nil

	credentials credentialsFunc // or nil

	undo []func() error // what lower does, last first
}

// connectTimeout bounds how long up waits for its first session, and
// lookUpTimeout how much of that it waits to hear where the exit listens.
const (
	connectTimeout = 14 * time.Second
	lookUpTimeout  = 3 * time.Second
)

// defers has lower call f.
func (t *tunnel) defers(f func() error) { t.undo = append(t.undo, f) }

// lower undoes what was started and waits until all of it is gone.
func (t *tunnel) lower() error {
	var errs []error
	for i := len(t.undo) - 1; i >= 0; i-- {
		errs = append(errs, t.undo[i]())
	}
	t.undo = nil
	return errors.Join(errs...)
}

// background runs serve until stop or lower is called.
func (t *tunnel) background(serve func(ctx context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { serve(ctx) })
	stop = func() { cancel(); wg.Wait() }
	t.defers(func() error { stop(); return nil })
	return stop
}

// connectTo connects to the exit, or to the one that is chosen. dial reaches
// relays outside the tunnel, and relays are those that the user knows.
func (t *tunnel) connectTo(ctx context.Context, dial dialFunc, exit name.Name, relays []string, cfg *config.Config, log *slog.Logger) error {
	agent := "nws-vpn " + buildVersion()
	t.hub = nostrlink.NewHub(nostrlink.HubOptions{Relay: relay.Options{DialContext: dial}, AuthKey: t.relayKey, AuthRelays: relays, Log: log})
	t.defers(t.hub.Close)
	opts := nostrlink.LinkOptions{Log: log, Agent: agent, Duplicate: cfg.Up.Duplicate}
	if cfg.Up.Spread == "stripe" {
		opts.Spread = nostrlink.Stripe
	}
	speaks(&opts, &cfg.Up)
	opts.Memory, opts.Credentials = t.memory, t.credentials
	t.makePaths(ctx, &opts, &cfg.Up, log)
	directory := t.hub.NewDirectory(relays, log)
	if cfg.Up.Exit == config.AutoExit {
		rule, err := autoRule(&cfg.Up)
		if err != nil {
			return err
		}
		chooser := directory.NewChooser(rule, opts)
		t.defers(chooser.Close)
		link, err := chooser.Start(ctx)
		if err != nil {
			return err
		}
		t.route(link, relays, opts)
		chooser.Watch(t.router.SetMain)
		return nil
	}
	key := envelope.PublicKey(exit.Key)
	link := t.hub.NewLink(key, relays, opts)
	stop := t.background(link.Serve)
	if len(exit.Relays) == 0 {
		if at := elsewhere(ctx, link, directory); len(at) > 0 {
			log.Info("the exit listens elsewhere", "relays", at)
			stop()
			link = t.hub.NewLink(key, at, opts)
			t.background(link.Serve)
		}
	}
	t.route(link, relays, opts)
	return link.Connect(ctx)
}

// elsewhere looks up where the exit listens while link is on its way to it, and
// returns that unless link gets there or the user's relays are what there is.
func elsewhere(ctx context.Context, link *nostrlink.Link, directory *nostrlink.Directory) []string {
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	here := false
	var connecting sync.WaitGroup
	connecting.Go(func() {
		if link.Connect(ctx) == nil {
			here = true
			cancel()
		}
	})
	at := directory.RelaysOf(ctx, link.Exit())
	cancel()
	connecting.Wait()
	if here || directory.Own(at) {
		return nil
	}
	return at
}

// route makes what dials, by default through link.
func (t *tunnel) route(link *nostrlink.Link, relays []string, opts nostrlink.LinkOptions) {
	t.router = t.hub.NewRouter(link, relays, opts)
	t.defers(t.router.Close)
}

// openPool opens the fake addresses and what is remembered of them.
func (t *tunnel) openPool(dirs stateDirs, fakes dnsintercept.Range, log *slog.Logger) (*dnsintercept.Pool, error) {
	store, err := dnsintercept.OpenFileStore(filepath.Join(dirs.lasting(), "names"))
	if err != nil {
		return nil, err
	}
	t.defers(store.Close)
	return dnsintercept.NewPool(store.Key(), dnsintercept.PoolOptions{Range: fakes, Store: store, Log: log})
}

// startStack serves the flows of dev, which it owns from now on, through sites,
// and DNS through the router.
func (t *tunnel) startStack(dev tun.Device, pool *dnsintercept.Pool, sites netstack.Dialer, book name.Book, cfg *config.Config, log *slog.Logger) error {
	upstream := dnsintercept.NewStreamUpstream(func(ctx context.Context) (net.Conn, error) {
		return t.router.DialContext(ctx, "dns", "")
	})
	t.defers(upstream.Close)
	t.intercept = dnsintercept.New(upstream, pool, dnsintercept.Options{Names: book, RefuseTLS: !cfg.Up.DNSOverTLS, Split: t.split, Log: log})
	if err := t.serveDevice(dev, sites, cfg, log); err != nil {
		return err
	}
	t.defers(func() error { return t.stack.Close() })
	return nil
}

// serveDevice serves the flows of dev, which it owns from now on: of the first
// device, or of the one that takes the place of a device that is gone.
func (t *tunnel) serveDevice(dev tun.Device, sites netstack.Dialer, cfg *config.Config, log *slog.Logger) error {
	forward := netstack.Forward(t.intercept.Dialer(sites), netstack.ForwardOptions{EarlyPorts: cfg.Up.EarlyPorts})
	stack, err := netstack.New(dev, t.intercept.Handler(forward), netstack.Options{UDPIdle: cfg.Up.UDPIdle.Duration(), Log: log})
	if err != nil {
		dev.Close()
		return err
	}
	t.stack = stack
	return nil
}

var errNoRelay = errors.New("no relay is known for the exit: name one with --relay wss://… or with relays in the section [up] of the configuration")

// chooseExit reads what the user calls the exit: a petname or any form of name
// or key, or config.AutoExit, which is none yet. The user's relays count;
// without any, those in the name do. With errNoRelay the exit is returned, too.
func chooseExit(text string, relays []string, book name.Book) (n name.Name, _ []string, err error) {
	if text == "" {
		return n, nil, fmt.Errorf("no exit is chosen: name one with --exit npub1… or with exit in the section [up] of the configuration, such as %s", config.Path())
	}
	if text != config.AutoExit {
		if n, err = findName(text, book); err != nil {
			return n, nil, fmt.Errorf("exit: %w", err)
		}
	}
	if len(relays) == 0 {
		relays = n.Relays
	}
	if len(relays) == 0 {
		return n, nil, errNoRelay
	}
	return n, relays, nil
}

// findName reads a name in any spelling, or a petname with or without ".nostr". The
// error does not repeat what may be a secret, pasted by mistake.
func findName(text string, book name.Book) (name.Name, error) {
	n, err := name.Parse(text)
	if err == nil {
		return n, nil
	}
	if name.Under(text) {
		n, err = book.Lookup(text)
	} else if known, ok := book[strings.ToLower(text)]; ok {
		return known, nil
	}
	if errors.Is(err, name.ErrNoSpelling) {
		err = errors.New("neither an npub, an nprofile, 64 hexadecimal digits, a .nostr name, nor one of [names] in the configuration or of the exits that were joined")
	}
	if meant := book.Nearest(text); err != nil && meant != "" {
		err = fmt.Errorf("%w: did you mean %s.nostr?", err, meant)
	}
	return n, err
}
