package nostrlink

import (
	"errors"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// author makes events of NWS for an exit.
type author struct {
	t    *testing.T
	exit envelope.PublicKey
	key  envelope.SecretKey
	keys *compat.Keys
}

func newAuthor(t *testing.T, exit envelope.PublicKey) *author {
	key := newKey(t)
	return &author{t, exit, key, compat.NewKeys(key, 1)}
}

func (a *author) event(m *wire.Message) (*envelope.Event, []byte) {
	a.t.Helper()
	plain, err := wire.AppendMessage(nil, m)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, _, err := a.keys.Seal(a.exit, plain, time.Now())
	if err != nil {
		a.t.Fatal(err)
	}
	ev := envelopetest.Parse(a.t, raw)
	return ev, raw
}

// TestAFloodInAPeersName ends none of its streams: only a message that is the
// peer's own, and new, is missed.
func TestAFloodInAPeersName(t *testing.T) {
	key := newKey(t)
	hub := NewHub(HubOptions{})
	defer hub.Close()
	l := hub.NewListener(key, nil, ListenerOptions{Busy: 1 << 20}) // nobody takes what arrives
	defer l.nws.Close()
	peer, stranger := newAuthor(t, key.Public()), newAuthor(t, key.Public())
	id := wire.NewUUID().String()
	open, _ := peer.event(&wire.Message{Key: id, Type: wire.TypeConnect, Destination: "example.com:80"})
	in, err := l.arrivals.keys.Open(open)
	if err != nil {
		t.Fatal(err)
	}
	l.nws.Receive(in)
	streams := func() int { return l.nws.Stats().Streams }
	if streams() != 1 {
		t.Fatal("no stream is open")
	}

	noise, raw := stranger.event(&wire.Message{Key: id, Type: wire.TypeData, Data: []byte("x")})
	for range 2 * maxArrivals {
		l.arrived(nil, noise, raw)
	}
	if n := len(l.arrivals.queue); n != maxArrivals/2 {
		t.Errorf("a stranger has %d places", n)
	}
	forged := *noise
	forged.PubKey = peer.key.Public()
	for range 2 * maxArrivals {
		l.arrived(nil, &forged, raw)
	}
	if n := len(l.arrivals.queue); n != maxArrivals/2 || l.Stats().Forged != 2*maxArrivals {
		t.Errorf("%d places are taken, counted %+v", n, l.Stats())
	}
	for len(l.arrivals.queue) < maxArrivals {
		l.arrived(nil, open, raw) // by a relay that repeats
	}
	l.arrived(nil, open, raw)
	if streams() != 1 {
		t.Error("what was not missed has ended the stream")
	}
	data, raw := peer.event(&wire.Message{Key: id, Type: wire.TypeData, Data: []byte("x")})
	if _, err := l.arrivals.put(nil, data, raw, l.knows); !errors.Is(err, errLost) {
		t.Errorf("there is room: %v", err)
	}
	l.arrived(nil, data, raw)
	if streams() != 0 {
		t.Error("a stream with a hole goes on")
	}
}

// TestMessagesFitTheRelay: messages of NWS keep the limit that the relay tells.
func TestMessagesFitTheRelay(t *testing.T) {
	for _, test := range []struct{ message, content, most int }{
		{0, 0, 65535}, {65536, 0, 40960}, {16384, 0, 11000}, {8192, 4096, 3000}, {100, 0, 1},
	} {
		p := &post{described: make(chan struct{})}
		if n := p.maxMessage(); n != 0 {
			t.Errorf("a limit of %d is known before the relay has told", n)
		}
		p.info.Limitation.MaxMessageLength, p.info.Limitation.MaxContentLength = test.message, test.content
		close(p.described)
		if n := p.maxMessage(); n < 1 || n > test.most {
			t.Errorf("message %d, content %d: %d", test.message, test.content, n)
		}
	}
}
