package nostrlink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// Bounds of Find.
const (
	maxFoundEvents = 256 // of one relay
	maxFoundBytes  = 1 << 20
	findGrace      = time.Second // for the other relays, when one has what is looked for
)

// Publish hands a signed event to relays (URLs) and waits for their verdicts.
// It returns nil when at least one has taken it, else why none did.
func (h *Hub) Publish(ctx context.Context, relays []string, event []byte, id [32]byte) error {
	return h.each(ctx, relays, func(p *post) error {
		verdict := make(chan error, 1)
		err := p.publish(ctx, event, id, func(accepted bool, reason string) {
			if accepted || relay.Prefix(reason) == "duplicate" {
				verdict <- nil
				return
			}
			verdict <- fmt.Errorf("relay %s: %s", p.url, strings.ToValidUTF8(reason, "?"))
		})
		if err != nil {
			return err
		}
		select {
		case err = <-verdict:
		case <-ctx.Done():
			err = fmt.Errorf("relay %s: no verdict: %w", p.url, context.Cause(ctx))
		}
		return err
	})
}

// Reconnections calls made each time that a relay (URL) is connected after the
// connection to it was lost, until ctx ends: it may have forgotten everything
// meanwhile. made is called for one relay at a time.
func (h *Hub) Reconnections(ctx context.Context, relays []string, made func(relay string)) {
	var mu sync.Mutex
	var watching sync.WaitGroup
	for _, url := range relays {
		p, err := h.acquire(url)
		if err != nil {
			continue
		}
		watching.Go(func() {
			defer h.release(p)
			for first := true; p.client.Wait(ctx) == nil; first = false {
				lost := p.lost()
				if !first {
					mu.Lock()
					made(url)
					mu.Unlock()
				}
				select {
				case <-lost:
				case <-ctx.Done():
					return // Wait has no look at ctx while there is a connection
				}
			}
		})
	}
	watching.Wait()
}

// Find asks relays (URLs) for the stored events that filters describe, and
// returns what they have, unverified and each as often as it came. When one has
// some, the others are not waited for much longer. It fails when no relay has
// answered.
func (h *Hub) Find(ctx context.Context, relays []string, filters []relay.Filter) ([]*envelope.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var found []*envelope.Event
	id := "find" + strconv.FormatUint(h.searches.Add(1), 10)
	err := h.each(ctx, relays, func(p *post) error {
		events, err := p.find(ctx, id, filters)
		mu.Lock()
		defer mu.Unlock()
		if len(found) == 0 && len(events) > 0 {
			grace := time.AfterFunc(findGrace, cancel)
			context.AfterFunc(ctx, func() { grace.Stop() })
		}
		found = append(found, events...)
		return err
	})
	if len(found) > 0 {
		err = nil
	}
	return found, err
}

// each does something with several relays at once, when they are connected. The
// error says why nothing worked.
func (h *Hub) each(ctx context.Context, relays []string, do func(p *post) error) error {
	relays = relayURLs(relays)
	if len(relays) == 0 {
		return errors.New("nostrlink: no relay to ask")
	}
	results := make(chan error, len(relays))
	for _, url := range relays {
		go func() {
			p, err := h.acquire(url)
			if err != nil {
				results <- err
				return
			}
			defer h.release(p)
			if err = p.connect(ctx); err == nil {
				err = do(p)
			}
			results <- err
		}()
	}
	var errs []error
	for range relays {
		if err := <-results; err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) < len(relays) {
		return nil
	}
	return errors.Join(errs...)
}

// find asks one connected relay under an id that nobody else uses.
func (p *post) find(ctx context.Context, id string, filters []relay.Filter) ([]*envelope.Event, error) {
	var found []*envelope.Event
	size := 0
	err := p.client.Query(ctx, id, filters, 0, func(raw []byte) {
		if size += len(raw); size > maxFoundBytes || len(found) >= maxFoundEvents {
			return
		}
		if ev, err := envelope.ParseEvent(bytes.Clone(raw)); err == nil {
			found = append(found, &ev)
		}
	})
	return found, err
}
