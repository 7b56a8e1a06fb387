package nostrlink_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// guest greets an exit by hand, in fake time and over a relay in memory.
type guest struct {
	t        *testing.T
	key      envelope.SecretKey // the hello key
	exit     envelope.PublicKey
	conv     envelope.ConversationKey
	relay    *relaytest.Relay
	listener *nostrlink.Listener

	mu      sync.Mutex
	answers []string
}

// greets runs f with a guest of a new exit.
func greets(t *testing.T, f func(t *testing.T, g *guest)) {
	synctest.Test(t, func(t *testing.T) {
		key := envelopetest.NewKey(t)
		r := relaytest.New(t, relaytest.Options{InMemory: true})
		opts := nostrlink.HubOptions{Relay: relay.Options{DialContext: r.DialContext}}
		l, stop := replica(t, opts, key, 1)
		defer stop()
		g := newGuest(t, key.Public(), r)
		g.listener = l
		f(t, g)
	})
}

func newGuest(t *testing.T, exit envelope.PublicKey, r *relaytest.Relay) *guest {
	t.Helper()
	g := &guest{t: t, key: envelopetest.NewKey(t), exit: exit, relay: r}
	var err error
	if g.conv, err = envelope.Conversation(g.key, exit); err != nil {
		t.Fatal(err)
	}
	c, err := relay.Dial(t.Context(), r.URL(), relay.Options{DialContext: r.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	filter := []relay.Filter{{Kinds: []int{envelope.KindNWS}, Tags: map[string][]string{"p": {g.key.Public().Hex()}}}}
	if err := c.Subscribe(t.Context(), "guest", filter, g.answered); err != nil {
		t.Fatal(err)
	}
	return g
}

// answered notes an answer: its type and code.
func (g *guest) answered(raw []byte) {
	answer := "nonsense"
	ev, err := envelope.ParseEvent(raw)
	if err == nil && ev.PubKey == g.exit && ev.Verify() == nil {
		plain, _ := envelope.Open(nil, ev.Content, g.conv)
		if m, err := wire.ParseMessage(plain); err == nil {
			answer = m.Type
			if m.Refused != nil {
				answer = fmt.Sprint(m.Type, " ", m.Refused.Code)
			}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers = append(g.answers, answer)
}

// said is what the exit answered since it was asked last, given time.
func (g *guest) said() string {
	time.Sleep(15 * time.Second)
	g.mu.Lock()
	defer g.mu.Unlock()
	said := strings.Join(g.answers, ", ")
	g.answers = nil
	return said
}

// hello is a HELLO that is proper but for change.
func (g *guest) hello(change func(*wire.Hello)) []byte {
	g.t.Helper()
	h := &wire.Hello{
		Versions: []int{wire.Version}, Time: time.Now().Unix(), SessionKey: wire.PublicKey(envelopetest.NewKey(g.t).Public()),
		MaxPacket: envelope.MaxPlaintext, Window: session.DefaultWindow, StreamWindow: session.DefaultStreamWindow,
	}
	rand.Read(h.Nonce[:])
	change(h)
	plain, err := wire.AppendMessage(nil, &wire.Message{Type: wire.TypeHello, Hello: h})
	if err != nil {
		g.t.Fatal(err)
	}
	return g.sealed(plain)
}

func (g *guest) sealed(plain []byte) []byte {
	g.t.Helper()
	raw, _, err := envelope.NewSealer(g.key, g.exit, g.conv).Seal(nil, plain, time.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	return raw
}

func (g *guest) publish(raw []byte) {
	g.t.Helper()
	if err := g.relay.Inject(raw); err != nil {
		g.t.Fatal(err)
	}
}

// TestGreetings sends one greeting, good or bad, to an exit.
func TestGreetings(t *testing.T) {
	proper := func(*wire.Hello) {}
	off := func(by time.Duration) func(*wire.Hello) {
		return func(h *wire.Hello) { h.Time = time.Now().Add(by).Unix() }
	}
	for _, c := range []struct {
		name     string
		greeting func(g *guest) []byte
		answer   string
		counted  nostrlink.ListenerStats // besides the one greeting
	}{
		{"proper", func(g *guest) []byte { return g.hello(proper) }, "WELCOME", nostrlink.ListenerStats{Sessions: 1}},
		{"59 s late", func(g *guest) []byte { return g.hello(off(-59 * time.Second)) }, "WELCOME", nostrlink.ListenerStats{Sessions: 1}},
		{"59 s early", func(g *guest) []byte { return g.hello(off(59 * time.Second)) }, "WELCOME", nostrlink.ListenerStats{Sessions: 1}},
		{"61 s late", func(g *guest) []byte { return g.hello(off(-61 * time.Second)) }, "REFUSED denied by policy", nostrlink.ListenerStats{Stale: 1}},
		{"61 s early", func(g *guest) []byte { return g.hello(off(61 * time.Second)) }, "REFUSED denied by policy", nostrlink.ListenerStats{Stale: 1}},
		{"another version", func(g *guest) []byte {
			return g.hello(func(h *wire.Hello) { h.Versions = []int{wire.Version + 1} })
		}, "REFUSED not supported", nostrlink.ListenerStats{Refused: 1}},
		{"one of two versions", func(g *guest) []byte {
			return g.hello(func(h *wire.Hello) { h.Versions = []int{wire.Version + 1, wire.Version} })
		}, "WELCOME", nostrlink.ListenerStats{Sessions: 1}},
		{"the session key is no key", func(g *guest) []byte {
			return g.hello(func(h *wire.Hello) { h.SessionKey = wire.PublicKey(bytes.Repeat([]byte{0xff}, 32)) })
		}, "", nostrlink.ListenerStats{Malformed: 1}},
		{"forged sender", func(g *guest) []byte {
			other := newGuest(g.t, g.exit, g.relay)
			return bytes.Replace(other.hello(proper), []byte(other.key.Public().Hex()), []byte(g.key.Public().Hex()), 1)
		}, "", nostrlink.ListenerStats{Forged: 1}},
		{"wrong signature", func(g *guest) []byte {
			raw := g.hello(proper)
			at := bytes.LastIndex(raw, []byte(`"sig":"`)) + len(`"sig":"`)
			copy(raw[at:], strings.Repeat("5a", 64))
			return raw
		}, "", nostrlink.ListenerStats{Forged: 1}},
		{"for another exit", func(g *guest) []byte {
			other := newGuest(g.t, envelopetest.NewKey(g.t).Public(), g.relay)
			raw := other.hello(proper)
			raw, _ = envelopetest.Sign(g.t, g.key, envelope.Template{
				Kind: envelope.KindNWS, CreatedAt: time.Now(), Content: content(g.t, raw), Tags: [][]string{{"p", g.exit.Hex()}},
			})
			return raw
		}, "", nostrlink.ListenerStats{Malformed: 1}},
		{"no HELLO", func(g *guest) []byte { return g.sealed([]byte(`{"type":"DATA","key":"k","data":"AAAA"}`)) }, "", nostrlink.ListenerStats{NWS: compat.Stats{Malformed: 1}}},
		{"no JSON", func(g *guest) []byte { return g.sealed([]byte{1, 2, 3}) }, "", nostrlink.ListenerStats{Malformed: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			greets(t, func(t *testing.T, g *guest) {
				g.publish(c.greeting(g))
				if said := g.said(); said != c.answer {
					t.Errorf("the answer is %q", said)
				}
				want := c.counted
				want.Greetings = 1
				if got := g.listener.Stats(); got != want {
					t.Errorf("counted %+v, want %+v", got, want)
				}
			})
		})
	}
}

func content(t *testing.T, raw []byte) []byte {
	t.Helper()
	ev := envelopetest.Parse(t, raw)
	return bytes.Clone(ev.Content)
}

// TestReplayedGreetings: an exit that gets a HELLO again, as an entry whose
// answer was lost sends it, answers some times and opens no second session.
func TestReplayedGreetings(t *testing.T) {
	greets(t, func(t *testing.T, g *guest) {
		raw := g.hello(func(*wire.Hello) {})
		for range 50 {
			g.publish(raw)
		}
		if n := strings.Count(g.said(), "WELCOME"); n < 1 || n > 10 {
			t.Errorf("%d answers to 50 times the same HELLO", n)
		}
		st := g.listener.Stats()
		if st.Sessions != 1 || st.Greetings != 50 || st.Replayed < 40 || st.Replayed+st.Busy >= 50 {
			t.Errorf("counted %+v", st)
		}
		t.Log("its nonce from somebody else")
		var nonce wire.Nonce
		g.publish(g.hello(func(h *wire.Hello) { nonce = h.Nonce }))
		if said := g.said(); said != "WELCOME" {
			t.Errorf("the answer is %q", said)
		}
		other := newGuest(t, g.exit, g.relay)
		g.publish(other.hello(func(h *wire.Hello) { h.Nonce = nonce }))
		if said := other.said(); said != "" {
			t.Errorf("the answer is %q", said)
		}
		if now := g.listener.Stats(); now.Replayed != st.Replayed+1 {
			t.Errorf("counted %+v", now)
		}
		t.Log("later")
		for range 4 {
			time.Sleep(17 * time.Second)
			g.publish(raw)
		}
		if said := g.said(); strings.Contains(said, "WELCOME") {
			t.Errorf("the answers are %q", said)
		}
		time.Sleep(time.Hour)
		g.publish(raw)
		if said := g.said(); said != "REFUSED denied by policy" {
			t.Errorf("after an hour, the answer is %q", said)
		}
		if now := g.listener.Stats(); now.Sessions != 0 || now.Stale == 0 {
			t.Errorf("counted %+v", now)
		}
	})
}

// TestForgedAnswers: the relay answers every HELLO itself, before and after the
// exit, and repeats the exit's answers to others. The entries get their
// sessions with the exit all the same.
func TestForgedAnswers(t *testing.T) {
	key, own := envelopetest.NewKey(t), envelopetest.NewKey(t)
	exit := key.Public()
	r := relaytest.New(t, relaytest.Options{})
	var old []relaytest.Passing
	forge := func(e relaytest.Passing) (fakes []relaytest.Fake) {
		for _, m := range answersTo(wire.PublicKey(own.Public())) {
			plain, err := wire.AppendMessage(nil, m)
			if err != nil {
				t.Error(err)
			}
			conv, err := envelope.Conversation(own, e.Author)
			if err != nil {
				continue // an invented key
			}
			raw, _, err := envelope.NewSealer(own, e.Author, conv).Seal(nil, plain, time.Now())
			if err != nil {
				t.Error(err)
			}
			fakes = append(fakes, relaytest.Fake{To: e.Author, Event: raw}, e.Forge(func(f *relaytest.Passing) {
				f.Author, f.Recipient, f.Content = exit, e.Author, string(content(t, raw))
			}))
		}
		return fakes
	}
	r.Set(relaytest.Behaviour{Attack: func(e relaytest.Passing) (before, after []relaytest.Fake) {
		if e.Author == exit && len(old) < 8 {
			old = append(old, e)
		}
		if e.Recipient != exit {
			return nil, nil
		}
		for _, o := range old {
			before = append(before, relaytest.Fake{To: e.Author, Event: o.Raw},
				o.Forge(func(f *relaytest.Passing) { f.Recipient = e.Author }))
		}
		return append(before, forge(e)...), slices.Clone(before)
	}})
	listener, _ := serveExit(t, key, nostrlink.Echo, r.URL())
	for range 3 {
		link, _ := serveLink(t, exit, r.URL())
		conn, err := link.DialContext(await.Context(t), "tcp", "example.com:80")
		if err != nil {
			t.Fatal(err)
		}
		if err := echoed(conn, 10_000); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	if r.Faked() == 0 || listener.Sessions() < 3 || listener.Sessions() > 6 {
		t.Errorf("%d fakes, %d sessions", r.Faked(), listener.Sessions())
	}
}

// answersTo are answers that a relay could like to give.
func answersTo(sessionKey wire.PublicKey) []*wire.Message {
	return []*wire.Message{
		{Type: wire.TypeRefused, Refused: &wire.Refused{Code: wire.CodeDenied, Text: "go away", Time: time.Now().Unix()}},
		{Type: wire.TypeWelcome, Welcome: &wire.Welcome{
			Version: wire.Version, Time: time.Now().Unix(), SessionKey: sessionKey, MaxPacket: envelope.MaxPlaintext,
			Window: session.DefaultWindow, StreamWindow: session.DefaultStreamWindow, MaxStreams: session.DefaultMaxStreams,
		}},
	}
}
