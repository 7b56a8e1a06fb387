package relay_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// longFilters want more than forRecipient, in more bytes than maxFilters.
func longFilters() []relay.Filter {
	f := forRecipient()
	f[0].Tags["p"] = append(f[0].Tags["p"], strings.Repeat("b", 64), strings.Repeat("c", 64))
	return f
}

const maxFilters = 200

// wantRefused checks that an error is a relay's no.
func wantRefused(t *testing.T, err error) {
	t.Helper()
	var refused *relay.RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("got %v, want a refusal", err)
	}
}

// TestClientKeepsWhatWasConfirmed: a relay that refuses a change of a subscription
// has thereby ended what it had confirmed before. The client asks for that again.
func TestClientKeepsWhatWasConfirmed(t *testing.T) {
	for name, test := range map[string]struct {
		relay   relaytest.Behaviour
		refused relay.State // the client's
	}{
		"the change is refused":       {relaytest.Behaviour{MaxFilters: maxFilters}, relay.Connected},
		"and everything for a minute": {relaytest.Behaviour{Closed: "rate-limited: slow down"}, relay.Waiting},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, c := served(t, relaytest.Behaviour{}, relay.ClientOptions{})
				got := make(chan string, 10)
				to := func(name string) func([]byte) { return func([]byte) { got <- name } }
				if err := c.Subscribe(t.Context(), "s", forRecipient(), to("old")); err != nil {
					t.Fatal(err)
				}
				r.Set(test.relay)
				wantRefused(t, c.Subscribe(t.Context(), "s", longFilters(), to("new")))
				synctest.Wait()
				s := c.Status()
				if s.State != test.refused {
					t.Errorf("the client is %v", s.State)
				}
				if s.State == relay.Waiting {
					wantRefused(t, s.Err)
				}
				time.Sleep(time.Minute)
				r.Set(relaytest.Behaviour{})
				if err := c.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				raw, _ := fakeEvent(1, 0)
				r.Inject(raw)
				synctest.Wait()
				if len(got) != 1 || <-got != "old" {
					t.Error("the old subscription does not get its event, or not alone")
				}
				if _, accepted := r.Connections(); test.refused == relay.Connected && accepted != 1 {
					t.Errorf("%d connections", accepted)
				}
			})
		})
	}
}

// TestClientRefusedWhenTheRelayIsBack: a change that waited for the relay, which
// then refuses it, does not keep it from being used.
func TestClientRefusedWhenTheRelayIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{}, relay.ClientOptions{})
		got := make(chan struct{}, 10)
		if err := c.Subscribe(t.Context(), "s", forRecipient(), func([]byte) { got <- struct{}{} }); err != nil {
			t.Fatal(err)
		}
		r.Set(relaytest.Behaviour{Status: 503})
		r.Cut()
		synctest.Wait()
		// The first one is left, and must not be taken for one that was confirmed.
		left, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		if err := c.Subscribe(left, "s", longFilters(), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		time.AfterFunc(time.Minute, func() { r.Set(relaytest.Behaviour{MaxFilters: maxFilters}) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		wantRefused(t, c.Subscribe(ctx, "s", longFilters(), nil))
		if err := c.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		raw, _ := fakeEvent(1, 0)
		r.Inject(raw)
		<-got
	})
}

// TestClientRepairsBesideOthers: the connection is lost while who waits for a
// subscription keeps the client from making another one anew.
func TestClientRepairsBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{NoEOSE: true}, relay.ClientOptions{})
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		var tasks sync.WaitGroup
		tasks.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := c.Subscribe(ctx, "a", forRecipient(), func([]byte) {}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait() // so that the other is next
		time.AfterFunc(5*time.Second, func() { r.Set(relaytest.Behaviour{}); r.Cut() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := c.Subscribe(ctx, "b", forRecipient(), func([]byte) {}); err != nil {
			t.Error(err)
		}
		tasks.Wait()
	})
}
