package relay_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/segments"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// A relay that was reached and fell silent is dialed again at once, with small
// segments, until an hour has passed or the network changes. What happens to
// others is no sign of a network that loses large packets.
func TestSmallSegmentsAfterSilence(t *testing.T) {
	for _, test := range []struct {
		name      string
		behaviour relaytest.Behaviour
		spoil     func(r *relaytest.Relay, c *relay.Client) // a second after the start
		dialed    []bool                                    // with small segments
	}{
		{"silent when connected", relaytest.Behaviour{NoPong: true},
			func(r *relaytest.Relay, _ *relay.Client) { r.Set(relaytest.Behaviour{}) }, []bool{false, true}},
		{"no handshake", relaytest.Behaviour{NoHandshake: true}, func(r *relaytest.Relay, _ *relay.Client) {
			time.Sleep(5 * time.Second)
			r.Set(relaytest.Behaviour{})
		}, []bool{false, true}},
		{"cut", relaytest.Behaviour{}, func(r *relaytest.Relay, _ *relay.Client) { r.Cut() }, []bool{false, false}},
		{"silent after the network has changed", relaytest.Behaviour{NoPong: true},
			func(r *relaytest.Relay, c *relay.Client) { r.Set(relaytest.Behaviour{}); c.Check() }, []bool{false, false}},
		{"the network changes then", relaytest.Behaviour{NoPong: true}, func(r *relaytest.Relay, c *relay.Client) {
			r.Set(relaytest.Behaviour{})
			time.Sleep(20 * time.Second)
			c.Check()
			r.Cut()
		}, []bool{false, true, false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := relaytest.New(t, relaytest.Options{Behaviour: test.behaviour, InMemory: true})
				var mu sync.Mutex
				var dialed []bool
				c, err := relay.NewClient(r.URL(), relay.ClientOptions{Options: relay.Options{
					DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
						mu.Lock()
						dialed = append(dialed, segments.AreSmall(ctx))
						mu.Unlock()
						return r.DialContext(ctx, network, address)
					},
				}})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				var serving sync.WaitGroup
				serving.Go(func() { c.Serve(ctx) })
				defer serving.Wait()
				defer cancel()
				time.Sleep(time.Second)
				test.spoil(r, c)
				time.Sleep(19 * time.Second)
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(dialed, test.dialed) {
					t.Errorf("dialed with small segments: %v, want %v", dialed, test.dialed)
				}
			})
		})
	}
}
