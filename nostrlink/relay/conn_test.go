package relay_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

func TestPublishAndReceiveInOrder(t *testing.T) {
	for _, inMemory := range []bool{false, true} {
		t.Run(fmt.Sprintf("in memory %v", inMemory), func(t *testing.T) {
			r := relaytest.New(t, relaytest.Options{InMemory: inMemory})
			subscriber, publisher := dial(t, r, relay.Options{}), dial(t, r, relay.Options{Window: 16})
			const events = 300
			var got []int
			all := make(chan struct{})
			err := subscriber.Subscribe(t.Context(), "s", forRecipient(), func(raw []byte) {
				if got = append(got, number(t, raw)); len(got) == events {
					close(all)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			v := newVerdicts()
			for n := range events {
				raw, id := fakeEvent(n, 40000*(n%2))
				if err := publisher.Publish(t.Context(), raw, id, v.onOK); err != nil {
					t.Fatal(err)
				}
			}
			for _, s := range v.await(events) {
				if s != "true " {
					t.Errorf("verdict %q", s)
				}
			}
			<-all
			for i, n := range got {
				if i != n {
					t.Fatalf("event %d came at place %d", n, i)
				}
			}
		})
	}
}

// TestErrorsNameTheHop has a relay fail in each way that a user can meet before
// anything works.
func TestErrorsNameTheHop(t *testing.T) {
	tests := []struct {
		name      string
		behaviour relaytest.Behaviour
		opts      relay.Options
		want      []string
	}{
		{"no handshake", relaytest.Behaviour{NoHandshake: true}, relay.Options{}, []string{"accepted the connection but did not answer the websocket handshake"}},
		{"not a relay", relaytest.Behaviour{Status: 404}, relay.Options{}, []string{"answered HTTP 404 instead of a websocket", "is this the URL of a Nostr relay?"}},
		{"silent", relaytest.Behaviour{Mute: true}, relay.Options{}, []string{"accepted the connection but did not answer the subscription within 10s", "try another"}},
		{"no EOSE", relaytest.Behaviour{NoEOSE: true}, relay.Options{}, []string{"did not answer the subscription within 10s"}},
		{"refused", relaytest.Behaviour{Closed: "blocked: go\naway"}, relay.Options{}, []string{"refused the subscription: blocked: go away"}},
		{"refused without words", relaytest.Behaviour{ClosedWithoutWords: true}, relay.Options{}, []string{"refused the subscription: no reason given"}},
		{"wants to know us", relaytest.Behaviour{Auth: true}, relay.Options{}, []string{"refused the subscription: auth-required:", "no key was given"}},
		{"drops us", relaytest.Behaviour{CutAfter: 1}, relay.Options{}, []string{"connection ended", "dropped"}},
		{"sends too much", relaytest.Behaviour{Greeting: []string{strings.Repeat(" ", 2000)}, NoEOSE: true}, relay.Options{MaxMessage: 1000}, []string{"sent a message of more than 1000 bytes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := relaytest.New(t, relaytest.Options{Behaviour: tt.behaviour, InMemory: true})
				begun := time.Now()
				err := subscribeOnce(r, tt.opts)
				wantError(t, err, append(tt.want, "relay ws://relay.test: ")...)
				if took := time.Since(begun); took > 11*time.Second {
					t.Errorf("it took %v to find out", took)
				}
			})
		})
	}
}

func subscribeOnce(r *relaytest.Relay, opts relay.Options) error {
	opts.DialContext = r.DialContext
	c, err := relay.Dial(context.Background(), r.URL(), opts)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Subscribe(context.Background(), "s", forRecipient(), func([]byte) {})
}

func TestDialErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	tests := []struct{ url, want string }{
		{"ws://" + address, "cannot be reached: dial tcp " + address},
		{"http://relay.example", "does not begin with ws:// or wss://"},
		{"ws://", "names no host"},
		{"relay.example", "does not begin with ws:// or wss://"},
		{"ws://a:b@relay.example", "no user name"},
		{"ws://[::1", "is not a URL"},
	}
	for _, tt := range tests {
		_, err := relay.Dial(t.Context(), tt.url, relay.Options{})
		wantError(t, err, tt.want)
	}
}

func TestDialGivesUpOnATrickle(t *testing.T) {
	// A relay that accepts and sends its handshake byte by byte, for ever.
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		var tasks sync.WaitGroup
		tasks.Go(func() {
			buf := make([]byte, 4096)
			far.Read(buf)
			for {
				if _, err := far.Write([]byte("H")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		_, err := relay.Dial(context.Background(), "ws://relay.test", relay.Options{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil },
		})
		wantError(t, err, "did not answer the websocket handshake")
		tasks.Wait()
	})
}

func TestSilentRelayIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relaytest.New(t, relaytest.Options{InMemory: true, Behaviour: relaytest.Behaviour{NoPong: true}})
		c := dial(t, r, relay.Options{})
		begun := time.Now()
		<-c.Done()
		wantError(t, c.Err(), "relay ws://relay.test: ", "has been silent for", "did not answer a ping")
		if took := time.Since(begun); took > 17*time.Second {
			t.Errorf("it took %v to notice", took)
		}
	})
}

func TestQuietRelayIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relaytest.New(t, relaytest.Options{InMemory: true})
		c := dial(t, r, relay.Options{})
		time.Sleep(time.Hour)
		if err := c.Err(); err != nil {
			t.Error(err)
		}
	})
}

// TestSlowCallbackIsNotSilence: a consumer that takes long must not have its
// relay declared dead, nor its publishes timed out.
func TestSlowCallbackIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relaytest.New(t, relaytest.Options{InMemory: true})
		c := dial(t, r, relay.Options{})
		got := make(chan struct{}, 1)
		err := c.Subscribe(t.Context(), "s", forRecipient(), func([]byte) {
			time.Sleep(time.Minute)
			got <- struct{}{}
		})
		if err != nil {
			t.Fatal(err)
		}
		v := newVerdicts()
		raw, id := fakeEvent(1, 0)
		r.Inject(raw)
		synctest.Wait()
		if err := c.Publish(t.Context(), raw, id, v.onOK); err != nil {
			t.Fatal(err)
		}
		<-got
		<-got // our own
		if s := v.await(1); s[0] != "true " {
			t.Errorf("verdict %q", s[0])
		}
		if err := c.Err(); err != nil {
			t.Error(err)
		}
	})
}

func TestVerdicts(t *testing.T) {
	tests := []struct {
		name      string
		behaviour relaytest.Behaviour
		want      string
	}{
		{"accepted", relaytest.Behaviour{}, "true "},
		{"refused", relaytest.Behaviour{Reject: "rate-limited: slow\x00down"}, "false rate-limited: slow down"},
		{"no verdict", relaytest.Behaviour{NoOK: true}, "false timeout: no OK within 10s"},
		{"cut", relaytest.Behaviour{CutAfter: 1}, "false disconnected: "},
		{"nonsense", relaytest.Behaviour{NoOK: true, Greeting: []string{"x", "", "[]", `["OK",1]`, `["OK","` + recipient + `",true,""]`, `["EOSE","none"]`, `["EVENT","none",{}]`, `["CLOSED","none"]`}}, "false timeout: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := relaytest.New(t, relaytest.Options{Behaviour: tt.behaviour, InMemory: true})
				c := dial(t, r, relay.Options{})
				raw, id := fakeEvent(1, 0)
				v := newVerdicts()
				if err := c.Publish(t.Context(), raw, id, v.onOK); err != nil {
					t.Fatal(err)
				}
				got := v.await(1)
				c.Close()
				if len(got) != 1 || !strings.HasPrefix(got[0], tt.want) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// TestWindow publishes to a relay that gives no verdicts: the window fills,
// Publish waits, and the verdicts that we give ourselves free it.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relaytest.New(t, relaytest.Options{InMemory: true, Behaviour: relaytest.Behaviour{NoOK: true}})
		c := dial(t, r, relay.Options{Window: 3})
		v := newVerdicts()
		raw, id := fakeEvent(1, 0) // the same each time: that is allowed
		for range 3 {
			if err := c.Publish(t.Context(), raw, id, v.onOK); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Publish(ctx, raw, id, v.onOK); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a fourth publish: %v", err)
		}
		for range 3 {
			if err := c.Publish(t.Context(), raw, id, v.onOK); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		if err := c.Publish(t.Context(), raw, id, v.onOK); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		got := v.await(6)
		if len(got) != 6 || !strings.HasPrefix(got[0], "false timeout") || !strings.HasPrefix(got[5], "false disconnected") {
			t.Errorf("verdicts %q", got)
		}
	})
}

// TestDeafRelay publishes to a relay that stops reading: Publish waits instead
// of buffering, its context ends the wait, and the connection stays usable for
// whoever waits longer.
func TestDeafRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relaytest.New(t, relaytest.Options{InMemory: true, Behaviour: relaytest.Behaviour{Deaf: true}})
		c := dial(t, r, relay.Options{QueueBytes: 100 << 10, PingAfter: time.Hour})
		v := newVerdicts()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		n := 0
		for ; ; n++ {
			raw, id := fakeEvent(n, 40000)
			if err := c.Publish(ctx, raw, id, v.onOK); err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				break
			}
		}
		if n == 0 || n > 3 {
			t.Errorf("%d events were taken", n)
		}
		c.Close()
		if got := v.await(n); len(got) != n {
			t.Errorf("%d verdicts for %d publishes", len(got), n)
		}
	})
}

