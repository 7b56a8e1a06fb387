package relay_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// After a change of the network, a connection that still works is kept, one
// that does not is replaced within seconds, and a wait for the next attempt ends
// at once.
func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name      string
		behaviour relaytest.Behaviour
		accepted  int // connections, after the check
	}{
		{"a connection that works", relaytest.Behaviour{}, 1},
		{"a connection that is dead", relaytest.Behaviour{NoPong: true}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, c := served(t, test.behaviour, relay.ClientOptions{Options: relay.Options{PingAfter: time.Hour}})
				if err := c.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				c.Check()
				time.Sleep(4 * time.Second)
				if open, accepted := r.Connections(); open != 1 || accepted != test.accepted {
					t.Errorf("%d connections open, %d accepted, want 1 and %d", open, accepted, test.accepted)
				}
			})
		})
	}
	t.Run("a relay that is not there", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, c := served(t, relaytest.Behaviour{Status: 503}, relay.ClientOptions{MinBackoff: time.Hour})
			synctest.Wait()
			if s := c.Status().State; s != relay.Waiting {
				t.Fatalf("state %v", s)
			}
			r.Set(relaytest.Behaviour{})
			begun := time.Now()
			c.Check()
			if err := c.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(begun); waited > time.Second {
				t.Errorf("connected after %v", waited)
			}
		})
	})
}
