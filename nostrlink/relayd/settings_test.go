package relayd_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/coder/websocket"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// isCut waits for the connection's end, which the relay has told it the cause of.
func (c *rawClient) isCut(why string) {
	c.t.Helper()
	c.expect(`["NOTICE","error: ` + why + `"]`)
	_, _, err := c.conn.Read(context.Background())
	var end websocket.CloseError
	if !errors.As(err, &end) || end.Code != websocket.StatusPolicyViolation || end.Reason != why {
		c.t.Errorf("the connection ended with %v", err)
	}
}

// asks makes a request that must be answered.
func (c *rawClient) asks() {
	c.t.Helper()
	c.send(`["REQ","s",{"kinds":[20001]}]`)
	c.expect(eose("s"))
}

// TestMembersChange: who is a member no more is cut, and so is everybody else
// when a relay for all becomes one for some. Members stay connected.
func TestMembersChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newAuthor(t), newAuthor(t)
		opts := func(members ...author) relayd.Options {
			o := relayd.Options{Names: []string{"relay.test"}}
			for _, m := range members {
				o.Members = append(o.Members, m.sk.Public())
			}
			return o
		}
		const why = "the relay has other members now"
		l, s := startInMemory(t, opts())
		ca, cb, guest := connectTo(t, l), connectTo(t, l), connectTo(t, l)
		ca.authenticate(a)
		cb.authenticate(b)
		guest.asks()
		s.Change(opts(a, b))
		guest.isCut(why)
		ca.asks()
		cb.asks()

		waiting := connectTo(t, l) // it was nobody before, and may become a member
		s.Change(opts(a))
		cb.isCut(why)
		ca.asks()
		waiting.authenticate(a)
		waiting.asks()

		s.Change(opts(b))
		ca.isCut(why)
		waiting.isCut(why)
		cb = connectTo(t, l)
		cb.authenticate(b)
		s.Change(opts())
		cb.asks()
		connectTo(t, l).asks()
	})
}

// TestMembersKeyStays although the client proves more keys than are remembered.
func TestMembersKeyStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthor(t)
		opts := relayd.Options{Names: []string{"relay.test"}, Members: []envelope.PublicKey{a.sk.Public()}}
		l, s := startInMemory(t, opts)
		c := connectTo(t, l)
		c.authenticate(a)
		for range 520 {
			c.authenticate(newAuthor(t))
		}
		s.Change(opts)
		c.asks()
	})
}

// TestLimitsChange for those who are connected.
func TestLimitsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{})
		a, c := newAuthor(t), connectTo(t, l)
		published := 0
		publish := func(refusal string) {
			t.Helper()
			published++
			raw, id := a.now(38333, "", []string{"d", fmt.Sprint(published)})
			c.send(event(raw))
			c.expect(ok(id, refusal == "", refusal))
		}
		publish("")
		publish("")

		s.Change(relayd.Options{Limits: relayd.Limits{MaxStored: 1, MaxSubscriptions: 1, MaxConnections: 1}, MinPoW: 60})
		if n := s.Stats().Stored; n != 1 {
			t.Errorf("%d events are kept", n)
		}
		publish("pow: …")
		c.asks()
		c.send(`["REQ","t",{}]`)
		c.expect(`["CLOSED","t","error: more than 1 subscriptions"]`)
		c.asks() // the same one: it is still connected
		if _, _, err := websocket.Dial(t.Context(), "ws://relay.test", &websocket.DialOptions{HTTPClient: clientOf(l)}); err == nil {
			t.Error("a second connection")
		}

		s.Change(relayd.Options{Rate: relayd.Rate{Events: 1}})
		publish("")
		publish("rate-limited: …")
		s.Change(relayd.Options{KeyRate: relayd.Rate{Events: 1}})
		publish("")
		publish("rate-limited: …")
		s.Change(relayd.Options{})
		publish("")
		connectTo(t, l)
	})
}
