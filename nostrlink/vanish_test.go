package nostrlink_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// plug is a network that can be pulled.
type plug struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex
	conns  []net.Conn
	pulled bool
}

func (p *plug) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pulled {
		return nil, errors.New("the network is gone")
	}
	c, err := p.dial(ctx, network, address)
	if err == nil {
		p.conns = append(p.conns, c)
	}
	return c, err
}

func (p *plug) pull() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulled = true
	for _, c := range p.conns {
		c.Close()
	}
}

func (p *plug) plugIn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulled = false
}

// startLink serves a link to the first replica of an exit, in memory, until end.
func startLink(t *testing.T, opts nostrlink.HubOptions, exit envelope.PublicKey) (link *nostrlink.Link, end func()) {
	t.Helper()
	hub := nostrlink.NewHub(opts)
	link = hub.NewLink(exit, []string{inMemory}, nostrlink.LinkOptions{Mode: nostrlink.SessionOnly})
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { link.Serve(ctx) })
	end = func() { cancel(); serving.Wait(); hub.Close() }
	if n := served(t, link); n != 1 {
		end()
		t.Fatalf("exit %d serves", n)
	}
	return link, end
}

// TestExitThatVanishes: an exit is gone without a word, another process answers
// to its key. A relay that goes on sending what it has does not hold the entry
// to the one that is gone.
//
// leak check 30: an exit that vanishes
func TestExitThatVanishes(t *testing.T) {
	for name, attack := range map[string]relaytest.Attack{
		"good relay": nil, "reflect": relaytest.Reflect(), "replay": relaytest.Replay(1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := relaytest.New(t, relaytest.Options{InMemory: true, Behaviour: relaytest.Behaviour{Attack: attack}})
				key := envelopetest.NewKey(t)
				vanishing := &plug{dial: r.DialContext}
				_, stop := replica(t, nostrlink.HubOptions{Relay: relay.Options{DialContext: vanishing.DialContext}}, key, 1)
				defer stop()
				opts := nostrlink.HubOptions{Relay: relay.Options{DialContext: r.DialContext}}
				link, end := startLink(t, opts, key.Public())
				defer end()
				open, err := link.DialContext(t.Context(), "tcp", "open:80")
				if err != nil {
					t.Fatal(err)
				}
				defer open.Close()
				begun := time.Now()
				vanishing.pull()
				_, stop2 := replica(t, opts, key, 2)
				defer stop2()
				if _, err := open.Read(make([]byte, 1)); err == nil {
					t.Error("the flow goes on")
				}
				if n := served(t, link); n != 2 {
					t.Errorf("exit %d serves", n)
				}
				if took := time.Since(begun); took > 15*time.Second { // of fake time
					t.Errorf("that took %v", took)
				}
			})
		})
	}
}

// TestNobodyWaitsForANetworkThatIsGone: when there is no relay any more, either.
// The session outlives that, and its flows go on.
func TestNobodyWaitsForANetworkThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relaytest.New(t, relaytest.Options{InMemory: true})
		key := envelopetest.NewKey(t)
		_, stop := replica(t, nostrlink.HubOptions{Relay: relay.Options{DialContext: r.DialContext}}, key, 1)
		defer stop()
		network := &plug{dial: r.DialContext}
		link, end := startLink(t, nostrlink.HubOptions{Relay: relay.Options{DialContext: network.DialContext}}, key.Public())
		defer end()
		network.pull()
		early, err := link.DialEarly(t.Context(), "tcp", "who:80", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer early.Close()
		time.Sleep(15 * time.Second)
		if _, err := link.DialContext(t.Context(), "tcp", "who:80"); !errors.Is(err, syscall.ENETUNREACH) || err.Error() == "" {
			t.Errorf("without a network: %v", err)
		}
		network.plugIn()
		number := 0
		if _, err := fmt.Fscanln(early, &number); err != nil || number != 1 {
			t.Errorf("the flow from before does not go on: %v", err)
		}
		if n := served(t, link); n != 1 {
			t.Errorf("exit %d serves", n)
		}
	})
}

// TestNobodyWaitsForAnExitThatIsGone: flows wait for a moment, in which another
// exit or network may be found, and then hear at once that nothing is reached.
func TestNobodyWaitsForAnExitThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relaytest.New(t, relaytest.Options{InMemory: true})
		key := envelopetest.NewKey(t)
		vanishing := &plug{dial: r.DialContext}
		_, stop := replica(t, nostrlink.HubOptions{Relay: relay.Options{DialContext: vanishing.DialContext}}, key, 1)
		defer stop()
		opts := nostrlink.HubOptions{Relay: relay.Options{DialContext: r.DialContext}}
		link, end := startLink(t, opts, key.Public())
		defer end()
		vanishing.pull()
		// Somebody is waiting for an answer, or nobody would notice.
		if flow, err := link.DialEarly(t.Context(), "tcp", "open:80", []byte("hello")); err != nil {
			t.Error(err)
		} else {
			defer flow.Close()
		}
		for link.Status().Failure == nil {
			time.Sleep(time.Second)
		}
		time.Sleep(10 * time.Second)
		for range 60 {
			begun := time.Now()
			patient, done := context.WithTimeout(t.Context(), 5*time.Second)
			_, err := link.DialEarly(patient, "tcp", "open:80", nil)
			done()
			if took := time.Since(begun); !errors.Is(err, syscall.ENETUNREACH) || took >= 5*time.Second {
				t.Fatalf("%v after %v", err, took)
			}
			time.Sleep(time.Second)
		}
		_, stop2 := replica(t, opts, key, 2)
		defer stop2()
		for link.Status().Failure != nil {
			time.Sleep(time.Second)
		}
		if n := served(t, link); n != 2 {
			t.Errorf("exit %d serves", n)
		}
	})
}
