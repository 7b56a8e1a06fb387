package nostrlink

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func newKey(t *testing.T) envelope.SecretKey { return envelopetest.NewKey(t) }

// hello returns a greeting for exit and the HELLO it sends at now.
func hello(t *testing.T, exit envelope.PublicKey, now time.Time) (*greeting, *envelope.Event) {
	t.Helper()
	g, err := newGreeting(exit, wishes{agent: "test", relays: []string{"wss://relay.example"}, spread: Stripe, duplicate: true})
	if err != nil {
		t.Fatal(err)
	}
	return g, helloAgain(t, g, now)
}

func helloAgain(t *testing.T, g *greeting, now time.Time) *envelope.Event {
	t.Helper()
	raw, _, err := g.event(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	return envelopetest.Parse(t, raw)
}

// receive is what a Listener does with a HELLO.
func (d *doorman) receive(ev *envelope.Event, now time.Time) (*admission, bool, error) {
	in, err := compat.NewKeys(d.identity, 1).Open(ev)
	if err != nil {
		return nil, false, err
	}
	if in.Message.Hello == nil {
		return nil, false, fmt.Errorf("a message of type %s", in.Message.Type)
	}
	a, err := d.read(in.From, in.Message.Hello)
	if err != nil {
		return nil, false, err
	}
	return d.admit(a, now)
}

func welcomed(t *testing.T, d *doorman, a *admission, now time.Time) *envelope.Event {
	t.Helper()
	raw, _, err := d.welcome(a, now, "test exit", []string{"wss://relay.example"}, []string{"198.51.100.7:9333"})
	if err != nil {
		t.Fatal(err)
	}
	return envelopetest.Parse(t, raw)
}

func TestBothEndsDeriveTheSameSession(t *testing.T) {
	exit := newKey(t)
	d := newDoorman(exit, 10)
	g, ev := hello(t, exit.Public(), noon)
	a, fresh, err := d.receive(ev, noon.Add(3*time.Second))
	if err != nil || !fresh {
		t.Fatalf("admit: fresh %v, %v", fresh, err)
	}
	s, w, err := g.answer(welcomed(t, d, a, noon))
	if err != nil {
		t.Fatal(err)
	}
	if s.id != a.id {
		t.Error("the ends disagree about the session's id")
	}
	if s.peer != a.local.Public() || a.peer != s.local.Public() {
		t.Error("the ends disagree about the session's keys")
	}
	if w.Agent != "test exit" || w.MaxStreams != localLimits.MaxStreams {
		t.Errorf("WELCOME says %+v", w)
	}
	// What one seals, the other opens.
	raw, _, err := envelope.NewSealer(s.local, s.peer, s.key).Seal(nil, []byte("packet"), noon)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := envelope.Open(nil, envelopetest.Parse(t, raw).Content, a.helloKey)
	if err == nil {
		t.Errorf("the hello key opens the session's packets: %q", plain)
	}
	if plain, err = envelope.Open(nil, envelopetest.Parse(t, raw).Content, a.key); err != nil || !bytes.Equal(plain, []byte("packet")) {
		t.Errorf("opened %q, %v", plain, err)
	}
	if ev.PubKey == a.peer || a.peer == exit.Public() {
		t.Error("the session's key is not a key of its own")
	}
}

func TestRepeatedHelloOpensNoSecondSession(t *testing.T) {
	exit := newKey(t)
	d := newDoorman(exit, 10)
	g, first := hello(t, exit.Public(), noon)
	a, _, err := d.receive(first, noon)
	if err != nil {
		t.Fatal(err)
	}
	again, fresh, err := d.receive(helloAgain(t, g, noon.Add(time.Second)), noon.Add(time.Second))
	if err != nil || fresh || again != a {
		t.Fatalf("repeated HELLO: fresh %v, same %v, %v", fresh, again == a, err)
	}
	// A relay that replays the event for ever gets a bounded number of answers.
	for i := 0; i < maxAnswers-2; i++ {
		if _, _, err := d.receive(first, noon); err != nil {
			t.Fatalf("replay %d: %v", i, err)
		}
	}
	if _, _, err := d.receive(first, noon); err == nil {
		t.Errorf("replay answered more than %d times", maxAnswers)
	}
}

func TestHelloThatGetsNoSession(t *testing.T) {
	exit, stranger := newKey(t), newKey(t)
	refusalWith := func(code wire.Code, text string) func(error) bool {
		return func(err error) bool {
			no, ok := errorAs[*refusal](err)
			return ok && no.code == code && strings.Contains(no.text, text)
		}
	}
	ignored := func(err error) bool {
		_, ok := errorAs[*refusal](err)
		return err != nil && !ok
	}
	for _, test := range []struct {
		name string
		// event is made from a proper greeting g and its HELLO ev.
		event func(g *greeting, ev *envelope.Event) *envelope.Event
		now   time.Time
		want  func(error) bool
	}{
		{"stale", nil, noon.Add(61 * time.Second), refusalWith(wire.CodeDenied, "clock")},
		{"from the future", nil, noon.Add(-61 * time.Second), refusalWith(wire.CodeDenied, "clock")},
		{"other version", func(g *greeting, _ *envelope.Event) *envelope.Event {
			return sealedHello(t, g, func(h *wire.Hello) { h.Versions = []int{99} })
		}, noon, refusalWith(wire.CodeUnsupported, "version")},
		{"session key is no point", func(g *greeting, _ *envelope.Event) *envelope.Event {
			return sealedHello(t, g, func(h *wire.Hello) { h.SessionKey = wire.PublicKey(bytes.Repeat([]byte{0xff}, 32)) })
		}, noon, ignored},
		{"forged sender", func(g *greeting, ev *envelope.Event) *envelope.Event {
			forged := *ev
			forged.PubKey = stranger.Public()
			return &forged
		}, noon, ignored},
		{"changed content", func(g *greeting, ev *envelope.Event) *envelope.Event {
			forged := *ev
			forged.Content = bytes.Clone(ev.Content)
			forged.Content[60] ^= 1
			return &forged
		}, noon, ignored},
		{"for another exit", func(*greeting, *envelope.Event) *envelope.Event {
			_, ev := hello(t, stranger.Public(), noon)
			return ev
		}, noon, ignored},
		{"not a HELLO", func(g *greeting, _ *envelope.Event) *envelope.Event {
			plain, err := wire.AppendMessage(nil, &wire.Message{Type: wire.TypeConnect, Key: "k", Destination: "example.com:80"})
			if err != nil {
				t.Fatal(err)
			}
			return sealed(t, g, plain)
		}, noon, ignored},
		{"not JSON", func(g *greeting, _ *envelope.Event) *envelope.Event {
			return sealed(t, g, []byte("{"))
		}, noon, ignored},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDoorman(exit, 10)
			g, ev := hello(t, exit.Public(), noon)
			if test.event != nil {
				ev = test.event(g, ev)
			}
			a, fresh, err := d.receive(ev, test.now)
			if a != nil || fresh || !test.want(err) {
				t.Errorf("admission %v, fresh %v, error %v", a != nil, fresh, err)
			}
			if len(d.seen) != 0 {
				t.Error("it is remembered")
			}
		})
	}
}

