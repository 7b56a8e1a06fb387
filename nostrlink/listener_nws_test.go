package nostrlink

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/compat/reftest"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// reference connects the scripted reference to a relay.
func reference(t *testing.T, url string) *reftest.Websocket {
	t.Helper()
	ws, err := reftest.Dial(url, relay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ws.Close)
	return ws
}

// serveListener serves key on relays with opts and returns once entries can
// reach it there.
func serveListener(t *testing.T, key envelope.SecretKey, opts ListenerOptions, relays ...string) *Listener {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan string, len(relays))
	opts.Ready = func(url string) { ready <- url }
	hub := NewHub(HubOptions{})
	l := hub.NewListener(key, relays, opts)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Serve(ctx, echo)
	}()
	t.Cleanup(func() { cancel(); <-done; hub.Close() })
	for range relays {
		<-ready
	}
	return l
}

// swap writes data and wants it back.
func swap(t *testing.T, conn net.Conn, size int) {
	t.Helper()
	data, got := make([]byte, size), make([]byte, size)
	rand.Read(data)
	go conn.Write(data)
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Error("what comes back is not what was sent")
	}
}

func TestAnEntryWithoutASession(t *testing.T) {
	key, one, two := newKey(t), startRelay(t), startRelay(t)
	l := serveListener(t, key, ListenerOptions{}, one, two)
	for _, url := range []string{one, two} {
		entry := reftest.Entry{Exit: key.Public(), Relay: reference(t, url)}
		conn, err := entry.Dial("example.com:80")
		if err != nil {
			t.Fatal(err)
		}
		swap(t, conn, 20_000)
		swap(t, conn, 100)
		conn.Close()
	}
	if s := l.Stats(); s.NWS.Opened != 2 || s.NWS.BytesReceived != 40_200 || s.Malformed != 0 || s.Sessions != 0 {
		t.Errorf("counted %+v", s)
	}
}

// TestBothKinds: an exit serves a session and entries without one at the same
// time.
func TestBothKinds(t *testing.T) {
	key, url := newKey(t), startRelay(t)
	l := serveListener(t, key, ListenerOptions{}, url)
	_, link := startLink(t, key.Public(), url)
	conn, err := link.DialContext(patience(t), "tcp", "example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	entry := reftest.Entry{Exit: key.Public(), Relay: reference(t, url)}
	old, err := entry.Dial("example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	swap(t, old, 1000)
	old.Close()
	roundTrip(t, conn, 1<<20)
	if s := l.Stats(); s.NWS.Opened != 1 || s.Sessions != 1 {
		t.Errorf("counted %+v", s)
	}
}

func TestSessionOnly(t *testing.T) {
	key, url := newKey(t), startRelay(t)
	l := serveListener(t, key, ListenerOptions{SessionOnly: true}, url)
	entry := reftest.Entry{Exit: key.Public(), Relay: reference(t, url)}
	conn, err := entry.Dial("example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	await.That(t, "what begins no session is counted", func() bool { return l.Stats().Malformed > 0 })
	_, link := startLink(t, key.Public(), url)
	if err := link.Connect(patience(t)); err != nil {
		t.Error(err)
	}
}

// TestArrivalsAreBounded, in bytes and in number, and strangers have half of it.
func TestArrivalsAreBounded(t *testing.T) {
	key, from := newKey(t), newKey(t)
	l := NewHub(HubOptions{}).NewListener(key, []string{"ws://relay.example"}, ListenerOptions{Busy: 1 << 20})
	raw, _ := envelopetest.Sign(t, from, envelope.Template{
		Kind: envelope.KindNWS, CreatedAt: time.Now(), Tags: [][]string{{"p", key.Public().Hex()}}, Content: bytes.Repeat([]byte("x"), 60_000),
	})
	ev := envelopetest.Parse(t, raw)
	n := 0
	for ; l.Stats().Busy == 0; n++ {
		l.arrived(nil, ev, raw)
	}
	if most := maxArrivedBytes / 2 / len(raw); n < most || n > most+2 {
		t.Errorf("%d events of %d bytes were queued", n-1, len(raw))
	}
	raw, ev.Content = raw[:10], nil
	for i := range maxArrivals {
		l.arrived(nil, ev, raw)
		if len(l.arrivals.queue) > maxArrivals/2 {
			t.Fatalf("%d events are queued", n+i)
		}
	}
	if l.Stats().Busy < maxArrivals/2 {
		t.Error("the number of events has no bound")
	}
}

// TestConnectBack: CONNECTR, for an entry that lets the exit connect to it, and
// without the operator's leave.
func TestConnectBack(t *testing.T) {
	key, url := newKey(t), startRelay(t)
	dialed := make(chan string, 1)
	l := serveListener(t, key, ListenerOptions{DialBack: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed <- address
		return new(net.Dialer).DialContext(ctx, network, address)
	}}, url)
	inbound, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entry := reftest.Entry{
		Exit: key.Public(), Relay: reference(t, url),
		Listener: inbound, PublicAddress: inbound.Addr().String(),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		entry.Serve(ctx)
	}()
	defer func() { cancel(); <-done }()
	conn, err := entry.Dial("example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	swap(t, conn, 1<<20)
	conn.Close()
	if address := <-dialed; address != entry.PublicAddress || l.Stats().NWS.Reversed != 1 {
		t.Errorf("dialed %s, counted %+v", address, l.Stats())
	}
}

func TestConnectBackIsRefused(t *testing.T) {
	key, url := newKey(t), startRelay(t)
	l := serveListener(t, key, ListenerOptions{}, url)
	own := newKey(t)
	keys := compat.NewKeys(own, 1)
	plain, err := wire.AppendMessage(nil, &wire.Message{
		Key: wire.NewUUID().String(), Type: wire.TypeConnectReverse, Destination: "example.com:80", EntryPublicAddress: "192.0.2.1:80",
	})
	if err != nil {
		t.Fatal(err)
	}
	event, id, err := keys.Seal(key.Public(), plain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx := patience(t)
	if err := reference(t, url).Publish(ctx, event, id); err != nil {
		t.Fatal(err)
	}
	await.That(t, "it is refused", func() bool { return l.Stats().NWS.Refused > 0 })
}