func TestReplaceFilterAndCallback(t *testing.T) {
	r := relaytest.New(t, relaytest.Options{})
	c := dial(t, r, relay.Options{})
	ctx := t.Context()
	got := make(chan string, 10)
	to := func(name string) func([]byte) { return func([]byte) { got <- name } }
	none := []relay.Filter{{Kinds: []int{1}}}
	for _, step := range []struct {
		name    string
		filters []relay.Filter
	}{{"first", forRecipient()}, {"second", none}, {"third", forRecipient()}} {
		if err := c.Subscribe(ctx, "same", step.filters, to(step.name)); err != nil {
			t.Fatal(err)
		}
		raw, _ := fakeEvent(1, 0)
		r.Inject(raw)
		if step.name != "second" {
			if g := <-got; g != step.name {
				t.Errorf("%s was called instead of %s", g, step.name)
			}
		}
	}
	if err := c.Subscribe(ctx, "other", forRecipient(), to("other")); err != nil {
		t.Fatal(err)
	}
	if n := r.Subscriptions(); n != 2 {
		t.Errorf("%d subscriptions", n)
	}
	if err := c.Unsubscribe(ctx, "same"); err != nil {
		t.Fatal(err)
	}
	if err := c.Unsubscribe(ctx, "same"); err != nil {
		t.Error(err)
	}
	if err := c.Subscribe(ctx, "other", forRecipient(), to("last")); err != nil { // also flushes
		t.Fatal(err)
	}
	raw, _ := fakeEvent(2, 0)
	r.Inject(raw)
	if g := <-got; g != "last" {
		t.Errorf("%s was called instead of last", g)
	}
}

func TestRelayEndsSubscription(t *testing.T) {
	r := relaytest.New(t, relaytest.Options{})
	c := dial(t, r, relay.Options{})
	if err := c.Subscribe(t.Context(), "s", forRecipient(), func([]byte) {}); err != nil {
		t.Fatal(err)
	}
	r.Send(`["CLOSED","s","error: shutting down"]`)
	<-c.Done()
	wantError(t, c.Err(), "a running subscription was closed by the relay: error: shutting down")
}

func TestNotice(t *testing.T) {
	r := relaytest.New(t, relaytest.Options{})
	got := make(chan string, 1)
	dial(t, r, relay.Options{OnNotice: func(text string) { got <- text }})
	for {
		if open, _ := r.Connections(); open == 1 {
			break
		}
	}
	r.Send(`["NOTICE","be\u0007ware` + strings.Repeat("é", 1000) + `"]`)
	if text := <-got; !strings.HasPrefix(text, "be ware") || len(text) > 300 {
		t.Errorf("got %q", text)
	}
}

func TestAuthentication(t *testing.T) {
	event, id := fakeEvent(7, 0)
	signer := func(_ context.Context, url, challenge string) ([]byte, [32]byte, error) {
		if url != "ws://relay.test" || challenge == "" {
			return nil, id, fmt.Errorf("asked for %q, %q", url, challenge)
		}
		return event, id, nil
	}
	tests := []struct {
		name      string
		behaviour relaytest.Behaviour
		signer    func(context.Context, string, string) ([]byte, [32]byte, error)
		want      string // error, or "" for success
	}{
		{"accepted", relaytest.Behaviour{Auth: true}, signer, ""},
		{"refused", relaytest.Behaviour{Auth: true, AuthVerdict: "restricted: not you"}, signer, "did not accept our authentication: restricted: not you"},
		{"no key", relaytest.Behaviour{Auth: true}, func(context.Context, string, string) ([]byte, [32]byte, error) {
			return nil, id, errors.New("the key is locked")
		}, "cannot authenticate: the key is locked"},
		{"no challenge", relaytest.Behaviour{Closed: "auth-required: guess"}, signer, "sent no challenge"},
		{"no verdict", relaytest.Behaviour{Auth: true, CutAfter: 2}, signer, "connection ended"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := relaytest.New(t, relaytest.Options{Behaviour: tt.behaviour, InMemory: true})
				err := subscribeOnce(r, relay.Options{Auth: tt.signer})
				if tt.want != "" {
					wantError(t, err, tt.want)
				} else if err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestPrefix(t *testing.T) {
	for reason, want := range map[string]string{
		"rate-limited: slow down": "rate-limited", "mute: x": "mute", "": "", "no prefix": "", "not a prefix: x": "", "timeout": "",
	} {
		if got := relay.Prefix(reason); got != want {
			t.Errorf("%q: %q", reason, got)
		}
	}
}