func errorAs[T error](err error) (target T, ok bool) {
	ok = errors.As(err, &target)
	return target, ok
}

func sealed(t *testing.T, g *greeting, plain []byte) *envelope.Event {
	t.Helper()
	raw, _, err := envelope.NewSealer(g.hello, g.exit, g.key).Seal(nil, plain, noon)
	if err != nil {
		t.Fatal(err)
	}
	return envelopetest.Parse(t, raw)
}

// sealedHello is g's HELLO with a change.
func sealedHello(t *testing.T, g *greeting, change func(*wire.Hello)) *envelope.Event {
	t.Helper()
	plain, err := envelope.Open(nil, helloAgain(t, g, noon).Content, g.key)
	if err != nil {
		t.Fatal(err)
	}
	m, err := wire.ParseMessage(plain)
	if err != nil {
		t.Fatal(err)
	}
	change(m.Hello)
	if plain, err = wire.AppendMessage(nil, m); err != nil {
		t.Fatal(err)
	}
	return sealed(t, g, plain)
}

func TestRefusalReachesTheEntry(t *testing.T) {
	exit := newKey(t)
	d := newDoorman(exit, 0) // no room for anybody
	g, ev := hello(t, exit.Public(), noon)
	_, _, err := d.receive(ev, noon)
	no, ok := errorAs[*refusal](err)
	if !ok {
		t.Fatalf("admit = %v, want a refusal", err)
	}
	raw, _, err := d.refused(no, noon)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = g.answer(envelopetest.Parse(t, raw))
	refused, ok := errorAs[*RefusedError](err)
	if !ok || wire.CodeOf(refused) != wire.CodeBusy {
		t.Errorf("the entry sees %v, want a refusal with code %v", err, wire.CodeBusy)
	}
}

