package relay_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// served starts a client, and a bubble's relay under it, that end with the test.
func served(t *testing.T, b relaytest.Behaviour, opts relay.ClientOptions) (*relaytest.Relay, *relay.Client) {
	t.Helper()
	r := relaytest.New(t, relaytest.Options{Behaviour: b, InMemory: true})
	opts.DialContext = r.DialContext
	c, err := relay.NewClient(r.URL(), opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := c.Serve(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		tasks.Wait()
		if s := c.Status(); s.State != relay.Stopped {
			t.Errorf("state %v after Serve", s.State)
		}
		if err := c.Wait(context.Background()); err == nil {
			t.Error("Wait succeeds after Serve")
		}
	})
	return r, c
}

func TestClientReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []relay.State
		r, c := served(t, relaytest.Behaviour{}, relay.ClientOptions{OnState: func(s relay.Status) { states = append(states, s.State) }})
		got := make(chan int, 10)
		if err := c.Subscribe(t.Context(), "s", forRecipient(), func(raw []byte) { got <- number(t, raw) }); err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			raw, id := fakeEvent(n, 0)
			v := newVerdicts()
			if err := c.Publish(t.Context(), raw, id, v.onOK); err != nil {
				t.Fatal(err)
			}
			if g := <-got; g != n {
				t.Errorf("got event %d, want %d", g, n)
			}
			v.await(1)
			r.Cut()
			synctest.Wait()
			if s := c.Status(); s.State != relay.Waiting || s.Err == nil || s.Attempts != 1 {
				t.Errorf("after a cut: %+v", s)
			}
		}
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := c.Status(); s.State != relay.Connected || s.Err != nil || s.Attempts != 0 {
			t.Errorf("in the end: %+v", s)
		}
		if open, accepted := r.Connections(); open != 1 || accepted != 4 {
			t.Errorf("%d connections open, %d accepted", open, accepted)
		}
		if n := r.Subscriptions(); n != 1 {
			t.Errorf("%d subscriptions", n)
		}
		if !slices.Contains(states, relay.Connecting) || !slices.Contains(states, relay.Connected) || !slices.Contains(states, relay.Waiting) {
			t.Errorf("states %v", states)
		}
	})
}

func TestClientBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{Status: 503}, relay.ClientOptions{})
		time.Sleep(5 * time.Minute)
		s := c.Status()
		// 0.5 s doubling to 30 s, each wait between a half and the whole.
		if s.Attempts < 5+8 || s.Attempts > 10+20 {
			t.Errorf("%d attempts in five minutes", s.Attempts)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantError(t, c.Wait(ctx), "relay ws://relay.test: answered HTTP 503")

		// It heals; the user's network changes: no more waiting.
		r.Set(relaytest.Behaviour{})
		before := time.Now()
		c.Redial()
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(before); waited != 0 {
			t.Errorf("waited %v after Redial", waited)
		}
	})
}

// TestClientBacksOffFromARelayThatDropsIt: being connected for a moment is no
// success.
func TestClientBacksOffFromARelayThatDropsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{}, relay.ClientOptions{OnState: func(relay.Status) {}})
		for range 60 {
			time.Sleep(time.Second)
			r.Cut()
		}
		if _, accepted := r.Connections(); accepted > 15 {
			t.Errorf("%d connections in a minute", accepted)
		}
		_ = c
	})
}

func TestClientRedialsALivingConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{}, relay.ClientOptions{})
		if err := c.Subscribe(t.Context(), "s", forRecipient(), func([]byte) {}); err != nil {
			t.Fatal(err)
		}
		c.Redial()
		synctest.Wait()
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if open, accepted := r.Connections(); open != 1 || accepted != 2 {
			t.Errorf("%d connections open, %d accepted", open, accepted)
		}
	})
}

func TestClientGrowsItsSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{}, relay.ClientOptions{})
		var tasks sync.WaitGroup
		for n := range 20 {
			tasks.Go(func() {
				if err := c.Subscribe(t.Context(), fmt.Sprint("s", n), forRecipient(), func([]byte) {}); err != nil {
					t.Error(err)
				}
			})
			if n == 10 {
				time.Sleep(time.Second)
				r.Cut()
			}
		}
		tasks.Wait()
		if err := c.Unsubscribe(t.Context(), "s0"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := r.Subscriptions(); n != 19 {
			t.Errorf("%d subscriptions", n)
		}
		r.Cut()
		synctest.Wait()
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := r.Subscriptions(); n != 19 {
			t.Errorf("%d subscriptions after a reconnection", n)
		}
	})
}

func TestClientRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{}, relay.ClientOptions{})
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.Set(relaytest.Behaviour{Closed: "restricted: members only"})
		var refused *relay.RefusedError
		err := c.Subscribe(t.Context(), "s", forRecipient(), func([]byte) {})
		if !errors.As(err, &refused) || relay.Prefix(refused.Reason) != "restricted" {
			t.Errorf("got %v", err)
		}
		// It is forgotten: the client is connected again without it.
		r.Cut()
		synctest.Wait()
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		// One that the relay refuses later is not.
		r.Set(relaytest.Behaviour{})
		if err := c.Subscribe(t.Context(), "s", forRecipient(), func([]byte) {}); err != nil {
			t.Fatal(err)
		}
		r.Set(relaytest.Behaviour{Closed: "restricted: members only"})
		r.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		synctest.Wait()
		err = c.Wait(ctx)
		if !errors.As(err, &refused) {
			t.Errorf("got %v", err)
		}
		wantError(t, err, "refused the subscription: restricted: members only")
		r.Set(relaytest.Behaviour{})
		if err := c.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestClientLeavesARelayThatFallsSilent: a subscription that is not answered
