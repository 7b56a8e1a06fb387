package nostrlink

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// postAt is a post at a relay in memory, for tests in fake time. end releases it.
func postAt(t *testing.T, b relaytest.Behaviour) (r *relaytest.Relay, p *post, end func()) {
	t.Helper()
	r = relaytest.New(t, relaytest.Options{Behaviour: b, InMemory: true})
	hub := NewHub(HubOptions{Relay: relay.Options{DialContext: r.DialContext}})
	p, err := hub.acquire(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	return r, p, func() { hub.release(p); hub.Close() }
}

// Who waits for a relay that does not answer waits as long as it wants to, and not
// as long as somebody else who asked first.
func TestConfirmEndsWithItsContext(t *testing.T) {
	for name, b := range map[string]relaytest.Behaviour{
		"down":          {Status: 503},
		"never answers": {NoEOSE: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, p, end := postAt(t, b)
				defer end()
				var patient sync.WaitGroup
				first, second := p.add(newKey(t).Public(), nil), p.add(newKey(t).Public(), nil)
				patient.Go(func() {
					if err := p.confirm(context.Background(), first); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := p.confirm(ctx, second); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("confirmed by a relay that does not answer: %v", err)
				}
				r.Set(relaytest.Behaviour{})
				patient.Wait()
				if err := p.confirm(t.Context(), second); err != nil {
					t.Errorf("by a relay that answers again: %v", err)
				}
			})
		})
	}
}

// eventTo is an event for a key, of anybody.
func eventTo(t *testing.T, key envelope.PublicKey) []byte {
	t.Helper()
	raw, _ := envelopetest.Sign(t, newKey(t), envelope.Template{
		Kind: envelope.KindNWS, CreatedAt: time.Now(), Tags: [][]string{{"p", key.Hex()}}, Content: []byte("x"),
	})
	return raw
}

// A key that the relay refuses takes nothing from those that share its
// subscription: they are listened for as before, also on later connections.
func TestARefusedKeyHarmsNoOther(t *testing.T) {
	for name, b := range map[string]relaytest.Behaviour{
		"too long a filter":   {MaxFilters: 130}, // room for one key
		"no REQ for a minute": {Closed: "rate-limited: slow down"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, p, end := postAt(t, relaytest.Behaviour{})
				defer end()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				heard := make(chan struct{}, 10)
				first := p.add(newKey(t).Public(), func(*envelope.Event, []byte) { heard <- struct{}{} })
				if err := p.confirm(ctx, first); err != nil {
					t.Fatal(err)
				}
				r.Set(b)
				var refused *relay.RefusedError
				if err := p.confirm(ctx, p.add(newKey(t).Public(), nil)); !errors.As(err, &refused) {
					t.Errorf("got %v, want a refusal", err)
				}
				time.AfterFunc(time.Minute, func() { r.Set(relaytest.Behaviour{MaxFilters: 130}) })
				for range 2 {
					synctest.Wait()
					if err := p.confirm(ctx, first); err != nil {
						t.Fatal(err)
					}
					r.Inject(eventTo(t, first.key))
					synctest.Wait()
					if len(heard) != 1 {
						t.Fatal("an event for the first key does not come")
					}
					<-heard
					r.Cut()
				}
			})
		})
	}
}
