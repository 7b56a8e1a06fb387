package nostrlink

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// HubOptions are the choices of a Hub; the zero value works.
type HubOptions struct {
	Relay relay.Options // how relays are reached; see there
	Log   *slog.Logger
}

// Hub keeps one connection to each relay that is in use, however many links
// and sessions use it, and hands each event to whoever listens for the key it
// is addressed to. All methods may be called concurrently.
type Hub struct {
	opts HubOptions

	mu     sync.Mutex
	posts  map[string]*post
	closed bool
	wg     sync.WaitGroup
}

// NewHub returns a hub with no connection yet.
func NewHub(opts HubOptions) *Hub {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Hub{opts: opts, posts: make(map[string]*post)}
}

// Redial drops every relay connection and dials anew at once, without waiting
// for a timeout to show that the old one is dead. Call it after the machine's network has changed.
func (h *Hub) Redial() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.posts {
		p.client.Redial()
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
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.posts[url]
	if p == nil {
		if h.closed {
			return nil, net.ErrClosed
		}
		p = &post{
			url:     url,
			boxes:   make(map[envelope.PublicKey]*box),
			waiting: make(map[*context.CancelCauseFunc]struct{}),
		}
		opts := h.opts.Relay
		opts.Log = h.opts.Log
		var err error
		if p.client, err = relay.NewClient(url, relay.ClientOptions{Options: opts, OnState: p.changed}); err != nil {
			return nil, err
		}
		ctx, stop := context.WithCancel(context.Background())
		p.stop = stop
		h.posts[url] = p
		h.wg.Go(func() { p.client.Serve(ctx) })
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

// post is one relay as all of this process shares it.
type post struct {
	url    string
	client *relay.Client
	stop   context.CancelFunc
	users  int // guarded by Hub.mu

	mu      sync.Mutex
	boxes   map[envelope.PublicKey]*box
	shards  []*shard
	waiting map[*context.CancelCauseFunc]struct{} // in connect
}

// connect waits until the relay is connected. Unlike the client, which tries
// for ever, it gives up when an attempt fails, so that the user hears at once
// of a relay that is not there.
func (p *post) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.mu.Lock()
	p.waiting[&cancel] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, &cancel)
		p.mu.Unlock()
	}()
	if s := p.client.Status(); s.State == relay.Waiting {
		return s.Err
	}
	err := p.client.Wait(ctx)
	if failed := new(attemptError); err != nil && errors.As(context.Cause(ctx), &failed) {
		return failed.error
	}
	return err
}

// attemptError is why an attempt to reach a relay failed.
type attemptError struct{ error }

// changed hears of the client's states.
func (p *post) changed(s relay.Status) {
	if s.State != relay.Waiting {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for cancel := range p.waiting {
		(*cancel)(&attemptError{s.Err})
	}
}

// box receives the events addressed to one key.
type box struct {
	post  *post
	key   envelope.PublicKey
	shard *shard

	mu      sync.Mutex
	deliver deliverFunc
}

// shard is one subscription. A relay bounds the size of a filter and the
// number of subscriptions, so keys share filters up to shardKeys each.
type shard struct {
	id   string
	keys int

	updating sync.Mutex // held while a REQ is on its way
	wanted   int        // version of the key set, guarded by post.mu
	sent     int        // version the relay has confirmed, guarded by updating
}

const shardKeys = 256

// deliverFunc receives an event and the JSON it was parsed from, both borrowed
// until it returns.
type deliverFunc func(ev *envelope.Event, raw []byte)

// add opens a box for the events addressed to key; nothing arrives before
// confirm. deliver is called in the order of arrival, from the relay's read
// loop: it must not block for long. It may be nil until redirect.
func (p *post) add(key envelope.PublicKey, deliver deliverFunc) *box {
	p.mu.Lock()
	defer p.mu.Unlock()
	var s *shard
	for _, other := range p.shards {
		if other.keys < shardKeys {
			s = other
			break
		}
	}
	if s == nil {
		s = &shard{id: fmt.Sprintf("nws%d", len(p.shards))}
		p.shards = append(p.shards, s)
	}
	b := &box{post: p, key: key, shard: s, deliver: deliver}
	p.boxes[key] = b
	s.keys++
	s.wanted++
	return b
}

// redirect changes who receives the box's events.
func (b *box) redirect(deliver deliverFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deliver = deliver
}

// close ends delivery. The relay hears of it with the next change of the
// subscription: until then its events are dropped here.
func (b *box) close() {
	p := b.post
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.boxes[b.key] == b {
		delete(p.boxes, b.key)
		b.shard.keys--
	}
}

// confirm returns once the relay has confirmed that it will pass on what is
// addressed to the boxes. Changes that come while a REQ is on its way share
// the next one.
func (p *post) confirm(ctx context.Context, boxes ...*box) error {
	for _, b := range boxes {
		if err := p.update(ctx, b.shard); err != nil {
			return err
		}
	}
	return nil
}

func (p *post) update(ctx context.Context, s *shard) error {
	p.mu.Lock()
	need := s.wanted
	p.mu.Unlock()
	s.updating.Lock()
	defer s.updating.Unlock()
	if s.sent >= need {
		return nil
	}
	version, filter := p.filter(s)
	// A filter without keys would match everybody's events.
	if len(filter.Tags["p"]) > 0 {
		if err := p.client.Subscribe(ctx, s.id, []relay.Filter{filter}, p.dispatch); err != nil {
			return err
		}
	}
	s.sent = version
	return nil
}

func (p *post) filter(s *shard) (version int, f relay.Filter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var keys []string
	for key, b := range p.boxes {
		if b.shard == s {
			keys = append(keys, key.Hex())
		}
	}
	none := 0
	return s.wanted, relay.Filter{
		Kinds: []int{envelope.KindNWS},
		Tags:  map[string][]string{"p": keys},
		Limit: &none,
	}
}

// dispatch hands an event to the box it is addressed to. Events that are
// malformed or for nobody are the relay's noise and are dropped.
func (p *post) dispatch(raw []byte) {
	ev, err := envelope.ParseEvent(raw)
	if err != nil || ev.Kind != envelope.KindNWS {
		return
	}
	to, ok := recipient(&ev)
	if !ok {
		return
	}
	p.mu.Lock()
	b := p.boxes[to]
	p.mu.Unlock()
	if b == nil {
		return
	}
	b.mu.Lock()
	deliver := b.deliver
	b.mu.Unlock()
	if deliver != nil {
		deliver(&ev, raw)
	}
}

// recipient is the key in the event's first p tag.
func recipient(ev *envelope.Event) (to envelope.PublicKey, ok bool) {
	for name, value := range ev.Tags {
		if string(name) == "p" {
			if len(value) != hex.EncodedLen(len(to)) {
				return to, false
			}
			_, err := hex.Decode(to[:], value)
			return to, err == nil
		}
	}
	return to, false
}

func (p *post) publish(ctx context.Context, event []byte, id [32]byte, onOK func(accepted bool, reason string)) error {
	return p.client.Publish(ctx, event, id, onOK)
}
