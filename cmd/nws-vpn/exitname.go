package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/keyfile"
	"github.com/nws-vpn/nws-vpn/exit"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// exitName is one name of an exit: a key, and all that is done with it. It has
// connections to relays of its own, so that they do not tell that two names are
// one process.
type exitName struct {
	label    string // in the configuration; "" for the exit's own
	key      envelope.SecretKey
	relays   []string
	log      *slog.Logger // says which name it is about
	keeper   *cert.Keeper // or nil: no service needs it
	hub      *nostrlink.Hub
	listener *nostrlink.Listener
	about    *announcer    // or nil: it is not announced
	ready    chan struct{} // closed when entries can reach it

	closePaths func() // ends what listens at the public address; may be called again

	stop     []func(cause error) // of what is told to relays
	withdraw func(cause error)   // the one of them that takes the announcement back, or nil
	once     sync.Once
}

// openName reads what a name needs of files.
func (r *exitRun) openName(label string, c config.ExitName) (*exitName, error) {
	key, err := keyfile.Read(c.KeyFile)
	if err != nil {
		return nil, err
	}
	n := &exitName{label: label, key: key, relays: c.Relays, ready: make(chan struct{}), log: r.log}
	if label != "" {
		n.log = r.log.With("name", label)
	}
	if len(n.relays) == 0 {
		n.relays = r.cfg.Exit.Relays
	}
	if n.keeper, err = openCertificate(&c, n.relays, key.Public()); err != nil {
		return nil, err
	}
	if c.Announce {
		about, err := announcement(&r.cfg.Exit, key)
		if err != nil {
			return nil, err
		}
		n.about = newAnnouncer(about)
	}
	return n, nil
}

// site is the name as the server knows it.
func (n *exitName) site(services map[uint16]exit.Target) exit.Site {
	s := exit.Site{Key: n.key.Public(), Services: services}
	if n.keeper != nil {
		s.TLS = n.keeper.ServerConfig()
	}
	return s
}

// listen makes the listener of a name.
func (r *exitRun) listen(ctx context.Context, n *exitName) error {
	e := &r.cfg.Exit
	options := nostrlink.HubOptions{AuthKey: n.key, Log: n.log}
	if r.embedded != nil {
		n.relays = append([]string{r.embedded.URL}, n.relays...)
		options.Relay.DialContext = r.embedded.DialContext
	}
	lo := nostrlink.ListenerOptions{
		Log:         n.log,
		Agent:       "nws-vpn " + buildVersion(),
		MaxSessions: e.MaxSessions,
		SessionOnly: e.Mode == config.ModeSession,

		Admit:                r.admit,
		MaxSessionsPerClient: e.MaxClientSessions,
	}
	if e.ConnectR == config.ConnectRClear {
		lo.DialBack = r.server.DialBack
	}
	paths := *e
	if n.label != "" {
		paths.PublicAddress = "" // one address for two names would tell that they are one
	}
	var err error
	if lo.Direct, n.closePaths, err = exitPaths(ctx, &paths, r.server.DialBack); err != nil {
		return err
	}
	r.closing(n.closePaths)
	isReady := sync.OnceFunc(func() { close(n.ready) })
	lo.Ready = func(relay string) {
		fmt.Fprintln(r.out, n.line("ready on "+relay))
		isReady()
	}
	n.hub = nostrlink.NewHub(options)
	r.closing(func() { n.hub.Close() })
	n.listener = n.hub.NewListener(n.key, n.relays, lo)
	fmt.Fprintln(r.out, n.line("npub "+n.key.Public().NPub()))
	fmt.Fprintln(r.out, n.line("name "+name.Name{Key: n.key.Public(), Relays: n.relays}.Host()))
	n.tell(ctx, r)
	return nil
}

// line is a line of output about a name.
func (n *exitName) line(text string) string {
	if n.label != "" {
		text += " (" + n.label + ")"
	}
	return text
}

// tell tells relays of the name, from when it is ready on until stopTelling.
func (n *exitName) tell(ctx context.Context, r *exitRun) {
	if n.about != nil {
		n.withdraw = announceFrom(n.ready, n.listener, n.about, n.log)
		n.stop = append(n.stop, n.withdraw)
	}
	if n.keeper != nil {
		stop := publishCertificate(ctx, &certificatePublisher{
			keeper: n.keeper, key: n.key, relays: n.relays, out: r.out, log: n.log,
			publish: func(ctx context.Context, relay string, event []byte, id [32]byte) error {
				return n.hub.PublishOwn(ctx, n.key, relay, event, id)
			},
		}, n.hub.Reconnections)
		n.stop = append(n.stop, func(error) { stop() })
	}
	r.closing(func() { n.stopTelling(false) })
}

// stopTelling takes the announcement back, unless another process goes on with
// it, and waits until that is done.
func (n *exitName) stopTelling(replaced bool) {
	n.once.Do(func() {
		var cause error
		if replaced {
			cause = nostrlink.ErrReplaced
		}
		var stopping sync.WaitGroup
		for _, stop := range n.stop {
			stopping.Go(func() { stop(cause) })
		}
		stopping.Wait()
	})
}

// serve serves until ctx ends.
func (n *exitName) serve(ctx context.Context, server *exit.Server) error {
	key := n.key.Public()
	return n.listener.Serve(ctx, func(ctx context.Context, req nostrlink.Request) { server.HandleFor(ctx, key, req) })
}
