package relayd_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

func forKey(key string) []relay.Filter {
	return []relay.Filter{{Kinds: []int{28333}, Tags: map[string][]string{"p": {key}}, Limit: new(int)}}
}

func dial(t testing.TB, url string, opts relay.Options) *relay.Conn {
	t.Helper()
	c, err := relay.Dial(context.Background(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestOrderUnderBursts has several publishers write events of mixed sizes as
// fast as they can to the same subscribers: each subscriber gets the events of
// each publisher complete, in order and unchanged.
func TestOrderUnderBursts(t *testing.T) {
	const publishers, subscribers, each = 3, 3, 120
	// Queues that take everything: who waits for whom is not the question here.
	url, s := start(t, relayd.Options{Limits: relayd.Limits{MaxQueue: 64 << 20}})
	to := newAuthor(t).hex()
	// Signing takes longer than the relay does, so it is done before.
	events := make([][]string, publishers)
	place := map[string][2]int{}
	for p := range publishers {
		a := newAuthor(t)
		for n := range each {
			raw, _ := a.now(28333, fmt.Sprint(p, " ", n, " ", strings.Repeat("x", 30000*(n%3))), []string{"p", to})
			events[p] = append(events[p], raw)
			place[raw] = [2]int{p, n}
		}
	}
	var all sync.WaitGroup
	for range subscribers {
		all.Add(publishers * each)
		next := make([]int, publishers)
		err := dial(t, url, relay.Options{}).Subscribe(t.Context(), "s", forKey(to), func(raw []byte) {
			defer all.Done()
			at, known := place[string(raw)]
			if !known || next[at[0]] != at[1] {
				t.Errorf("event %v (known %v) came when %v were next", at, known, next)
			}
			next[at[0]]++
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var verdicts sync.WaitGroup
	for p := range publishers {
		c := dial(t, url, relay.Options{})
		verdicts.Add(each)
		go func() {
			for _, raw := range events[p] {
				err := c.Publish(context.Background(), []byte(raw), idOf(raw), func(accepted bool, reason string) {
					if !accepted {
						t.Error(reason)
					}
					verdicts.Done()
				})
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	verdicts.Wait()
	all.Wait()
	if st := s.Stats(); st.Forwarded != publishers*subscribers*each || st.Dropped != 0 {
		t.Errorf("%+v", st)
	}
}

func idOf(raw string) (id [32]byte) {
	hex.Decode(id[:], []byte(raw[strings.Index(raw, `"id":"`)+6:][:64]))
	return id
}

// TestSlowReaderHoldsBack: a subscriber that reads slowly, but reads, loses
// nothing; the publisher goes at its pace.
func TestSlowReaderHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{Limits: relayd.Limits{MaxQueue: 100 << 10}})
		a := newAuthor(t)
		slow := connectTo(t, l)
		slow.send(`["REQ","s",{}]`)
		slow.expect(eose("s"))
		const events = 30
		var tasks sync.WaitGroup
		tasks.Go(func() {
			publisher := connectTo(t, l)
			for range events {
				raw, _ := a.now(28333, strings.Repeat("x", 40000))
				publisher.send(event(raw))
				publisher.read()
			}
		})
		begun := time.Now()
		for range events {
			time.Sleep(time.Second)
			slow.expect(`["EVENT","s",…`)
		}
		tasks.Wait()
		if took := time.Since(begun); took != events*time.Second {
			t.Errorf("took %v", took)
		}
		if st := s.Stats(); st.Slow != 0 || st.Dropped != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestClientThatNeverReads publishes and subscribes to itself and never reads,
// not even its verdicts.
func TestClientThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{Limits: relayd.Limits{MaxQueue: 50 << 10}})
		a := newAuthor(t)
		c := connectTo(t, l)
		c.send(`["REQ","s",{}]`)
		raw, _ := a.now(28333, strings.Repeat("x", 40000))
		var err error
		for range 100 {
			if err = c.conn.Write(context.Background(), websocket.MessageText, []byte(event(raw))); err != nil {
				break
			}
		}
		if err == nil {
			t.Error("it was not cut")
		}
		synctest.Wait()
		if st := s.Stats(); st.Connections != 0 || st.Memory != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestMemoryIsBounded has many subscribers with deep queues that read nothing:
// the longest queues are cut before the relay holds more than it may.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := relayd.Limits{MaxMemory: 1 << 20, SlowTimeout: time.Hour, MessageTimeout: 2 * time.Hour, PingAfter: 3 * time.Hour}
		l, s := startInMemory(t, relayd.Options{Limits: limits})
		a := newAuthor(t)
		for n := range 8 {
			c := connectTo(t, l)
			c.send(fmt.Sprintf(`["REQ","s",{"#x":["%d"]}]`, n))
			c.expect(eose("s"))
		}
		publisher := connectTo(t, l)
		begun := time.Now()
		for n := range 80 {
			raw, id := a.now(28333, strings.Repeat("x", 40000), []string{"x", fmt.Sprint(n % 8)})
			publisher.send(event(raw))
			publisher.expect(fmt.Sprintf(`["OK","%s",…`, id))
			if st := s.Stats(); st.Memory > 1<<20+5*(66<<10) {
				t.Fatalf("%d bytes are held", st.Memory)
			}
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		if s.Stats().Slow == 0 {
			t.Error("nobody was cut")
		}
	})
}

func TestConnectionLimit(t *testing.T) {
	url, s := start(t, relayd.Options{Limits: relayd.Limits{MaxConnections: 2}})
	connect(t, url)
	second := connect(t, url)
	_, err := relay.Dial(t.Context(), url, relay.Options{})
	if err == nil || !strings.Contains(err.Error(), "answered HTTP 503") || !strings.Contains(err.Error(), "no room") {
		t.Errorf("got %v", err)
	}
	second.conn.Close(websocket.StatusNormalClosure, "")
	await.That(t, "there is room", func() bool { return s.Stats().Connections <= 1 })
	connect(t, url).send(`["CLOSE","x"]`)
}

func TestHostileConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{Limits: relayd.Limits{MaxMessage: 100 << 10, MaxFaults: 20}})
		ctx := context.Background()
		closed := func(c *rawClient, code websocket.StatusCode, notice string) {
			t.Helper()
			var err error
			var b []byte
			last := ""
			for err == nil {
				last = string(b)
				_, b, err = c.conn.Read(ctx)
			}
			if websocket.CloseStatus(err) != code || !strings.Contains(last, notice) {
				t.Errorf("got %v after %q, want status %d", err, last, code)
			}
		}
		t.Log("a message without end")
		c := connectTo(t, l)
		go func() {
			w, _ := c.conn.Writer(ctx, websocket.MessageText)
			for {
				if _, err := w.Write(make([]byte, 10000)); err != nil {
					return
				}
			}
		}()
		closed(c, websocket.StatusMessageTooBig, "message is larger than 102400 bytes")

		t.Log("a message that trickles")
		c = connectTo(t, l)
		begun := time.Now()
		w, err := c.conn.Writer(ctx, websocket.MessageText)
		for err == nil {
			if _, err = w.Write(make([]byte, 2500)); err == nil { // less stays in the client's buffer
				time.Sleep(time.Second)
			}
		}
		if took := time.Since(begun); took < 30*time.Second || took > 34*time.Second {
			t.Errorf("it was allowed to go on for %v", took)
		}

		t.Log("nothing but nonsense")
		c = connectTo(t, l)
		go func() {
			for range 100 {
				if c.conn.Write(ctx, websocket.MessageBinary, []byte("\x00\xff")) != nil {
					return
				}
			}
		}()
		closed(c, websocket.StatusPolicyViolation, "too many malformed messages")

		t.Log("a client that is gone without a word")
		c = connectTo(t, l) // and never reads
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := s.Stats(); st.Connections != 0 || st.Memory != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestQuietClientIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{})
		c := dial(t, "ws://relay.test", relay.Options{DialContext: l.DialContext})
		time.Sleep(24 * time.Hour)
		if err := c.Err(); err != nil {
			t.Error(err)
		}
		if n := s.Stats().Connections; n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{})
		reading := dial(t, "ws://relay.test", relay.Options{DialContext: l.DialContext})
		if err := reading.Subscribe(t.Context(), "s", forKey("x"), func([]byte) {}); err != nil {
			t.Fatal(err)
		}
		connectTo(t, l) // does not read, so it will not answer the farewell
		begun := time.Now()
		s.Close()
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("Close took %v", took)
		}
		<-reading.Done()
		if err := reading.Err(); !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "the relay is closing") {
			t.Errorf("the client was told %v", err)
		}
		if _, err := relay.Dial(t.Context(), "ws://relay.test", relay.Options{DialContext: l.DialContext}); err == nil {
			t.Error("a closed relay takes connections")
		}
		s.Close()
		if st := s.Stats(); st.Connections != 0 || st.Subscriptions != 0 || st.Memory != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestChurn has clients come, subscribe, publish and vanish in all ways at once.
