package relayd_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// answer is an AUTH of a client of relay.test.
func (c *rawClient) answer(a author, kind int, at time.Time, relay, challenge string) (msg, id string) {
	raw, id := a.sign(kind, at, "", []string{"relay", relay}, []string{"challenge", challenge})
	return `["AUTH",` + raw + `]`, id
}

// TestAuth: only a fresh, signed answer to this connection's challenge that names
// this relay proves a key. (NIP-42)
func TestAuth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{Names: []string{"relay.test"}})
		a := newAuthor(t)
		stranger := connectTo(t, l)
		now := time.Now()
		for _, tt := range []struct {
			name, relay, challenge string
			kind                   int
			at                     time.Time
			want                   string // "" for yes
		}{
			{name: "right", want: ""},
			{name: "with a path and a port", relay: "wss://RELAY.test:8443/path"},
			{name: "old", at: now.Add(-11 * time.Minute), want: "created_at"},
			{name: "from the future", at: now.Add(11 * time.Minute), want: "created_at"},
			{name: "another kind", kind: 22243, want: "kind 22243"},
			{name: "another connection's challenge", challenge: stranger.challenge, want: "not the challenge"},
			{name: "no challenge", challenge: "-", want: "not the challenge"},
			{name: "another relay", relay: "wss://evil.example", want: "is not the name"},
			{name: "the name within another", relay: "wss://relay.test.evil.example", want: "is not the name"},
			{name: "no URL", relay: "relay.test", want: "is not the name"},
		} {
			c := connectTo(t, l)
			relay, challenge, kind, at := "ws://relay.test", c.challenge, 22242, now
			if tt.relay != "" {
				relay = tt.relay
			}
			if tt.challenge != "" {
				challenge = tt.challenge
			}
			if tt.kind != 0 {
				kind = tt.kind
			}
			if !tt.at.IsZero() {
				at = tt.at
			}
			msg, id := c.answer(a, kind, at, relay, challenge)
			c.send(msg)
			got := c.read()
			if yes := got == ok(id, true, ""); yes != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("%s: %s", tt.name, got)
			}
		}
		if n := s.Stats().Authenticated; n != 2 {
			t.Errorf("%d have authenticated", n)
		}
		c := connectTo(t, l)
		msg, id := c.answer(a, 22242, now, "ws://relay.test", c.challenge)
		forged := strings.Replace(msg, a.hex(), newAuthor(t).hex(), 1)
		c.send(forged)
		c.expect(ok(id, false, "invalid: the event's id is not the hash of its fields"))
		c.send(strings.Replace(msg, `["AUTH"`, `["EVENT"`, 1))
		c.expect(ok(id, false, "invalid: an event of kind 22242 goes into…"))
	})
}

// TestOwnEventsNeedNoSignature: who has proved a key publishes ephemeral events
// of that key unverified; the id is checked all the same, a forged author gains
// nothing, and what is kept is always verified.
func TestOwnEventsNeedNoSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{Names: []string{"relay.test"}})
		a, second, victim := newAuthor(t), newAuthor(t), newAuthor(t)
		c, sub := connectTo(t, l), connectTo(t, l)
		sub.send(`["REQ","s",{"kinds":[28333,10002]}]`)
		sub.expect(eose("s"))
		c.authenticate(a)
		c.authenticate(second) // one does not displace the other
		unsigned := func(raw string) string {
			i := strings.Index(raw, `"sig":"`) + 7
			return raw[:i] + strings.Repeat("00", 64) + raw[i+128:]
		}
		for _, by := range []author{a, second} {
			raw, id := by.now(28333, "x")
			c.send(event(unsigned(raw)))
			c.expect(ok(id, true, ""))
			sub.expect(delivered("s", unsigned(raw)))
		}
		if st := s.Stats(); st.Vouched != 2 || st.Verified != 2 { // the two AUTHs
			t.Errorf("%+v", st)
		}
		const badID, badSig = "invalid: the event's id is not the hash of its fields", "invalid: the event's signature is not its author's"
		raw, id := a.now(28333, "x")
		for _, tt := range []struct{ name, raw, id, want string }{
			{"text that was changed", strings.Replace(raw, `"content":"x"`, `"content":"y"`, 1), id, badID},
			{"another's key put in", strings.Replace(raw, a.hex(), victim.hex(), 1), id, badID},
		} {
			c.send(event(tt.raw))
			c.expect(ok(tt.id, false, tt.want))
		}
		// The victim's own event, but for the signature: all that a forger can make.
		raw, id = victim.now(28333, "x")
		c.send(event(unsigned(raw)))
		c.expect(ok(id, false, badSig))
		raw, id = a.now(10002, "kept")
		c.send(event(unsigned(raw)))
		c.expect(ok(id, false, badSig))
		raw, id = a.now(28333, "x")
		other := connectTo(t, l)
		other.send(event(unsigned(raw)))
		other.expect(ok(id, false, badSig))
		// The signed ones pass as ever.
		raw, id = victim.now(28333, "x")
		c.send(event(raw))
		c.expect(ok(id, true, ""))
		sub.expect(delivered("s", raw))
	})
}

