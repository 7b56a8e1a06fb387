package nostrlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Router is a dialer that finds the exit for each destination: an address with
// a .nostr name goes to the exit of that name, everything else to the default
// exit. Links to other exits than the default one are made when they are
// needed and dropped when they have been idle.
//
// All methods may be called concurrently.
type Router struct {
	hub     *Hub
	main    atomic.Pointer[Link]
	relays  []string    // the user's own
	opts    LinkOptions // of links to other exits
	ctx     context.Context
	cancel  context.CancelFunc
	serving sync.WaitGroup

	mu    sync.Mutex
	links map[envelope.PublicKey]*sideLink
}

// sideLink is a link to an exit other than the default one.
type sideLink struct {
	*Link
	named bool      // its name says where it listens
	used  time.Time // when a flow was last dialed, guarded by Router.mu
}

// Links to other exits are bounded in number and end after they have carried
// nothing for a while.
const (
	maxSideLinks = 32
	sideIdle     = 5 * time.Minute
	sideCheck    = time.Minute

	maxSideRelays = 8 // tried for one of them
)

// NewRouter returns a router whose default exit is behind main. relays are the
// user's own: an exit whose name says nothing of relays is looked up there.
// main is the caller's to serve.
func (h *Hub) NewRouter(main *Link, relays []string, opts LinkOptions) *Router {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	r := &Router{
		hub: h, relays: relayURLs(relays), opts: opts,
		links: make(map[envelope.PublicKey]*sideLink),
	}
	r.opts.Direct = Direct{} // who runs some .nostr site need not learn where its visitors are
	r.main.Store(main)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Main is the link to the default exit.
func (r *Router) Main() *Link { return r.main.Load() }

// SetMain makes another exit the default one, for flows from now on; those that
// are being dialed when the old link ends go to the new exit.
func (r *Router) SetMain(main *Link) { r.main.Store(main) }

// Close ends the links to other exits than the default one, and waits for them.
func (r *Router) Close() error {
	r.cancel()
	r.serving.Wait()
	return nil
}

// DialContext opens a flow; see Link.DialContext.
func (r *Router) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return r.dial(ctx, address, func(l *Link, address string) (net.Conn, error) {
		return l.DialContext(ctx, network, address)
	})
}

// dial opens a flow by the link for its address. When another exit becomes the
// default one meanwhile, it opens the flow there.
func (r *Router) dial(ctx context.Context, address string, open func(l *Link, address string) (net.Conn, error)) (net.Conn, error) {
	for {
		main := r.Main()
		l, at, err := r.route(ctx, main, address)
		if err != nil {
			return nil, err
		}
		conn, err := open(l, at)
		if l != main || main == r.Main() || !errors.Is(err, net.ErrClosed) {
			return conn, err
		}
	}
}

// DialEarly opens a flow without waiting for the exit's verdict; see
// Link.DialEarly.
func (r *Router) DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error) {
	return r.dial(ctx, address, func(l *Link, address string) (net.Conn, error) {
		return l.DialEarly(ctx, network, address, first)
	})
}

// route finds the link for an address, which may have a port, and how its exit
// calls the address. A link to another exit than the default one is connected.
func (r *Router) route(ctx context.Context, main *Link, address string) (*Link, string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = address, ""
	}
	if !name.Under(host) {
		return main, address, nil
	}
	n, err := name.ParseHost(host)
	if err != nil {
		return nil, "", &wire.Error{Code: wire.CodeNameNotFound, Text: err.Error()}
	}
	exit := envelope.PublicKey(n.Key)
	// The exit knows itself by its key; relays in the name are for us.
	address = name.Name{Key: n.Key}.Host()
	if port != "" {
		address = net.JoinHostPort(address, port)
	}
	if exit == main.Exit() {
		return main, address, nil
	}
	l, err := r.side(exit, n.Relays)
	if err != nil {
		return nil, "", err
	}
	if err := l.Connect(ctx); err != nil {
		return nil, "", &wire.Error{Code: wire.CodeHostUnreachable, Text: err.Error()}
	}
	return l.Link, address, nil
}

// side returns the link to an exit that is not the default one, making it if
// need be.
func (r *Router) side(exit envelope.PublicKey, relays []string) (*sideLink, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	l := r.links[exit]
	if l == nil {
		if len(r.links) >= maxSideLinks {
			return nil, &wire.Error{Code: wire.CodeBusy, Text: fmt.Sprintf("%d exits are in use already", maxSideLinks)}
		}
		relays = r.usable(relays)
		named := len(relays) > 0
		relays = append(relays, r.relays...)
		l = &sideLink{Link: r.hub.NewLink(exit, relays[:min(len(relays), maxSideRelays)], r.opts), named: named}
		l.set(Connecting, nil, nil) // so that Connect waits for Serve
		r.links[exit] = l
		r.serving.Go(func() { r.serve(l) })
	}
	l.used = time.Now()
	return l, nil
}

// usable leaves of the relays that a name asks for those that the user has
// named too or that are reached over TLS by a host name: a .nostr name must not
// make this machine connect to an address of its own network.
func (r *Router) usable(relays []string) []string {
	var out []string
	for _, relay := range relays {
		if slices.Contains(r.relays, relayURL(relay)) || name.PublicRelay(relay) == nil {
			out = append(out, relay)
		}
	}
	return out
}

// serve keeps a side link until it is idle or the router closes.
func (r *Router) serve(l *sideLink) {
	ctx, stop := context.WithCancel(r.ctx)
	defer stop()
	r.serving.Go(func() {
		defer stop()
		check := time.NewTicker(sideCheck)
		defer check.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-check.C:
			}
			if r.drop(l, time.Now()) {
				return
			}
		}
	})
	if !l.named {
		asking, cancel := context.WithTimeout(ctx, lookTimeout)
		relays := r.hub.NewDirectory(r.relays, r.opts.Log).RelaysOf(asking, l.Exit())
		cancel()
		l.relays = relays[:min(len(relays), maxSideRelays)] // nobody has used them yet
	}
	l.Serve(ctx)
}

// drop forgets a link that nothing uses, and reports whether it did.
func (r *Router) drop(l *sideLink, now time.Time) bool {
	busy := l.inUse()
	r.mu.Lock()
	defer r.mu.Unlock()
	if busy || now.Sub(l.used) < sideIdle {
		return false
	}
	delete(r.links, l.Exit())
	return true
}
