package reftest

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// Filter says which events a subscription gets.
type Filter struct {
	To     envelope.PublicKey
	Author envelope.PublicKey // or zero for everybody's
	Since  int64
}

// Relay is what the peers here need of a relay.
type Relay interface {
	// Publish returns when the relay has taken the event.
	Publish(ctx context.Context, event []byte, id [32]byte) error
	// Subscribe returns when the relay will pass on events; it does until ctx
	// ends. deliver is called from one goroutine, and owns the event.
	Subscribe(ctx context.Context, f Filter, deliver func(*envelope.Event)) error
}

// Bus is a Relay in memory, which passes events on in order.
type Bus struct {
	opts BusOptions

	mu     sync.Mutex
	subs   map[*subscriber]struct{}
	closed bool
	wg     sync.WaitGroup
}

// BusOptions are a Bus's ways.
type BusOptions struct {
	OK       time.Duration                 // until an event is confirmed
	Batch    time.Duration                 // events are passed on in batches, sorted as strfry does
	Drop     func(ev *envelope.Event) bool // or nil
	MaxEvent int                           // bytes; 0 is no limit
}

type subscriber struct {
	Filter
	events chan *envelope.Event
	done   <-chan struct{}
}

// NewBus returns a Bus. Close it.
func NewBus(opts BusOptions) *Bus {
	return &Bus{opts: opts, subs: make(map[*subscriber]struct{})}
}

// Close ends all subscriptions and waits for what they deliver.
func (b *Bus) Close() {
	b.mu.Lock()
	b.closed = true
	for s := range b.subs {
		delete(b.subs, s)
		close(s.events)
	}
	b.mu.Unlock()
	b.wg.Wait()
}

// Publish checks the event as a relay does, and passes it on.
func (b *Bus) Publish(ctx context.Context, raw []byte, _ [32]byte) error {
	ev, err := envelope.ParseEvent(append([]byte(nil), raw...))
	if err == nil {
		err = ev.Verify()
	}
	switch {
	case err != nil:
		return fmt.Errorf("reftest: %w", err)
	case b.opts.MaxEvent > 0 && len(raw) > b.opts.MaxEvent:
		return fmt.Errorf("reftest: invalid: event of %d bytes", len(raw))
	}
	if b.opts.Drop == nil || !b.opts.Drop(&ev) {
		if err := b.pass(&ev); err != nil {
			return err
		}
	}
	select {
	case <-time.After(b.opts.OK):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Bus) pass(ev *envelope.Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		if !s.wants(ev) {
			continue
		}
		select {
		case s.events <- ev:
		default:
			return fmt.Errorf("reftest: a subscriber is slow")
		}
	}
	return nil
}

func (f *Filter) wants(ev *envelope.Event) bool {
	if ev.Kind != envelope.KindNWS || ev.CreatedAt < f.Since || f.Author != (envelope.PublicKey{}) && f.Author != ev.PubKey {
		return false
	}
	for tag, value := range ev.Tags {
		if string(tag) == "p" && string(value) == f.To.Hex() {
			return true
		}
	}
	return false
}

// Subscribe passes on what is published from now on.
func (b *Bus) Subscribe(ctx context.Context, f Filter, deliver func(*envelope.Event)) error {
	s := &subscriber{Filter: f, events: make(chan *envelope.Event, 1<<14), done: ctx.Done()}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("reftest: the bus is closed")
	}
	b.subs[s] = struct{}{}
	b.wg.Go(func() { b.serve(s, deliver) })
	return nil
}

func (b *Bus) serve(s *subscriber, deliver func(*envelope.Event)) {
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subs, s)
	}()
	for {
		select {
		case <-s.done:
			return
		case ev, ok := <-s.events:
			if !ok {
				return
			}
			for _, ev := range b.batch(s, ev) {
				deliver(ev)
			}
		}
	}
}

// batch collects what comes for a while.
func (b *Bus) batch(s *subscriber, first *envelope.Event) []*envelope.Event {
	if b.opts.Batch == 0 {
		return []*envelope.Event{first}
	}
	batch := []*envelope.Event{first}
	end := time.After(b.opts.Batch)
	for {
		select {
		case ev, ok := <-s.events:
			if !ok {
				return batch
			}
			batch = append(batch, ev)
		case <-end:
			sortBatch(batch)
			return batch
		case <-s.done:
			return nil
		}
	}
}

// Websocket is a Relay at a URL.
type Websocket struct {
	client *relay.Client
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	subs int
}

// Dial begins to connect to a relay. Close the result.
func Dial(url string, opts relay.Options) (*Websocket, error) {
	client, err := relay.NewClient(url, relay.ClientOptions{Options: opts})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Websocket{client: client, cancel: cancel}
	w.wg.Go(func() { client.Serve(ctx) })
	return w, nil
}

// Close ends the connection.
func (w *Websocket) Close() {
	w.cancel()
	w.wg.Wait()
}

// Publish sends the event and waits for its OK.
func (w *Websocket) Publish(ctx context.Context, event []byte, id [32]byte) error {
	answer := make(chan error, 1)
	err := w.client.Publish(ctx, event, id, func(accepted bool, reason string) {
		if accepted {
			answer <- nil
		} else {
			answer <- fmt.Errorf("reftest: the relay refused: %s", reason)
		}
	})
	if err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Subscribe keeps a subscription until ctx ends.
func (w *Websocket) Subscribe(ctx context.Context, f Filter, deliver func(*envelope.Event)) error {
	w.mu.Lock()
	w.subs++
	id := fmt.Sprintf("ref%d", w.subs)
	w.mu.Unlock()
	filter := relay.Filter{
		Kinds: []int{envelope.KindNWS},
		Tags:  map[string][]string{"p": {f.To.Hex()}},
		Since: &f.Since,
	}
	if f.Author != (envelope.PublicKey{}) {
		filter.Authors = []string{hex.EncodeToString(f.Author[:])}
	}
	return w.client.Subscribe(ctx, id, []relay.Filter{filter}, func(raw []byte) {
		ev, err := envelope.ParseEvent(append([]byte(nil), raw...))
		if err == nil && ctx.Err() == nil {
			deliver(&ev)
		}
	})
}
