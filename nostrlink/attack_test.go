package nostrlink_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
)

// serveExit serves key over relays and returns once entries can reach it there.
func serveExit(t *testing.T, key envelope.SecretKey, handle nostrlink.Handle, relays ...string) (l *nostrlink.Listener, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan string, len(relays))
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	l = hub.NewListener(key, relays, nostrlink.ListenerOptions{Ready: func(relay string) { ready <- relay }})
	var wg sync.WaitGroup
	wg.Go(func() { l.Serve(ctx, handle) })
	stop = sync.OnceFunc(func() { cancel(); wg.Wait(); hub.Close() })
	t.Cleanup(stop)
	for range relays {
		<-ready
	}
	return l, stop
}

// serveLink serves a link to exit and returns once it is connected.
func serveLink(t *testing.T, exit envelope.PublicKey, relays ...string) (l *nostrlink.Link, stop func()) {
	t.Helper()
	return serveLinkWith(t, nostrlink.LinkOptions{}, exit, relays...)
}

func serveLinkWith(t *testing.T, opts nostrlink.LinkOptions, exit envelope.PublicKey, relays ...string) (l *nostrlink.Link, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	l = hub.NewLink(exit, relays, opts)
	var wg sync.WaitGroup
	wg.Go(func() { l.Serve(ctx) })
	stop = sync.OnceFunc(func() { cancel(); wg.Wait(); hub.Close() })
	t.Cleanup(stop)
	// On a busy machine under attack an attempt may take too long.
	await.That(t, "the link is connected", func() bool { return l.Status().State == nostrlink.Connected })
	return l, stop
}

// echoed sends size bytes through a connection and compares what comes back.
func echoed(conn net.Conn, size int) error {
	want := make([]byte, size)
	rand.Read(want)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(want)
		sent <- err
	}()
	got := make([]byte, size)
	if n, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", n, size, err)
	}
	if err := <-sent; err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes came back changed", size)
	}
	return nil
}

// TestAttackingRelay transfers bytes while the relay attacks, through two
// sessions at once, so that there is something to transplant. All must arrive
// in the session that was there at first; what a binding stopped is counted.
//
// leak check 29: a relay that forges, repeats and reorders
func TestAttackingRelay(t *testing.T) {
	everything := relaytest.Together(relaytest.Reflect(), relaytest.Replay(2), relaytest.ForgeID(2), relaytest.Invent(2))
	for _, c := range []struct {
		name      string
		behaviour relaytest.Behaviour
		counted   func(session.Rejected) uint64 // or nil: nothing of this opens
	}{
		{"reflect", relaytest.Behaviour{Attack: relaytest.Reflect()}, func(r session.Rejected) uint64 { return r.Direction }},
		{"replay", relaytest.Behaviour{Attack: relaytest.Replay(1)}, func(r session.Rejected) uint64 { return r.Replay }},
		{"transplant", relaytest.Behaviour{Attack: relaytest.Transplant()}, func(r session.Rejected) uint64 { return r.Direction }},
		{"forge ids", relaytest.Behaviour{Attack: relaytest.ForgeID(1)}, nil},
		{"invent", relaytest.Behaviour{Attack: relaytest.Invent(1)}, nil},
		{"everything, on a bad relay", relaytest.Behaviour{
			Attack: everything, Drop: .1, Duplicate: .1, Jitter: 50 * time.Millisecond, Reorder: true,
		}, func(r session.Rejected) uint64 { return min(r.Replay, r.Direction) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			relay := relaytest.New(t, relaytest.Options{Behaviour: c.behaviour, Seed: 1})
			transferUnderAttack(t, c.counted, relay.URL())
			if relay.Faked() == 0 {
				t.Error("the relay did not attack")
			}
		})
	}
}

// TestAttackingRelayBesideAGoodOne: what the one does to packets that the other
// delivers changes nothing.
func TestAttackingRelayBesideAGoodOne(t *testing.T) {
	everything := relaytest.Together(relaytest.Reflect(), relaytest.Replay(3), relaytest.Transplant(), relaytest.ForgeID(3), relaytest.Invent(3))
	bad := relaytest.New(t, relaytest.Options{Behaviour: relaytest.Behaviour{Attack: everything, Drop: .3}, Seed: 1})
	good := relaytest.New(t, relaytest.Options{})
	unknown := func(session.Rejected) uint64 { return 1 } // it depends on who is faster
	transferUnderAttack(t, unknown, bad.URL(), good.URL())
	if bad.Faked() == 0 {
		t.Error("the relay did not attack")
	}
}

// transferUnderAttack makes an exit and two links to it over the relays and
// uses both at once.
func transferUnderAttack(t *testing.T, counted func(session.Rejected) uint64, relays ...string) {
	t.Helper()
	key := envelopetest.NewKey(t)
	listener, _ := serveExit(t, key, nostrlink.Echo, relays...)
	var tasks sync.WaitGroup
	for range 2 {
		link, _ := serveLink(t, key.Public(), relays...)
		tasks.Go(func() { underAttack(t, link, counted) })
	}
	tasks.Wait()
	// One for each link, and one more for an attempt that took too long on a
	// busy machine; an attack that opened sessions would open many.
	if n := listener.Sessions(); n < 2 || n > 4 {
		t.Errorf("the exit has %d sessions", n)
	}
}

func underAttack(t *testing.T, link *nostrlink.Link, counted func(session.Rejected) uint64) {
	since := link.Status().Since
	ctx := await.Context(t)
	var streams sync.WaitGroup
	for range 3 {
		streams.Go(func() {
			conn, err := link.DialContext(ctx, "tcp", "example.com:80")
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for _, size := range []int{1, 1000, 200_000, 10} {
				if err := echoed(conn, size); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	streams.Wait()
	s := link.Status()
	if s.State != nostrlink.Connected || s.Since != since || s.Session.PacketsReceived == 0 {
		t.Errorf("the session did not live through it: %+v", s)
	}
	if r := s.Session.Rejected; counted != nil && counted(r) == 0 || counted == nil && r.Total() != 0 {
		t.Errorf("counted %+v", r)
	}
}
