package nostrlink

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/internal/splice"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startRelay runs the embedded relay on loopback and returns its URL.
func startRelay(t *testing.T) string {
	t.Helper()
	relay := relayd.New(relayd.Options{})
	server := httptest.NewServer(relay)
	t.Cleanup(func() { relay.Close(); server.Close() })
	return "ws" + strings.TrimPrefix(server.URL, "http")
}

// echo answers what a flow sends, except on port 1, which nobody serves.
func echo(_ context.Context, req Request) {
	if strings.HasSuffix(req.Address(), ":1") {
		req.Reject(syscall.ECONNREFUSED)
		return
	}
	conn, err := req.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := io.Copy(conn, conn); err == nil {
		conn.(splice.Conn).CloseWrite()
	}
}

// startExit serves key on the relay and returns once entries can reach it.
func startExit(t *testing.T, key envelope.SecretKey, relay string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	hub := NewHub(HubOptions{})
	l := hub.NewListener(key, []string{relay}, ListenerOptions{Ready: func(string) { close(ready) }})
	var wg sync.WaitGroup
	wg.Go(func() { l.Serve(ctx, echo) })
	<-ready
	stop = sync.OnceFunc(func() { cancel(); wg.Wait(); hub.Close() })
	t.Cleanup(stop)
	return stop
}

// startLink serves a link to exit.
func startLink(t *testing.T, exit envelope.PublicKey, relays ...string) (*Hub, *Link) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hub := NewHub(HubOptions{})
	l := hub.NewLink(exit, relays, LinkOptions{})
	l.set(Connecting, nil, nil)
	var wg sync.WaitGroup
	wg.Go(func() { l.Serve(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait(); hub.Close() })
	return hub, l
}

// patience bounds the waiting of tests for what must happen.
func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func roundTrip(t *testing.T, conn net.Conn, size int) {
	t.Helper()
	want := make([]byte, size)
	rand.Read(want)
	go func() {
		conn.Write(want)
		conn.(splice.Conn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came back, equal %v, %v", len(got), len(want), bytes.Equal(got, want), err)
	}
	conn.Close()
}

func TestFlowsThroughARelay(t *testing.T) {
	ctx, relay, key := patience(t), startRelay(t), newKey(t)
	startExit(t, key, relay)
	_, link := startLink(t, key.Public(), relay)
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	if s := link.Status(); s.State != Connected || s.Relay != relay || s.Failure != nil {
		t.Errorf("status %+v", s)
	}
	conn, err := link.DialContext(ctx, "tcp", "example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, conn, 3<<20)
	if _, err := link.DialContext(ctx, "tcp", "example.com:1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a refused port: %v, want ECONNREFUSED", err)
	}
}

func TestExitThatRestartsIsFoundAgain(t *testing.T) {
	ctx, relay, key := patience(t), startRelay(t), newKey(t)
	stop := startExit(t, key, relay)
	_, link := startLink(t, key.Public(), relay)
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := link.DialContext(ctx, "tcp", "example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a flow outlived its exit")
	}
	conn.Close()
	startExit(t, key, relay)
	// DialContext itself waits for the new session.
	for {
		conn, err := link.DialContext(ctx, "tcp", "example.com:80")
		if err == nil {
			roundTrip(t, conn, 1000)
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestRouterFindsTheExitOfAName(t *testing.T) {
	ctx, relay, first, second := patience(t), startRelay(t), newKey(t), newKey(t)
	startExit(t, first, relay)
	startExit(t, second, relay)
	hub, link := startLink(t, first.Public(), relay)
	router := hub.NewRouter(link, []string{relay}, LinkOptions{})
	defer router.Close()
	for what, host := range map[string]string{
		"a plain host":         "example.com",
		"the default exit":     name.Name{Key: first.Public()}.Host(),
		"another exit":         name.Name{Key: second.Public()}.Host(),
		"another, with relays": name.Name{Key: second.Public(), Relays: []string{relay}}.Host(),
	} {
		conn, err := router.DialContext(ctx, "tcp", net.JoinHostPort(host, "80"))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		roundTrip(t, conn, 1000)
	}
	if _, err := router.DialContext(ctx, "tcp", "no-such-name.nostr:80"); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("a malformed name: %v, want EHOSTUNREACH", err)
	}
}

func TestNamesDoNotLeadIntoTheOwnNetwork(t *testing.T) {
	hub := NewHub(HubOptions{})
	defer hub.Close()
	router := hub.NewRouter(hub.NewLink(newKey(t).Public(), nil, LinkOptions{}), []string{"ws://10.0.0.1:7777"}, LinkOptions{})
	defer router.Close()
	for relay, want := range map[string]bool{
		"ws://10.0.0.1:7777":        true, // the user's own
		"wss://relay.example.org":   true,
		"https://relay.example.org": true, // as the reference writes it
		"ws://relay.example.org":    false,
		"wss://192.168.1.1":         false,
		"wss://[::1]:443":           false,
		"wss://router.local":        false,
		"wss://localhost":           false,
	} {
		if got := len(router.usable([]string{relay})) == 1; got != want {
			t.Errorf("%s is used: %v, want %v", relay, got, want)
		}
	}
}

func TestConnectSaysWhichHopFailed(t *testing.T) {
	exit := newKey(t)
	relay := startRelay(t)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	for _, test := range []struct {
		name, relay string
		want        []string
	}{
		{"nobody at the relay", "ws://" + dead.Addr().String(), []string{"relay", "refused"}},
		{"nobody behind the key", relay, []string{exit.Public().NPub(), relay, "key right"}},
		{"no relay URL", "ftp://x", []string{"relay"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, link := startLink(t, exit.Public(), test.relay)
			err := link.Connect(patience(t))
			if err == nil {
				t.Fatal("connected")
			}
			for _, word := range test.want {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not mention %q", err, word)
				}
			}
		})
	}
}
