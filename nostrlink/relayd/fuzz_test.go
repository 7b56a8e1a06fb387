package relayd

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope/envelopetest"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// FuzzMessage gives a connection's reader and sequencer one message. Whatever it
// is, it is answered with messages of NIP-01, at most as many as there are
// stored events and one, and leaves nothing behind when the connection ends.
func FuzzMessage(f *testing.F) {
	sk := envelopetest.NewKey(f)
	for _, kind := range []int{1, 10002, 28333, 30001} {
		raw, _ := envelopetest.Sign(f, sk, envelope.Template{
			Kind: kind, CreatedAt: time.Now(), Content: []byte(`"x"`), Tags: [][]string{{"d", "x"}, {"expiration", "9999999999"}},
		})
		f.Add(append(append([]byte(`["EVENT",`), raw...), ']'))
	}
	for _, s := range []string{
		`["REQ","s",{}]`, `["REQ","s",{"kinds":[10002],"#p":["x"],"limit":1},{"authors":["` + sk.Public().Hex() + `"]}]`,
		`["REQ","s",{"since":9223372036854775807,"until":0}]`, `["CLOSE","s"]`, `["AUTH",{}]`, `["COUNT","s",{}]`, `["EVENT",{}]`, ``, "\xff",
	} {
		f.Add([]byte(s))
	}
	l := relaytest.NewListener()
	s := New(Options{Limits: Limits{MaxStored: 10}, Keep: AllKinds()})
	web := &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0)}
	go web.Serve(l)
	f.Cleanup(func() {
		s.Close()
		web.Close()
	})
	f.Fuzz(func(t *testing.T, msg []byte) {
		c, err := ws.Dial(t.Context(), "ws://relay.test", ws.DialOptions{DialContext: l.DialContext})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		// A second message tells when the first has been dealt with.
		for _, text := range []string{string(msg), `["COUNT","fence",{}]`} {
			if err := c.Send(t.Context(), ws.Message{Body: []byte(text)}, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		var buf []byte
		for n := 0; ; n++ {
			if err := c.Next(); err != nil {
				t.Fatal(err)
			}
			if buf, err = c.ReadMessage(buf, 1<<20, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := nip01.ParseRelayMessage(buf); err != nil || !json.Valid(buf) {
				t.Fatalf("%q was answered with %q: %v", msg, buf, err)
			}
			if strings.HasPrefix(string(buf), `["COUNT","fence",`) {
				break
			}
			if n > 12 {
				t.Fatalf("%q was answered with %d messages, the last is %q", msg, n, buf)
			}
		}
	})
}

// FuzzFilter compares the index and the store with the plain reading of a
// filter.
func FuzzFilter(f *testing.F) {
	sk := envelopetest.NewKey(f)
	var events []envelope.Event
	var raws [][]byte
	for n, tags := range [][][]string{nil, {{"p", "a"}}, {{"p", "b"}, {"x", "a"}}, {{"x", ""}, {"p"}, {""}, {}}} {
		raw, _ := envelopetest.Sign(f, sk, envelope.Template{Kind: 30000 + n, CreatedAt: time.Unix(int64(n), 0), Tags: tags})
		events, raws = append(events, *envelopetest.Parse(f, raw)), append(raws, raw)
	}
	for _, s := range []string{
		`{}`, `{"kinds":[30000,30002,1]}`, `{"#p":["a","b"]}`, `{"#p":["b"],"#x":["a"]}`, `{"#x":[""]}`, `{"since":1,"until":2}`,
		`{"authors":["` + sk.Public().Hex() + `"],"kinds":[30001]}`, `{"ids":[]}`, `{"limit":0}`, `{"limit":2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var plain nip01.Filter
		if plain.UnmarshalJSON(text) != nil {
			return
		}
		ready := newFilter(&plain, 500)
		index, kept := newIndex(1<<20), newStore(&Limits{MaxStored: 10, MaxStoredBytes: 1 << 20})
		sub := &subscription{filters: []*filter{ready}, values: ready.values()}
		sub.filings = []*filing{{sub, ready}}
		if !index.replace(nil, sub) {
			return
		}
		want := 0
		m := matcher{index: index}
		for n := range events {
			wanted := wants(&plain, &events[n])
			if got := len(m.match(&events[n])) == 1; got != wanted {
				t.Errorf("%s: event %d: the index says %v", text, n, got)
			}
			if wanted {
				want++
			}
			kept.put(&events[n], raws[n], time.Unix(0, 0))
		}
		if plain.Limit != nil {
			want = min(want, *plain.Limit)
		}
		if got := kept.query(sub.filters, time.Unix(0, 0)); len(got) != want {
			t.Errorf("%s: the store found %d of %d", text, len(got), want)
		}
		index.replace(sub, nil)
		if index.values != 0 || len(index.byID)+len(index.byKey)+len(index.byKind)+len(index.byTag)+len(index.general) != 0 {
			t.Errorf("%s: the index keeps %+v", text, index)
		}
	})
}

// wants reads a filter as NIP-01 has it.
func wants(f *nip01.Filter, e *envelope.Event) bool {
	in := func(list []string, s string) bool {
		if list == nil {
			return true
		}
		for _, v := range list {
			if v == s {
				return true
			}
		}
		return false
	}
	kind := f.Kinds == nil
	for _, k := range f.Kinds {
		kind = kind || k == e.Kind
	}
	ok := kind && in(f.IDs, envelope.PublicKey(e.ID).Hex()) && in(f.Authors, e.PubKey.Hex()) &&
		(f.Since == nil || e.CreatedAt >= *f.Since) && (f.Until == nil || e.CreatedAt <= *f.Until)
	for letter, values := range f.Tags {
		any := false
		for _, tag := range e.TagStrings() {
			if len(tag) > 0 && tag[0] == letter {
				value := ""
				if len(tag) > 1 {
					value = tag[1]
				}
				any = any || values != nil && in(values, value)
			}
		}
		ok = ok && any
	}
	return ok
}
