package nostrlink

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// HubOptions are the choices of a Hub; the zero value works.
type HubOptions struct {
	Relay relay.Options // how relays are reached; see there. Auth is the hub's
	// AuthKey answers relays that ask their clients to authenticate (NIP-42);
	// without one, a throw-away key does.
	AuthKey envelope.SecretKey
	// AuthRelays are the relays (URLs) that are answered with AuthKey, others with
	// a throw-away key; nil for all.
	AuthRelays []string
	Log        *slog.Logger
}

// Hub keeps one connection to each relay that is in use, however many links
// and sessions use it, and hands each event to whoever listens for the key it
// is addressed to. All methods may be called concurrently.
type Hub struct {
	opts HubOptions

	mu     sync.Mutex
	posts  map[string]*post // by URL, as relayURL writes it
	closed bool
	wg     sync.WaitGroup

	stranger envelope.SecretKey // thrown away with the hub; made when it is first needed

	searches atomic.Uint64 // numbers the subscriptions of Find
}

// NewHub returns a hub with no connection yet.
func NewHub(opts HubOptions) *Hub {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	h := &Hub{opts: opts, posts: make(map[string]*post)}
	if opts.AuthRelays != nil {
		h.opts.AuthRelays = append([]string{}, relayURLs(opts.AuthRelays)...)
	}
	h.opts.Relay.Log = opts.Log
	h.opts.Relay.Auth = h.authenticate
	return h
}

func (h *Hub) authenticate(_ context.Context, url, challenge string) (event []byte, id [32]byte, err error) {
	key, err := h.authKey(url)
	if err != nil {
		return nil, id, err
	}
	return signChallenge(key, url, challenge)
}

// authKey is who we are to a relay.
func (h *Hub) authKey(url string) (key envelope.SecretKey, err error) {
	known := h.opts.AuthRelays == nil || slices.Contains(h.opts.AuthRelays, url)
	if known && !h.opts.AuthKey.IsZero() {
		return h.opts.AuthKey, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stranger.IsZero() {
		h.stranger, err = envelope.GenerateSecretKey()
	}
	return h.stranger, err
}

// NetworkChanged makes sure that every relay connection still works, and dials
// anew, at once, those that do not. Call it after the machine's network has
// changed.
func (h *Hub) NetworkChanged() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.posts {
		p.client.Check()
	}
}

// Close ends every relay connection and waits for them. Links and listeners
// should be ended first: what they send afterwards is lost.
func (h *Hub) Close() error {
	h.mu.Lock()
	h.closed = true
	for _, p := range h.posts {
		p.stop()
	}
	h.mu.Unlock()
	h.wg.Wait()
	return nil
}

// acquire returns the post of a relay, connecting if nobody did yet. Each
// successful call needs a release. It fails on what is no relay URL.
func (h *Hub) acquire(url string) (*post, error) {
	url = relayURL(url)
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.posts[url]
	if p == nil {
		if h.closed {
			return nil, net.ErrClosed
		}
		var err error
		if p, err = newPost(url, h.opts.Relay); err != nil {
			return nil, err
		}
		ctx, stop := context.WithCancel(context.Background())
		p.stop = stop
		h.posts[url] = p
		h.wg.Go(func() { p.client.Serve(ctx) })
		h.wg.Go(func() { p.describe(ctx, h.opts.Relay) })
	}
	p.users++
	return p, nil
}

func (h *Hub) release(p *post) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(h.posts, p.url)
		p.stop()
	}
}
