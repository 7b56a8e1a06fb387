package nostrlink_test

import (
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// relays starts some well-behaved relays.
func relays(t *testing.T, n int) (all []*relaytest.Relay, urls []string) {
	t.Helper()
	for range n {
		r := relaytest.New(t, relaytest.Options{})
		all, urls = append(all, r), append(urls, r.URL())
	}
	return all, urls
}

// at is what a link says of a relay.
func at(l *nostrlink.Link, url string) nostrlink.RelayStatus {
	for _, r := range l.Status().Relays {
		if r.URL == url {
			return r
		}
	}
	return nostrlink.RelayStatus{}
}

func inUse(l *nostrlink.Link, url string) func() bool {
	return func() bool { return at(l, url).State == nostrlink.RelayCarrying }
}

// flowOver opens a flow, which is closed when the test ends.
func flowOver(t *testing.T, link *nostrlink.Link) net.Conn {
	t.Helper()
	conn, err := link.DialContext(await.Context(t), "tcp", "example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestASessionUsesTheRelaysOfBothEnds(t *testing.T) {
	key := envelopetest.NewKey(t)
	_, urls := relays(t, 4) // 0 of the exit only, 3 of the entry only
	serveExit(t, key, nostrlink.Echo, urls[0], urls[1], urls[2])
	link, _ := serveLink(t, key.Public(), urls[3], urls[2]+"/", strings.ToUpper(urls[1][:2])+urls[1][2:])
	await.That(t, "both common relays are in use", func() bool { return inUse(link, urls[1])() && inUse(link, urls[2])() })
	if s := link.Status(); len(s.Relays) != 2 {
		t.Errorf("the session has %d relays, want the two in common: %+v", len(s.Relays), s.Relays)
	}
	conn := flowOver(t, link)
	if err := echoed(conn, 2<<20); err != nil {
		t.Error(err)
	}
}

// A flow outlives each of its relays, as long as there is another.
func TestRelaysThatComeAndGo(t *testing.T) {
	key := envelopetest.NewKey(t)
	all, urls := relays(t, 2)
	serveExit(t, key, nostrlink.Echo, urls...)
	link, _ := serveLink(t, key.Public(), urls...)
	conn := flowOver(t, link)
	for round := range 4 {
		await.That(t, "both relays are in use", func() bool { return inUse(link, urls[0])() && inUse(link, urls[1])() })
		var transfer sync.WaitGroup
		transfer.Go(func() {
			if err := echoed(conn, 4<<20); err != nil {
				t.Error(err)
			}
		})
		all[round%2].Cut()
		transfer.Wait()
	}
	if n := link.Status().Session.StreamsOpened; n != 1 {
		t.Errorf("the session has had %d flows: it is not the first one", n)
	}
}

func TestARelayThatTurnsUsAwayIsRetired(t *testing.T) {
	for _, reason := range []string{"blocked: go away", "restricted: members only", "invalid: no such kind", "auth-required: who are you", "pow: work harder"} {
		t.Run(reason, func(t *testing.T) {
			key := envelopetest.NewKey(t)
			all, urls := relays(t, 2)
			serveExit(t, key, nostrlink.Echo, urls...)
			link, _ := serveLinkWith(t, nostrlink.LinkOptions{Duplicate: true}, key.Public(), urls...)
			await.That(t, "both relays are in use", func() bool { return inUse(link, urls[0])() && inUse(link, urls[1])() })
			conn := flowOver(t, link)
			for i, r := range all {
				r.Set(relaytest.Behaviour{Reject: reason})
				if i == 0 {
					await.That(t, "the relay is retired", func() bool {
						if err := echoed(conn, 1000); err != nil {
							t.Fatal(err)
						}
						return at(link, urls[0]).State == nostrlink.RelayRetired
					})
					if err := at(link, urls[0]).Err; err == nil || !strings.Contains(err.Error(), reason) {
						t.Errorf("the status says %v, want the relay's reason", err)
					}
					continue
				}
				go conn.Write(make([]byte, 1000))
				await.That(t, "the session is given up", func() bool { return link.Status().State != nostrlink.Connected })
				if err := link.Status().Failure; err == nil || !strings.Contains(err.Error(), reason) {
					t.Errorf("the status says %v, want the relay's reason", err)
				}
			}
		})
	}
}

// leak check 29: a relay that limits the rate
func TestARelaysRateLimitIsKept(t *testing.T) {
	key := envelopetest.NewKey(t)
	r := relaytest.New(t, relaytest.Options{Behaviour: relaytest.Behaviour{PerSecond: 20}})
	serveExit(t, key, nostrlink.Echo, r.URL())
	link, _ := serveLink(t, key.Public(), r.URL())
	conn := flowOver(t, link)
	for range 3 {
		if err := echoed(conn, 2<<20); err != nil {
			t.Fatal(err)
		}
	}
	s := link.Status()
	if pace := at(link, r.URL()).Pace; pace.Limited == 0 || pace.Rate == 0 || pace.Rate > 200 {
		t.Errorf("pace %+v, want one that the relay has limited", pace)
	}
	if at(link, r.URL()).State != nostrlink.RelayCarrying || s.Session.StreamsOpened != 1 {
		t.Errorf("the relay is %v", at(link, r.URL()).State)
	}
}

func TestARelaysSizeLimitIsKept(t *testing.T) {
	key := envelopetest.NewKey(t)
	server := relayd.New(relayd.Options{Limits: relayd.Limits{MaxEvent: 16384, MaxMessage: 20000}})
	web := httptest.NewServer(server)
	t.Cleanup(func() { server.Close(); web.Close() })
	url := "ws" + strings.TrimPrefix(web.URL, "http")
	serveExit(t, key, nostrlink.Echo, url)
	link, _ := serveLink(t, key.Public(), url)
	conn := flowOver(t, link)
	if err := echoed(conn, 1<<20); err != nil {
		t.Fatal(err)
	}
	if s := link.Status().Session; s.PacketsLost > s.PacketsSent/10 {
		t.Errorf("%d packets of %d were lost", s.PacketsLost, s.PacketsSent)
	}
}

func TestARelayThatWantsToKnowUs(t *testing.T) {
	key := envelopetest.NewKey(t)
	r := relaytest.New(t, relaytest.Options{Behaviour: relaytest.Behaviour{Auth: true}})
	serveExit(t, key, nostrlink.Echo, r.URL())
	link, _ := serveLink(t, key.Public(), r.URL())
	conn := flowOver(t, link)
	if err := echoed(conn, 100_000); err != nil {
		t.Error(err)
	}
}

// An exit that is killed says no goodbye. Its flows must not hang once it is
// back, and while it is away the session waits for it.
func TestAnExitThatIsKilledAndComesBack(t *testing.T) {
	key := envelopetest.NewKey(t)
	_, urls := relays(t, 1)
	hub := nostrlink.NewHub(nostrlink.HubOptions{})
	ready := make(chan string, 1)
	listener := hub.NewListener(key, urls, nostrlink.ListenerOptions{Ready: func(url string) { ready <- url }})
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { listener.Serve(ctx, nostrlink.Echo) })
	<-ready
	link, _ := serveLink(t, key.Public(), urls...)
	conn := flowOver(t, link)
	if err := echoed(conn, 1000); err != nil {
		t.Fatal(err)
	}
	hub.Close() // nothing leaves any more
	cancel()
	serving.Wait()
	if _, err := conn.Write([]byte("still there?")); err != nil {
		t.Errorf("the flow ended with its exit out of sight: %v", err)
	}
	serveExit(t, key, nostrlink.Echo, urls...)
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a flow of the exit before reads %v", err)
	}
	await.That(t, "the new exit is in use", func() bool {
		again, err := link.DialContext(await.Context(t), "tcp", "example.com:80")
		if err != nil {
			return false
		}
		defer again.Close()
		return echoed(again, 1000) == nil
	})
}