func TestAnswersThatAreNotOurs(t *testing.T) {
	exit, stranger := newKey(t), newKey(t)
	d := newDoorman(exit, 10)
	g, ev := hello(t, exit.Public(), noon)
	a, _, err := d.receive(ev, noon)
	if err != nil {
		t.Fatal(err)
	}
	welcome := welcomed(t, d, a, noon)

	other, otherHello := hello(t, exit.Public(), noon)
	b, _, err := d.receive(otherHello, noon)
	if err != nil {
		t.Fatal(err)
	}
	impostor := newDoorman(stranger, 10)
	c := *a
	forged, _, err := impostor.welcome(&c, noon, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	claimed := envelopetest.Parse(t, forged)
	claimed.PubKey = exit.Public()
	for name, ev := range map[string]*envelope.Event{
		"for another greeting":           welcomed(t, d, b, noon),
		"from a stranger":                envelopetest.Parse(t, forged),
		"from a stranger, as if from us": claimed,
		"our own HELLO, reflected":       ev,
	} {
		if _, _, err := g.answer(ev); !errors.Is(err, errNotOurs) {
			t.Errorf("%s: %v, want errNotOurs", name, err)
		}
	}
	if _, _, err := other.answer(welcome); !errors.Is(err, errNotOurs) {
		t.Errorf("the first greeting's WELCOME, for the second: %v", err)
	}
	if _, _, err := g.answer(welcome); err != nil {
		t.Errorf("the right answer: %v", err)
	}
}

func TestDoormanForgetsAndStaysBounded(t *testing.T) {
	exit := newKey(t)
	d := newDoorman(exit, 2)
	for range 2 {
		_, ev := hello(t, exit.Public(), noon)
		if _, _, err := d.receive(ev, noon); err != nil {
			t.Fatal(err)
		}
	}
	_, ev := hello(t, exit.Public(), noon)
	if _, _, err := d.receive(ev, noon); err == nil {
		t.Error("more nonces are remembered than there is room for")
	}
	later := noon.Add(3 * time.Minute)
	_, ev = hello(t, exit.Public(), later)
	if _, fresh, err := d.receive(ev, later); err != nil || !fresh {
		t.Errorf("after the old ones expired: fresh %v, %v", fresh, err)
	}
	if len(d.seen) != 1 {
		t.Errorf("%d nonces are remembered, want 1", len(d.seen))
	}
}

// Anybody can send an old HELLO again: past a bound it gets no answer.
func TestStaleHellosAreAnsweredRarely(t *testing.T) {
	exit := newKey(t)
	d := newDoorman(exit, 10)
	_, ev := hello(t, exit.Public(), noon.Add(-time.Hour))
	answered := 0
	for range 10 * maxStaleAnswers {
		_, _, err := d.receive(ev, noon)
		if _, ok := errorAs[*refusal](err); ok {
			answered++
		} else if !errors.Is(err, errStale) {
			t.Fatal(err)
		}
	}
	if answered != maxStaleAnswers {
		t.Errorf("%d answers, want %d", answered, maxStaleAnswers)
	}
	_, _, err := d.receive(ev, noon.Add(time.Minute))
	if _, ok := errorAs[*refusal](err); !ok {
		t.Errorf("no answer a minute later: %v", err)
	}
}
