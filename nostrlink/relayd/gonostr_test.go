package relayd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip11"

	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// goNostrURL makes this test binary run useGoNostr with the relay at that URL
// instead of the tests.
const goNostrURL = "RELAYD_TEST_GONOSTR_URL"

// TestGoNostrClient uses the relay with a client that is not ours, which also
// checks ids and signatures of what it gets. It runs in a process of its own,
// because go-nostr has data races of its own when a connection ends.
func TestGoNostrClient(t *testing.T) {
	url, _ := start(t, relayd.Options{Name: "mine", Keep: relayd.AllKinds()})
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), goNostrURL+"="+url)
	out, err := cmd.CombinedOutput()
	if !strings.HasPrefix(string(out), "ok\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

func useGoNostr(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	publisher, err := nostr.RelayConnect(ctx, url)
	if err != nil {
		return err
	}
	subscriber, err := nostr.RelayConnect(ctx, url)
	if err != nil {
		return err
	}
	sk := nostr.GeneratePrivateKey()
	for _, step := range []func(ctx context.Context, publisher, subscriber *nostr.Relay, sk string) error{
		ephemeralEvents, refusedEvents, storedEvents, deletedEvents, poolOfRelays, authentication,
	} {
		if err := step(ctx, publisher, subscriber, sk); err != nil {
			return err
		}
	}
	info, err := nip11.Fetch(ctx, url)
	if err != nil || info.Name != "mine" || info.Limitation == nil || info.Limitation.MaxSubscriptions != 64 {
		return fmt.Errorf("description: %+v, %v", info, err)
	}
	return nil
}

func ephemeralEvents(ctx context.Context, publisher, subscriber *nostr.Relay, sk string) error {
	pk, err := nostr.GetPublicKey(sk)
	if err != nil {
		return err
	}
	sub, err := subscriber.Subscribe(ctx, nostr.Filters{{Kinds: []int{28333}, Tags: nostr.TagMap{"p": {pk}}, LimitZero: true}})
	if err != nil {
		return err
	}
	defer sub.Unsub()
	<-sub.EndOfStoredEvents
	odd := "\"quotes\" \\ \b\t\n\u2028 é 🙂 <&>"
	for n := range 20 {
		e := nostr.Event{
			Kind:      28333,
			CreatedAt: nostr.Now(),
			Tags:      nostr.Tags{{"p", pk}, {"odd", odd, "", "x"}},
			Content:   fmt.Sprint(n, odd, strings.Repeat("x", n*2000)),
		}
		if err := e.Sign(sk); err != nil {
			return err
		}
		if err := publisher.Publish(ctx, e); err != nil {
			return err
		}
		select {
		case got := <-sub.Events:
			if got == nil || got.ID != e.ID || got.Content != e.Content || got.Sig != e.Sig {
				return fmt.Errorf("published %v, got %v", e, got)
			}
		case <-ctx.Done():
			return errors.New("an event did not arrive")
		}
	}
	return nil
}

func refusedEvents(ctx context.Context, publisher, _ *nostr.Relay, sk string) error {
	e := nostr.Event{Kind: 20000, CreatedAt: nostr.Now()}
	if err := e.Sign(sk); err != nil {
		return err
	}
	if err := publisher.Publish(ctx, e); err == nil || !strings.Contains(err.Error(), "mute: ") {
		return fmt.Errorf("an event for nobody: %v", err)
	}
	e.Content = "forged"
	if err := publisher.Publish(ctx, e); err == nil || !strings.Contains(err.Error(), "invalid: ") {
		return fmt.Errorf("a forged event: %v", err)
	}
	return nil
}

func storedEvents(ctx context.Context, publisher, subscriber *nostr.Relay, sk string) error {
	for n := range 3 {
		e := nostr.Event{Kind: 30078, CreatedAt: nostr.Timestamp(1000 + n/2), Tags: nostr.Tags{{"d", fmt.Sprint(n)}}}
		if err := e.Sign(sk); err != nil {
			return err
		}
		if err := publisher.Publish(ctx, e); err != nil {
			return err
		}
	}
	for filter, want := range map[*nostr.Filter]int{
		{Kinds: []int{30078}}:                      3,
		{Tags: nostr.TagMap{"d": {"2"}}, Limit: 1}: 1,
		{Kinds: []int{30079}}:                      0,
	} {
		got, err := subscriber.QuerySync(ctx, *filter)
		if err != nil || len(got) != want {
			return fmt.Errorf("%v: %d stored events, %v", filter, len(got), err)
		}
	}
	return nil
}

func deletedEvents(ctx context.Context, publisher, subscriber *nostr.Relay, sk string) error {
	e := nostr.Event{Kind: 1, CreatedAt: nostr.Now(), Content: "soon gone"}
	if err := errors.Join(e.Sign(sk), publisher.Publish(ctx, e)); err != nil {
		return err
	}
	count := func() (int64, error) {
		n, _, err := subscriber.Count(ctx, nostr.Filters{{IDs: []string{e.ID}}})
		return n, err
	}
	if n, err := count(); n != 1 || err != nil {
		return fmt.Errorf("%d events counted, %v", n, err)
	}
	request := nostr.Event{Kind: 5, CreatedAt: nostr.Now(), Tags: nostr.Tags{{"e", e.ID}}}
	if err := errors.Join(request.Sign(sk), publisher.Publish(ctx, request)); err != nil {
		return err
	}
	if n, err := count(); n != 0 || err != nil {
		return fmt.Errorf("%d events counted after the deletion, %v", n, err)
	}
	if err := publisher.Publish(ctx, e); err == nil || !strings.Contains(err.Error(), "blocked: ") {
		return fmt.Errorf("a deleted event: %v", err)
	}
	return nil
}

// poolOfRelays uses go-nostr's pool, which more programs use than its client.
func poolOfRelays(ctx context.Context, publisher, _ *nostr.Relay, sk string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pool := nostr.NewSimplePool(ctx)
	urls := []string{publisher.URL}
	e := nostr.Event{Kind: 30078, CreatedAt: nostr.Now(), Tags: nostr.Tags{{"d", "pool"}}, Content: "pooled"}
	if err := e.Sign(sk); err != nil {
		return err
	}
	for result := range pool.PublishMany(ctx, urls, e) {
		if result.Error != nil {
			return result.Error
		}
	}
	if got := pool.QuerySingle(ctx, urls, nostr.Filter{Tags: nostr.TagMap{"d": {"pool"}}}); got == nil || got.ID != e.ID {
		return fmt.Errorf("the pool found %v", got)
	}
	events := pool.SubscribeMany(ctx, urls, nostr.Filter{Kinds: []int{30078}, Tags: nostr.TagMap{"d": {"pool"}}})
	select {
	case got := <-events:
		if got.Event == nil || got.ID != e.ID {
			return fmt.Errorf("the pool got %v", got.Event)
		}
	case <-ctx.Done():
		return errors.New("the pool got nothing")
	}
	return nil
}

func authentication(ctx context.Context, publisher, _ *nostr.Relay, sk string) error {
	e := nostr.Event{Kind: 1, CreatedAt: nostr.Now(), Tags: nostr.Tags{{"-"}}, Content: "protected"}
	if err := e.Sign(sk); err != nil {
		return err
	}
	if err := publisher.Publish(ctx, e); err == nil || !strings.Contains(err.Error(), "auth-required: ") {
		return fmt.Errorf("a protected event: %v", err)
	}
	if err := publisher.Auth(ctx, func(event *nostr.Event) error { return event.Sign(sk) }); err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	return publisher.Publish(ctx, e)
}
