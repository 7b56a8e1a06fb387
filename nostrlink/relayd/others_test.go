package relayd_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"
	"github.com/pippellia-btc/rely"

	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// serveAs makes this test binary serve a relay of that kind until its standard
// input ends.
const serveAs = "RELAYD_TEST_SERVE_AS"

// serveRelay serves ours, or another people's relay with a store as simple as can
// be; which rules hold for what is stored is that relay's business.
func serveRelay(kind string, stdin io.Reader) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var handler http.Handler
	switch kind {
	case "ours":
		s := relayd.New(relayd.Options{Keep: relayd.AllKinds()})
		defer s.Close()
		handler = s
	case "khatru":
		handler = newKhatru()
	case "rely":
		relay := rely.NewRelay(rely.WithLogger(slog.New(slog.DiscardHandler)))
		relay.On.Event = func(rely.Client, *nostr.Event) error { return nil }
		relay.On.Req = func(context.Context, rely.Client, nostr.Filters) ([]nostr.Event, error) { return nil, nil }
		relay.Start(context.Background())
		handler = relay
	default:
		return fmt.Errorf("no relay of kind %q", kind)
	}
	go http.Serve(l, handler)
	fmt.Printf("ws://%s\n", l.Addr())
	io.Copy(io.Discard, stdin)
	return nil
}

func newKhatru() *khatru.Relay {
	relay := khatru.NewRelay()
	relay.Log = log.New(io.Discard, "", 0)
	var mu sync.Mutex
	var kept []*nostr.Event
	relay.StoreEvent = append(relay.StoreEvent, func(_ context.Context, e *nostr.Event) error {
		mu.Lock()
		defer mu.Unlock()
		if slices.ContainsFunc(kept, func(have *nostr.Event) bool { return have.ID == e.ID }) {
			return nil
		}
		kept = append(kept, e)
		slices.SortFunc(kept, func(a, b *nostr.Event) int {
			return cmp.Or(cmp.Compare(b.CreatedAt, a.CreatedAt), strings.Compare(a.ID, b.ID))
		})
		return nil
	})
	relay.DeleteEvent = append(relay.DeleteEvent, func(_ context.Context, e *nostr.Event) error {
		mu.Lock()
		defer mu.Unlock()
		kept = slices.DeleteFunc(kept, func(have *nostr.Event) bool { return have.ID == e.ID })
		return nil
	})
	relay.QueryEvents = append(relay.QueryEvents, func(_ context.Context, f nostr.Filter) (chan *nostr.Event, error) {
		mu.Lock()
		defer mu.Unlock()
		found := make(chan *nostr.Event, len(kept))
		for _, e := range kept {
			if f.Matches(e) && (f.Limit == 0 || len(found) < f.Limit) {
				found <- e
			}
		}
		close(found)
		return found, nil
	})
	return relay
}
