package relaytest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const events = 200

// outcome is what became of events that were published one per 10 ms.
type outcome struct {
	arrived  []int
	at       []time.Duration // since the first was published, for each arrival
	accepted int
	reasons  map[string]int
}

// run publishes events in a bubble over a relay that behaves in some way.
func run(t *testing.T, b relaytest.Behaviour, seed uint64) (o outcome) {
	synctest.Test(t, func(t *testing.T) {
		o.reasons = make(map[string]int)
		r := relaytest.New(t, relaytest.Options{Behaviour: b, Seed: seed, InMemory: true})
		c, err := relay.Dial(t.Context(), r.URL(), relay.Options{DialContext: r.DialContext, Window: events})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		sk := envelopetest.NewKey(t)
		var mu sync.Mutex
		var begun time.Time
		filter := []relay.Filter{{Kinds: []int{28333}, Authors: []string{sk.Public().Hex()}}}
		err = c.Subscribe(t.Context(), "s", filter, func(raw []byte) {
			e, err := envelope.ParseEvent(raw)
			var n int
			if _, err2 := fmt.Sscan(string(e.Content), &n); err != nil || err2 != nil {
				t.Errorf("%v, %v", err, err2)
			}
			mu.Lock()
			defer mu.Unlock()
			o.arrived = append(o.arrived, n)
			o.at = append(o.at, time.Since(begun))
		})
		if err != nil {
			t.Fatal(err)
		}
		begun = time.Now()
		for n := range events {
			raw, id := envelopetest.Sign(t, sk, envelope.Template{Kind: 28333, CreatedAt: time.Now(), Content: fmt.Append(nil, n)})
			err = c.Publish(t.Context(), raw, id, func(accepted bool, reason string) {
				mu.Lock()
				defer mu.Unlock()
				if accepted {
					o.accepted++
				} else {
					o.reasons[relay.Prefix(reason)]++
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(15 * time.Second)
		if n := r.Published(); n != events {
			t.Errorf("%d events were published", n)
		}
		mu.Lock()
		defer mu.Unlock()
	})
	return o
}

func TestBehaviour(t *testing.T) {
	inOrder := func(o outcome) bool { return slices.IsSorted(o.arrived) }
	tests := []struct {
		name      string
		behaviour relaytest.Behaviour
		holds     func(o outcome) bool
	}{
		{"good", relaytest.Behaviour{}, func(o outcome) bool {
			return len(o.arrived) == events && inOrder(o) && o.accepted == events && o.at[0] == 0
		}},
		{"drop", relaytest.Behaviour{Drop: .2}, func(o outcome) bool {
			return len(o.arrived) > events/2 && len(o.arrived) < events*9/10 && inOrder(o) && o.accepted == events
		}},
		{"duplicate", relaytest.Behaviour{Duplicate: .2}, func(o outcome) bool {
			return len(o.arrived) > events*11/10 && len(o.arrived) < events*3/2 && inOrder(o)
		}},
		{"delay", relaytest.Behaviour{Delay: 3 * time.Second}, func(o outcome) bool {
			return len(o.arrived) == events && inOrder(o) && o.at[0] == 3*time.Second && o.at[events-1] == 3*time.Second+(events-1)*10*time.Millisecond
		}},
		{"jitter", relaytest.Behaviour{Jitter: time.Second}, func(o outcome) bool {
			return len(o.arrived) == events && inOrder(o)
		}},
		{"reorder", relaytest.Behaviour{Jitter: time.Second, Reorder: true}, func(o outcome) bool {
			return len(o.arrived) == events && !inOrder(o)
		}},
		{"batch", relaytest.Behaviour{Batch: 100 * time.Millisecond}, func(o outcome) bool {
			for i := range o.arrived {
				if i > 0 && o.arrived[i]/10 < o.arrived[i-1]/10-1 {
					return false // further than one batch
				}
			}
			return len(o.arrived) == events && !inOrder(o)
		}},
		{"reject", relaytest.Behaviour{Reject: "blocked: no"}, func(o outcome) bool {
			return len(o.arrived) == 0 && o.accepted == 0 && o.reasons["blocked"] == events
		}},
		{"rate limit", relaytest.Behaviour{PerSecond: 10}, func(o outcome) bool {
			perSecond := map[time.Duration]int{}
			for _, at := range o.at {
				if perSecond[at/time.Second]++; perSecond[at/time.Second] > 10 {
					return false
				}
			}
			// How many are refused is the client's doing, which slows down.
			refused := o.reasons["rate-limited"]
			return o.accepted == len(o.arrived) && o.accepted >= 20 && refused > 0 && refused == events-o.accepted
		}},
		{"no OK", relaytest.Behaviour{NoOK: true}, func(o outcome) bool {
			return len(o.arrived) == events && o.accepted == 0 && o.reasons["timeout"] == events
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := run(t, tt.behaviour, 1)
			if !tt.holds(o) {
				t.Errorf("%+v", o)
			}
			if again := run(t, tt.behaviour, 1); !slices.Equal(again.arrived, o.arrived) {
				t.Errorf("the same seed gave\n%v\n%v", o.arrived, again.arrived)
			}
		})
	}
}

func TestKeptEventsAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relaytest.New(t, relaytest.Options{Behaviour: relaytest.Behaviour{Keep: 3}, InMemory: true})
		sk := envelopetest.NewKey(t)
		for n := range 5 {
			raw, _ := envelopetest.Sign(t, sk, envelope.Template{Kind: 28333, CreatedAt: time.Now(), Content: fmt.Append(nil, n)})
			if err := r.Inject(raw); err != nil {
				t.Fatal(err)
			}
		}
		c, err := relay.Dial(t.Context(), r.URL(), relay.Options{DialContext: r.DialContext})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var got []string
		err = c.Subscribe(t.Context(), "s", []relay.Filter{{Kinds: []int{28333}}}, func(raw []byte) {
			e, _ := envelope.ParseEvent(raw)
			got = append(got, string(e.Content))
		})
		if err != nil || strings.Join(got, "") != "234" {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// TestGarbage: what is no websocket frame ends the client's connection with an
// error that names the relay.
func TestGarbage(t *testing.T) {
	frame := func(b ...byte) []byte { return b }
	for name, bytes := range map[string][]byte{
		"unknown opcode":         frame(0x83, 0),
		"reserved bits":          frame(0xf1, 0),
		"compressed":             frame(0xc1, 1, 0),
		"long control frame":     append(frame(0x89, 126, 1, 0), make([]byte, 256)...),
		"continues nothing":      frame(0x80, 0),
		"length of 2^63":         frame(0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0),
		"length beyond limit":    append(frame(0x81, 127, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff), make([]byte, 1<<20)...),
		"bad farewell":           frame(0x88, 1, 0),
		"HTTP in the middle":     []byte("HTTP/1.1 200 OK\r\n\r\n"),
		"message in a message":   frame(0x01, 1, '[', 0x81, 0),
		"farewell with a reason": frame(0x88, 4, 3, 0xe8, 'h', 'i'),
	} {
		t.Run(name, func(t *testing.T) {
			r := relaytest.New(t, relaytest.Options{})
			c, err := relay.Dial(t.Context(), r.URL(), relay.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// Once this is answered the relay knows the connection.
			if err := c.Subscribe(t.Context(), "s", []relay.Filter{{}}, func([]byte) {}); err != nil {
				t.Fatal(err)
			}
			r.SendBytes(bytes)
			<-c.Done()
			if err := c.Err(); !strings.HasPrefix(err.Error(), "relay "+r.URL()+": ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q", err)
			}
		})
	}
}

func TestCutAndClose(t *testing.T) {
	r := relaytest.New(t, relaytest.Options{})
	dial := func() *relay.Conn {
		c, err := relay.Dial(context.Background(), r.URL(), relay.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.Subscribe(t.Context(), "s", []relay.Filter{{}}, func([]byte) {}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := dial()
	r.Cut()
	<-first.Done()
	second := dial()
	if open, accepted := r.Connections(); open != 1 || accepted != 2 {
		t.Errorf("%d open, %d accepted", open, accepted)
	}
	r.Close()
	<-second.Done()
	if _, err := relay.Dial(context.Background(), r.URL(), relay.Options{}); err == nil {
		t.Error("a closed relay answers")
	}
}

// TestAttacks has one event pass a relay with each attack, and a second one:
// both ends of both must get the genuine ones and some fakes, which are all
// events that a client reads, and of which none is genuinely signed.
func TestAttacks(t *testing.T) {
	attacks := map[string]relaytest.Attack{
		"reflect": relaytest.Reflect(), "replay": relaytest.Replay(1), "transplant": relaytest.Transplant(),
		"forge ids": relaytest.ForgeID(1), "invent": relaytest.Invent(1),
	}
	attacks["together"] = relaytest.Together(attacks["reflect"], attacks["invent"])
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := relaytest.New(t, relaytest.Options{Behaviour: relaytest.Behaviour{Attack: attack}, InMemory: true})
				c, err := relay.Dial(t.Context(), r.URL(), relay.Options{DialContext: r.DialContext})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				ends := []envelope.SecretKey{envelopetest.NewKey(t), envelopetest.NewKey(t)}
				keys := []string{ends[0].Public().Hex(), ends[1].Public().Hex()}
				var genuine, forged int
				filter := []relay.Filter{{Kinds: []int{28333}, Tags: map[string][]string{"p": keys}}}
				err = c.Subscribe(t.Context(), "s", filter, func(raw []byte) {
					switch e, err := envelope.ParseEvent(raw); {
					case err != nil:
						t.Errorf("%v: %.200s", err, raw)
					case e.Verify() == nil && slices.Contains(keys, e.PubKey.Hex()):
						genuine++
					default:
						forged++
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				for n, from := range ends {
					key, err := envelope.Conversation(from, ends[1-n].Public())
					if err != nil {
						t.Fatal(err)
					}
					raw, _, err := envelope.NewSealer(from, ends[1-n].Public(), key).Seal(nil, []byte("hello"), time.Now())
					if err != nil {
						t.Fatal(err)
					}
					if err := r.Inject(raw); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if genuine < 2 || forged < 2 || genuine+forged != 2+r.Faked() {
					t.Errorf("%d genuine events and %d others came of %d fakes", genuine, forged, r.Faked())
				}
			})
		})
	}
}