func TestChurn(t *testing.T) {
	url, s := start(t, relayd.Options{Limits: relayd.Limits{MaxQueue: 64 << 10, SlowTimeout: 50 * time.Millisecond}})
	a := newAuthor(t)
	raw, _ := a.now(28333, strings.Repeat("x", 20000), []string{"p", a.hex()})
	stored, _ := a.now(10002, strings.Repeat("x", 20000))
	var tasks sync.WaitGroup
	for worker := range 8 {
		tasks.Go(func() {
			for round := range 12 {
				c, _, err := websocket.Dial(context.Background(), url, nil)
				if err != nil {
					t.Error(err)
					return
				}
				for n := range 6 {
					for _, msg := range []string{
						fmt.Sprintf(`["REQ","%d",{"#p":["%s"]},{"kinds":[28333,10002]}]`, n%3, a.hex()), event(raw), event(stored), `["CLOSE","1"]`,
					} {
						c.Write(context.Background(), websocket.MessageText, []byte(msg))
					}
				}
				switch (worker + round) % 3 {
				case 0:
					c.CloseNow()
				case 1:
					c.Close(websocket.StatusNormalClosure, "")
				case 2:
					c.Read(context.Background())
					c.CloseNow()
				}
			}
		})
	}
	tasks.Wait()
	await.That(t, "all have gone", func() bool { return s.Stats().Connections == 0 })
	if st := s.Stats(); st.Subscriptions != 0 || st.Memory != 0 {
		t.Errorf("%+v", st)
	}
}