// stuck is what a relay may be while others work.
var stuck = map[string]relaytest.Behaviour{
	"down":          {Status: 503},
	"never answers": {NoEOSE: true},
}

// exitAt serves an exit, of which one relay may be stuck, and returns once it
// listens on the other.
func exitAt(t *testing.T, key envelope.SecretKey, works string, all ...string) (l *nostrlink.Listener, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hub, ready := nostrlink.NewHub(nostrlink.HubOptions{}), make(chan struct{})
	l = hub.NewListener(key, all, nostrlink.ListenerOptions{Ready: func(url string) {
		if url == works {
			close(ready)
		}
	}})
	var serving sync.WaitGroup
	serving.Go(func() { l.Serve(ctx, nostrlink.Echo) })
	stop = sync.OnceFunc(func() { cancel(); serving.Wait(); hub.Close() })
	t.Cleanup(stop)
	<-ready
	return l, stop
}

// A session ends at the exit although one of its relays does not answer.
func TestAStuckRelayKeepsNoSession(t *testing.T) {
	for name, b := range stuck {
		t.Run(name, func(t *testing.T) {
			key := envelopetest.NewKey(t)
			all, urls := relays(t, 2)
			all[1].Set(b)
			exit, _ := exitAt(t, key, urls[0], urls...)
			for range 3 {
				link, stop := serveLink(t, key.Public(), urls...)
				if err := echoed(flowOver(t, link), 1000); err != nil {
					t.Error(err)
				}
				stop()
			}
			await.That(t, "the exit has no session left", func() bool { return exit.Sessions() == 0 && len(exit.Guests()) == 0 })
		})
	}
}

// A link finds its exit again although another one, of the same hub, waits for a
// relay of both.
func TestAStuckRelayKeepsNoLink(t *testing.T) {
	for name, b := range stuck {
		t.Run(name, func(t *testing.T) {
			all, urls := relays(t, 2)
			all[1].Set(b)
			var links [2]*nostrlink.Link
			var restart func()
			hub := nostrlink.NewHub(nostrlink.HubOptions{})
			ctx, cancel := context.WithCancel(context.Background())
			var serving sync.WaitGroup
			t.Cleanup(func() { cancel(); serving.Wait(); hub.Close() })
			for i := range links {
				key := envelopetest.NewKey(t)
				_, stop := exitAt(t, key, urls[0], urls...)
				restart = func() { stop(); exitAt(t, key, urls[0], urls...) }
				links[i] = hub.NewLink(key.Public(), urls, nostrlink.LinkOptions{})
				serving.Go(func() { links[i].Serve(ctx) })
				await.That(t, "the link is connected", func() bool { return links[i].Status().State == nostrlink.Connected })
			}
			restart()
			await.That(t, "the link is at the exit again", func() bool {
				conn, err := links[1].DialContext(await.Context(t), "tcp", "example.com:80")
				if err != nil {
					return false
				}
				defer conn.Close()
				return echoed(conn, 1000) == nil
			})
		})
	}
}
