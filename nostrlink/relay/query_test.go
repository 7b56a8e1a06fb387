package relay_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// TestQuery: what is stored comes, and what comes while it lingers; nothing
// afterwards, and nothing on the next connection.
func TestQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{Keep: 10}, relay.ClientOptions{})
		publish := func(n int) {
			raw, id := fakeEvent(n, 0)
			v := newVerdicts()
			if err := c.Publish(t.Context(), raw, id, v.onOK); err != nil {
				t.Fatal(err)
			}
			v.await(1)
		}
		publish(0)
		time.AfterFunc(time.Second, func() { publish(1) })
		var got []int
		all := forRecipient()
		all[0].Limit = nil
		if err := c.Query(t.Context(), "q", all, 2*time.Second, func(raw []byte) { got = append(got, number(t, raw)) }); err != nil {
			t.Fatal(err)
		}
		publish(2)
		r.Cut()
		synctest.Wait()
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		publish(3)
		synctest.Wait()
		if len(got) != 2 || got[0] != 0 || got[1] != 1 {
			t.Errorf("got events %d, want 0 and 1", got)
		}
	})
}

// TestQueryWithoutAnswer: the connection stays for others.
func TestQueryWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := served(t, relaytest.Behaviour{}, relay.ClientOptions{})
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		for what, b := range map[string]relaytest.Behaviour{
			"did not answer": {NoEOSE: true}, "refused": {Closed: "blocked: no"},
		} {
			r.Set(b)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			err := c.Query(ctx, "q", forRecipient(), time.Second, func([]byte) {})
			cancel()
			wantError(t, err, what)
		}
		time.Sleep(time.Minute)
		if _, accepted := r.Connections(); accepted != 1 {
			t.Errorf("%d connections were made", accepted)
		}
	})
}
