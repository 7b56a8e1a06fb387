package nostrlink

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// relaysInMemory are n relays for tests in fake time.
func relaysInMemory(t *testing.T, n int) (urls []string, opts HubOptions) {
	t.Helper()
	all := make(map[string]*relaytest.Relay)
	for i := range n {
		host := string(rune('a'+i)) + ".test"
		all[host] = relaytest.New(t, relaytest.Options{InMemory: true})
		urls = append(urls, "ws://"+host)
	}
	return urls, HubOptions{Relay: relay.Options{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(address)
		return all[host].DialContext(ctx, network, address)
	}}}
}

// puppet is an exit that answers as the test says.
type puppet struct {
	t      *testing.T
	d      *doorman
	hellos chan *greeted
}

// greeted is a HELLO that a puppet got.
type greeted struct {
	*puppet
	post *post
	a    *admission
	work int
}

func startPuppet(t *testing.T, opts HubOptions, key envelope.SecretKey, urls ...string) *puppet {
	t.Helper()
	hub := NewHub(opts)
	t.Cleanup(func() { hub.Close() })
	p := &puppet{t, newDoorman(key, 10), make(chan *greeted, 64)}
	for _, url := range urls {
		post, err := hub.acquire(url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { hub.release(post) })
		keys := compat.NewKeys(key, 10)
		box := post.add(key.Public(), func(ev *envelope.Event, _ []byte) {
			in, err := keys.Open(ev)
			if err != nil || in.Message.Hello == nil {
				return // a packet
			}
			if a, err := p.d.read(in.From, in.Message.Hello); err != nil {
				t.Error(err)
			} else {
				p.hellos <- &greeted{p, post, a, envelope.Work(ev.ID)}
			}
		})
		t.Cleanup(box.close)
		if err := post.confirm(t.Context(), box); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (g *greeted) welcome() {
	g.t.Helper()
	g.say(g.d.welcome(g.a, time.Now(), "puppet", []string{g.post.url}, nil))
}

func (g *greeted) refuse(text string, work int) {
	g.t.Helper()
	g.say(g.d.refused(&refusal{to: g.a, code: wire.CodeBusy, text: text, work: work}, time.Now()))
}

func (g *greeted) say(event []byte, id [32]byte, err error) {
	g.t.Helper()
	if err == nil {
		err = g.post.publish(g.t.Context(), event, id, nil)
	}
	if err != nil {
		g.t.Error(err)
	}
}

// opening is a Link's attempt to get a session.
type opening struct {
	t     *testing.T
	begun time.Time
	done  chan error
}

func open(t *testing.T, opts HubOptions, exit envelope.PublicKey, urls ...string) *opening {
	t.Helper()
	hub := NewHub(opts)
	t.Cleanup(func() { hub.Close() })
	o := &opening{t, time.Now(), make(chan error, 1)}
	link := hub.NewLink(exit, urls, LinkOptions{})
	go func() {
		up, err := link.open(t.Context())
		if err == nil {
			up.close()
		}
		o.done <- err
	}()
	return o
}

// next is the next HELLO at p, before the attempt ends.
func (o *opening) next(p *puppet) *greeted {
	o.t.Helper()
	select {
	case g := <-p.hellos:
		return g
	case err := <-o.done:
		o.t.Fatalf("it ended before its time: %v", err)
		return nil
	}
}

// An exit that asks for work asks at each relay that brings the greeting, and for
// each time it was sent. All of these are one and the same demand.
func TestWorkAskedForTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newKey(t)
		urls, opts := relaysInMemory(t, 2)
		exit := startPuppet(t, opts, key, urls...)
		o := open(t, opts, key.Public(), urls...)
		first, second := o.next(exit), o.next(exit)
		first.refuse("work", mostWork/2)
		second.refuse("work", mostWork/2)
		second.refuse("work", mostWork/2)
		worked := make(map[*post]*greeted)
		for len(worked) < len(urls) {
			if g := o.next(exit); g.work >= mostWork/2 {
				worked[g.post] = g
			}
		}
		if waited := time.Since(o.begun); waited >= helloRepeats[0] {
			t.Errorf("a relay got the work only with the greeting's next turn, after %v", waited)
		}
		first.refuse("work", mostWork/2) // this came a long way
		synctest.Wait()
		for _, g := range worked {
			g.welcome()
		}
		if err := <-o.done; err != nil {
			t.Error(err)
		}
	})
}