// TestMembers: strangers neither write nor read nor count. Members may publish
// events of any author, such as their sessions'.
func TestMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		member, guest := newAuthor(t), newAuthor(t)
		l, _ := startInMemory(t, relayd.Options{Names: []string{"relay.test"}, Members: []envelope.PublicKey{member.sk.Public()}})
		c := connectTo(t, l)
		refused := func(prefix string) {
			t.Helper()
			raw, id := guest.now(10002, "x")
			c.send(event(raw))
			c.expect(ok(id, false, prefix+"…"))
			c.send(`["REQ","s",{}]`)
			c.expect(`["CLOSED","s","` + prefix + `…`)
			c.send(`["COUNT","s",{}]`)
			c.expect(`["CLOSED","s","` + prefix + `…`)
		}
		refused("auth-required: ")
		msg, id := c.answer(guest, 22242, time.Now(), "ws://relay.test", c.challenge)
		c.send(msg)
		c.expect(ok(id, false, "restricted: …"))
		refused("restricted: ")
		c.authenticate(member)
		raw, id := guest.now(10002, "x")
		c.send(event(raw))
		c.expect(ok(id, true, ""))
		c.send(`["REQ","s",{}]`)
		c.expect(delivered("s", raw), eose("s"))
		c.send(`["COUNT","s",{}]`)
		c.expect(`["COUNT","s",{"count":1}]`)
	})
}

// TestProtectedEvents: an event with a "-" tag is taken from its author only, and
// not within a repost. (NIP-70)
func TestProtectedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := startInMemory(t, relayd.Options{Names: []string{"relay.test"}, Keep: relayd.AllKinds()})
		a, b := newAuthor(t), newAuthor(t)
		c := connectTo(t, l)
		raw, id := a.now(1, "mine", []string{"-"})
		c.authenticate(b)
		c.send(event(raw))
		c.expect(ok(id, false, "auth-required: …"))
		c.authenticate(a)
		c.send(event(raw))
		c.expect(ok(id, true, ""))
		for _, kind := range []int{6, 16} {
			repost, rid := b.now(kind, raw)
			c.send(event(repost))
			c.expect(ok(rid, false, "blocked: …"))
		}
		plain, _ := a.now(1, "anybody's")
		repost, rid := b.now(6, plain)
		c.send(event(repost))
		c.expect(ok(rid, true, ""))
	})
}

// TestProofOfWork asks for work of what is kept. (NIP-13)
func TestProofOfWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bits = 8
		l, _ := startInMemory(t, relayd.Options{MinPoW: bits})
		a, c := newAuthor(t), connectTo(t, l)
		tried := map[bool]bool{}
		for n := 0; !tried[true] || !tried[false]; n++ {
			raw, id := a.now(10002, "", []string{"nonce", fmt.Sprint(n), fmt.Sprint(bits)})
			enough := strings.HasPrefix(id, "00")
			if tried[enough] {
				continue
			}
			tried[enough] = true
			c.send(event(raw))
			if enough {
				c.expect(ok(id, true, ""))
			} else {
				c.expect(ok(id, false, "pow: difficulty …"))
			}
		}
		for n := 0; ; n++ { // lucky, but aimed at less
			raw, id := a.now(10002, "x", []string{"nonce", fmt.Sprint(n), "1"})
			if strings.HasPrefix(id, "00") {
				c.send(event(raw))
				c.expect(ok(id, false, "pow: the work was aimed at 1…"))
				break
			}
		}
		raw, id := a.now(20001, "forwarded without")
		c.send(event(raw))
		c.expect(ok(id, false, "mute: …"))
	})
}