// means that the connection is of no use.
func TestClientLeavesARelayThatFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{}, relay.ClientOptions{})
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.Set(relaytest.Behaviour{NoEOSE: true})
		time.AfterFunc(15*time.Second, func() { r.Set(relaytest.Behaviour{}) })
		if err := c.Subscribe(t.Context(), "s", forRecipient(), func([]byte) {}); err != nil {
			t.Error(err)
		}
		if _, accepted := r.Connections(); accepted < 2 {
			t.Error("it stayed on the connection")
		}
	})
}

// TestClientKeepsWhatItGaveUpWaitingFor: a Subscribe whose context ends leaves
// neither the old nor no subscription behind, but the new one.
func TestClientKeepsWhatItGaveUpWaitingFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{}, relay.ClientOptions{})
		got := make(chan string, 10)
		to := func(name string) func([]byte) { return func([]byte) { got <- name } }
		if err := c.Subscribe(t.Context(), "s", forRecipient(), to("old")); err != nil {
			t.Fatal(err)
		}
		r.Set(relaytest.Behaviour{NoEOSE: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		filters := append(forRecipient(), relay.Filter{Kinds: []int{1}})
		if err := c.Subscribe(ctx, "s", filters, to("new")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		raw, _ := fakeEvent(1, 0)
		r.Inject(raw)
		if g := <-got; g != "new" {
			t.Errorf("the %s callback was called", g)
		}
		// The client goes on asking, finds the relay useless, and comes back.
		time.Sleep(5 * time.Second)
		r.Set(relaytest.Behaviour{})
		time.Sleep(20 * time.Second)
		if open, accepted := r.Connections(); open != 1 || accepted != 2 {
			t.Errorf("%d connections open, %d accepted", open, accepted)
		}
		r.Inject(raw)
		if g := <-got; g != "new" {
			t.Errorf("the %s callback was called", g)
		}
	})
}

func TestClientPublishWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{Status: 503}, relay.ClientOptions{})
		raw, id := fakeEvent(1, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.Publish(ctx, raw, id, nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		wantError(t, err, "answered HTTP 503")
		time.AfterFunc(time.Minute, func() { r.Set(relaytest.Behaviour{}) })
		v := newVerdicts()
		if err := c.Publish(t.Context(), raw, id, v.onOK); err != nil {
			t.Fatal(err)
		}
		if got := v.await(1); got[0] != "true " {
			t.Errorf("verdict %q", got)
		}
	})
}

func TestClientBeforeServe(t *testing.T) {
	c, err := relay.NewClient("ws://relay.test", relay.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.Redial()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, c.Wait(ctx), "relay ws://relay.test: not connected yet")
	if _, err := relay.NewClient("gopher://x", relay.ClientOptions{}); err == nil {
		t.Error("any URL will do")
	}
}

// TestClientUnderFire publishes from several goroutines over a relay that is cut
// again and again: every publish that was taken gets exactly one verdict.
func TestClientUnderFire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{Jitter: 50 * time.Millisecond, Drop: .1}, relay.ClientOptions{Options: relay.Options{Window: 8}})
		if err := c.Subscribe(t.Context(), "s", forRecipient(), func([]byte) {}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var tasks sync.WaitGroup
		var mu sync.Mutex
		verdicts := map[int]int{}
		taken := map[int]bool{}
		for worker := range 4 {
			tasks.Go(func() {
				for n := worker; ; n += 4 {
					raw, id := fakeEvent(n, 1000)
					err := c.Publish(ctx, raw, id, func(bool, string) {
						mu.Lock()
						verdicts[n]++
						mu.Unlock()
					})
					if err != nil {
						return
					}
					mu.Lock()
					taken[n] = true
					mu.Unlock()
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
		for range 7 {
			time.Sleep(2900 * time.Millisecond)
			r.Cut()
		}
		tasks.Wait()
		time.Sleep(time.Minute)
		if len(taken) < 100 {
			t.Errorf("only %d publishes", len(taken))
		}
		for n := range taken {
			if verdicts[n] != 1 {
				t.Errorf("publish %d got %d verdicts", n, verdicts[n])
			}
		}
		for n := range verdicts {
			if !taken[n] {
				t.Errorf("publish %d failed and got a verdict", n)
			}
		}
	})
}

func TestStateNames(t *testing.T) {
	var names []string
	for _, s := range []relay.State{relay.Connecting, relay.Connected, relay.Waiting, relay.Stopped} {
		names = append(names, s.String())
	}
	if got := strings.Join(names, " "); got != "connecting connected waiting stopped" {
		t.Error(got)
	}
}
