package nostrlink

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// post is one relay as all of this process shares it.
type post struct {
	url    string
	client *relay.Client
	stop   context.CancelFunc
	users  int // guarded by Hub.mu

	described chan struct{} // closed when info is what there will be
	info      relay.Info

	mu      sync.Mutex
	boxes   map[envelope.PublicKey]*box
	shards  []*shard
	waiting map[*context.CancelCauseFunc]struct{} // in connect
	down    chan struct{}                         // closed unless the relay is connected
}

func newPost(url string, opts relay.Options) (*post, error) {
	p := &post{
		url:       url,
		described: make(chan struct{}),
		boxes:     make(map[envelope.PublicKey]*box),
		waiting:   make(map[*context.CancelCauseFunc]struct{}),
		down:      make(chan struct{}),
	}
	close(p.down)
	var err error
	p.client, err = relay.NewClient(url, relay.ClientOptions{Options: opts, OnState: p.changed})
	return p, err
}

// relayURL writes equal relay URLs alike, so that they share a connection and
// both ends of a session mean the same. What is no URL stays as it is.
func relayURL(text string) string {
	url, err := name.Relay(text)
	if err != nil {
		return text
	}
	return url
}

// relayURLs writes a list of relays so, without repetitions.
func relayURLs(texts []string) []string {
	var out []string
	for _, text := range texts {
		if url := relayURL(text); !slices.Contains(out, url) {
			out = append(out, url)
		}
	}
	return out
}

// describeTimeout bounds the wait for a relay's description. Most relays have
// one, but none of them must.
const describeTimeout = 3 * time.Second

// describe asks the relay for its limits. (NIP-11)
func (p *post) describe(ctx context.Context, opts relay.Options) {
	defer close(p.described)
	opts.ReplyTimeout = describeTimeout
	info, err := relay.FetchInfo(ctx, p.url, opts)
	if err != nil {
		opts.Log.Debug("relay gives no description", "relay", p.url, "err", err)
		return
	}
	p.info = info
}

// maxPacket is the largest packet that fits an event for the relay, in bytes,
// or 0 if the relay takes none that is worth it. It waits for the relay's
// description.
func (p *post) maxPacket(ctx context.Context) int {
	select {
	case <-p.described:
	case <-ctx.Done():
		return 0
	}
	l := p.info.Limitation
	return packetFor(l.MaxMessageLength, l.MaxContentLength)
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
	p.mu.Lock()
	defer p.mu.Unlock()
	up := true
	select {
	case <-p.down:
		up = false
	default:
	}
	switch {
	case s.State == relay.Connected && !up:
		p.down = make(chan struct{})
	case s.State != relay.Connected && up:
		close(p.down)
	}
	if s.State == relay.Waiting {
		for cancel := range p.waiting {
			(*cancel)(&attemptError{s.Err})
		}
	}
}

// lost is closed when the connection of this moment is lost, or there is none.
func (p *post) lost() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

// box receives the events addressed to one key.
type box struct {
	post    *post
	key     envelope.PublicKey
	shard   *shard
	version int // of the shard's key set, the first that has the key

	mu      sync.Mutex
	deliver deliverFunc
}

// shard is one subscription. A relay bounds the size of a filter and the
// number of subscriptions, so keys share filters up to shardKeys each.
type shard struct {
	id   string
	keys int

	updating chan struct{} // held, by sending to it, while a REQ is on its way
	wanted   int           // version of the key set, guarded by post.mu
	sent     int           // version the relay has confirmed, guarded by updating
}

const shardKeys = 256

// deliverFunc receives an event and the JSON it was parsed from, both borrowed
// until it returns.
type deliverFunc func(ev *envelope.Event, raw []byte)

// add opens a box for the events addressed to key; nothing arrives before
// confirm. There must be no other box for the key. deliver is called in the
// order of arrival, from the relay's read loop: it must not block for long. It
// may be nil until redirect.
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
		s = &shard{id: fmt.Sprintf("nws%d", len(p.shards)), updating: make(chan struct{}, 1)}
		p.shards = append(p.shards, s)
	}
	s.keys++
	s.wanted++
	b := &box{post: p, key: key, shard: s, version: s.wanted, deliver: deliver}
	p.boxes[key] = b
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

// confirm returns once the relay is connected and has confirmed that it will
// pass on what is addressed to the box. Changes that come while a REQ is on its
// way share the next one. A REQ may take as long as the relay is away: everybody
// waits for another's only until the own ctx ends.
func (p *post) confirm(ctx context.Context, b *box) error {
	if err := p.update(ctx, b); err != nil {
		return err
	}
	return p.client.Wait(ctx)
}

// update has the relay confirm a key set with the box's key, unless it has.
func (p *post) update(ctx context.Context, b *box) error {
	s := b.shard
	select {
	case s.updating <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("relay %s: has not confirmed a subscription yet: %w", p.url, ctx.Err())
	}
	defer func() { <-s.updating }()
	if s.sent >= b.version {
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