// The exit's word is told, also when it wants what it has.
func TestWorkInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newKey(t)
		urls, opts := relaysInMemory(t, 1)
		exit := startPuppet(t, opts, key, urls...)
		o := open(t, opts, key.Public(), urls...)
		var err error
		for err == nil {
			select {
			case g := <-exit.hellos:
				g.refuse("work harder", 8)
			case err = <-o.done:
			}
		}
		if no, ok := errorAs[*RefusedError](err); !ok || !strings.Contains(no.Error(), "work harder") {
			t.Errorf("it ends with %v", err)
		}
	})
}

// Several exits may share the key. What one of them refuses another may grant.
func TestOneExitRefusesAnotherWelcomes(t *testing.T) {
	for name, answer := range map[string]func(a, b *greeted){
		"the refusal first": func(a, b *greeted) {
			a.refuse("full", 0)
			time.Sleep(refusalGrace / 2)
			b.welcome()
		},
		"after a call for work": func(a, b *greeted) {
			a.refuse("work", 8)
			b.refuse("full", 0)
			time.Sleep(refusalGrace / 2)
			a.welcome()
		},
		"the WELCOME first": func(a, b *greeted) {
			a.welcome()
			b.refuse("full", 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				key := newKey(t)
				urls, opts := relaysInMemory(t, 1)
				one, other := startPuppet(t, opts, key, urls...), startPuppet(t, opts, key, urls...)
				o := open(t, opts, key.Public(), urls...)
				answer(o.next(one), o.next(other))
				if err := <-o.done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A refusal is final when no exit has welcomed the greeting in time: the first of
// them is told.
func TestAllExitsRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newKey(t)
		urls, opts := relaysInMemory(t, 1)
		one, other := startPuppet(t, opts, key, urls...), startPuppet(t, opts, key, urls...)
		o := open(t, opts, key.Public(), urls...)
		a, b := o.next(one), o.next(other)
		a.refuse("members only", 0)
		synctest.Wait()
		b.refuse("full", 0)
		err := <-o.done
		if no, ok := errorAs[*RefusedError](err); !ok || !strings.Contains(no.Error(), "members only") {
			t.Errorf("it ends with %v", err)
		}
		if waited := time.Since(o.begun); waited > 2*refusalGrace {
			t.Errorf("it ends after %v", waited)
		}
	})
}

// Whatever comes after a WELCOME, and however late, does not take its place.
func TestOutcome(t *testing.T) {
	for _, test := range []struct {
		name  string
		heard []worth
		want  int // index of what counts; -1 for none
		ended bool
	}{
		{"nothing", nil, -1, false},
		{"a demand", []worth{demanding}, 0, false},
		{"two refusals", []worth{refusing, refusing}, 0, false},
		{"a demand, then a refusal", []worth{demanding, refusing}, 1, false},
		{"a refusal, then a demand", []worth{refusing, demanding}, 0, false},
		{"a refusal, then a WELCOME", []worth{refusing, welcoming}, 1, true},
		{"a WELCOME, then all else", []worth{welcoming, demanding, refusing, welcoming}, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // no grace runs out
				ended := false
				o := &outcome{end: func() { ended = true }}
				var want *answered
				for i, w := range test.heard {
					a := new(answered)
					if o.hear(a, w); i == test.want {
						want = a
					}
				}
				if got := o.sum(); got != want || ended != test.ended {
					t.Errorf("%p counts, want %p; ended %v", got, want, ended)
				}
			})
		})
	}
}
