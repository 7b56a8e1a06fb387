package relayd_test

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// TestFilters subscribes with each filter and publishes the same events.
func TestFilters(t *testing.T) {
	a, b := newAuthor(t), newAuthor(t)
	to := strings.Repeat("ab", 32)
	now := time.Now()
	events := map[string]string{}
	ids := map[string]string{}
	add := func(name, raw, id string) { events[name], ids[name] = raw, id }
	name := func(n, raw, id string) { add(n, raw, id) }
	raw, id := a.sign(28333, now, "to", []string{"p", to})
	name("to", raw, id)
	raw, id = a.sign(20001, now, "plain")
	name("plain", raw, id)
	raw, id = b.sign(28333, now.Add(-10*time.Second), "old", []string{"p", to}, []string{"x", "1"}, []string{"x", "2"})
	name("old", raw, id)
	raw, id = b.sign(28333, now, "odd tags", []string{}, []string{""}, []string{"p"}, []string{"pp", to}, []string{"e", `q"\`}, []string{"é", "x"})
	name("odd", raw, id)

	tests := []struct {
		filters string
		want    string
	}{
		{`{}`, "to plain old odd"},
		{`{"limit":0}`, "to plain old odd"},
		{`{"kinds":[28333]}`, "to old odd"},
		{`{"kinds":[28333,20001,28333]}`, "to plain old odd"},
		{`{"kinds":[]}`, ""},
		{`{"kinds":[1]}`, ""},
		{`{"authors":["` + a.hex() + `"]}`, "to plain"},
		{`{"authors":["` + b.hex() + `","` + a.hex() + `"],"kinds":[20001]}`, "plain"},
		{`{"authors":[]}`, ""},
		{`{"ids":["` + ids["old"] + `","` + ids["plain"] + `"]}`, "plain old"},
		{`{"ids":["` + ids["old"] + `"],"authors":["` + a.hex() + `"]}`, ""},
		{`{"ids":[]}`, ""},
		{`{"#p":["` + to + `"]}`, "to old"},
		{`{"#p":["x","` + to + `"],"kinds":[28333],"authors":["` + b.hex() + `"]}`, "old"},
		{`{"#p":["` + to + `"],"#x":["2"]}`, "old"},
		{`{"#p":["` + to + `"],"#x":["2","1"]}`, "old"},
		{`{"#x":["1"],"#p":["y","z"]}`, ""},
		{`{"#p":[""]}`, "odd"},
		{`{"#p":[]}`, ""},
		{`{"#e":["q\"\\"]}`, "odd"},
		{`{"#P":["` + to + `"]}`, ""},
		{fmt.Sprintf(`{"since":%d}`, now.Unix()-5), "to plain odd"},
		{fmt.Sprintf(`{"until":%d}`, now.Unix()-5), "old"},
		{`{"until":0}`, ""},
		{fmt.Sprintf(`{"since":%d,"until":%d}`, now.Unix()-11, now.Unix()-9), "old"},
		{`{"kinds":[20001]},{"#x":["1"]},{"kinds":[28333],"#x":["1"]}`, "plain old"},
	}
	url, s := start(t, relayd.Options{})
	publisher := connect(t, url)
	for _, tt := range tests {
		t.Run(tt.filters, func(t *testing.T) {
			sub := connect(t, url)
			sub.send(`["REQ","s",` + tt.filters + `]`)
			sub.expect(eose("s"))
			for _, n := range []string{"to", "plain", "old", "odd"} {
				publisher.send(event(events[n]))
				if strings.Contains(" "+tt.want+" ", " "+n+" ") {
					sub.expect(delivered("s", events[n]))
					publisher.expect(ok(ids[n], true, ""))
				} else {
					publisher.expect(ok(ids[n], false, "mute: no one is listening for this event"))
				}
			}
			sub.send(`["CLOSE","s"]`)
			sub.send(`["REQ","end",{"limit":0}]`)
			sub.expect(eose("end"))
			publisher.send(event(events["to"]))
			publisher.expect(ok(ids["to"], true, ""))
			sub.expect(delivered("end", events["to"])) // and nothing for s
			sub.send(`["CLOSE","end"]`)
			sub.send(`["CLOSE","none"]`)
			sub.send(`["COUNT","flush",{}]`)
			sub.expect(`["COUNT","flush",{"count":0}]`)
		})
	}
	if n := s.Stats().Subscriptions; n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

// TestMessages sends one message to a fresh connection and compares the answer.
func TestMessages(t *testing.T) {
	a := newAuthor(t)
	now := time.Now()
	good, _ := a.now(28333, "x")
	sign := func(kind int, at time.Time, content string, tags ...[]string) string {
		raw, _ := a.sign(kind, at, content, tags...)
		return raw
	}
	idOf := func(raw string) string { return raw[strings.Index(raw, `"id":"`)+6:][:64] }
	broken := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	sig := good[strings.Index(good, `"sig":"`)+7:][:2]
	flipped := map[bool]string{true: "00", false: "11"}[sig != "00"]
	limits := relayd.Limits{MaxEvent: 1000, MaxMessage: 6000, MaxSubscriptions: 2, MaxFilters: 3, MaxFilterValues: 40}
	tests := []struct {
		name, msg, want string
	}{
		{"not JSON", `hello`, `["NOTICE","invalid: message is not a JSON array…`},
		{"empty", ``, `["NOTICE","invalid: …`},
		{"not UTF-8", "[\"REQ\",\"\xff\",{}]", `["NOTICE","invalid: message is not UTF-8"]`},
		{"unknown verb", `["HELLO"]`, `["NOTICE","unsupported: unknown message type \"HELLO\""]`},
		{"auth", `["AUTH",{}]`, `["NOTICE","invalid: …`},
		{"count", `["COUNT","c",{}]`, `["COUNT","c",{"count":…`},
		{"no event", `["EVENT"]`, `["NOTICE","invalid: …`},
		{"event that is none", `["EVENT",{"id":1}]`, `["NOTICE","invalid: …`},
		{"event cut short", event(good[:len(good)-5]), `["NOTICE","invalid: …`},
		{"two events", `["EVENT",` + good + `,` + good + `]`, `["NOTICE","invalid: …`},
		{"wrong content", event(broken(`"content":"x"`, `"content":"y"`)), ok(idOf(good), false, "invalid: the event's id is not the hash of its fields")},
		{"wrong signature", event(broken(`"sig":"`+sig, `"sig":"`+flipped)), ok(idOf(good), false, "invalid: the event's signature is not its author's")},
		{"kind to be stored", event(sign(1, now, "x")), ok(idOf(sign(1, now, "x")), false, "blocked: …")},
		{"too old", event(sign(28333, now.Add(-90*time.Second), "x")), ok(idOf(sign(28333, now.Add(-90*time.Second), "x")), false, "invalid: created_at is too far in the past…")},
		{"from the future", event(sign(28333, now.Add(time.Hour), "x")), ok(idOf(sign(28333, now.Add(time.Hour), "x")), false, "invalid: created_at is too far in the future…")},
		{"end of time", event(sign(28333, time.Unix(1<<40, 0), "x")), ok(idOf(sign(28333, time.Unix(1<<40, 0), "x")), false, "invalid: created_at is too far in the future…")},
		{"stored kinds may be old", event(sign(10002, time.Unix(1, 0), "x")), ok(idOf(sign(10002, time.Unix(1, 0), "x")), true, "")},
		{"expired", event(sign(38333, now, "x", []string{"expiration", "5"})), ok(idOf(sign(38333, now, "x", []string{"expiration", "5"})), false, "invalid: the event has expired")},
		{"too large", event(sign(28333, now, strings.Repeat("x", 1000))), ok(idOf(sign(28333, now, strings.Repeat("x", 1000))), false, "invalid: event is larger than 1000 bytes")},
		{"nobody listens", event(good), ok(idOf(good), false, "mute: no one is listening for this event")},
		{"bad filter", `["REQ","r",{"kinds":["x"]}]`, `["CLOSED","r","invalid: filter: \"kinds\": …`},
		{"unknown condition", `["REQ","r",{"search":"x"}]`, `["CLOSED","r","invalid: filter: \"search\": unknown key…`},
		{"no filter", `["REQ","r"]`, `["CLOSED","r","invalid: message has missing…`},
		{"too many filters", `["REQ","r",{},{},{},{}]`, `["CLOSED","r","invalid: 4 filters, from 1 to 3 are allowed…`},
		{"too many values", `["REQ","r",{"kinds":[` + strings.Repeat("1,2,3,4,", 10) + `5]}]`, eose("r")}, // only five different ones
		{"really too many values", `["REQ","r",{"#x":[` + strings.Repeat(`"a",`, 10) + manyStrings(40) + `]}]`, `["CLOSED","r","error: more than 40 values in the filters"]`},
		{"counting too many values", `["COUNT","r",{"#x":[` + manyStrings(40) + `]}]`, `["CLOSED","r","error: more than 40 values in the filters"]`},
		{"long values are several", `["REQ","r",{"#x":["` + strings.Repeat("x", 40*128) + `"]}]`, `["CLOSED","r","error: more than 40 values in the filters"]`},
		{"long subscription id", `["REQ","` + strings.Repeat("x", 65) + `",{}]`, `["NOTICE","invalid: subscription id must have 1 to 64 characters…`},
		{"odd subscription id", `["REQ","\u00e9\"\\",{"kinds":[1]}]`, `["EOSE","\u00e9\"\\"]`},
		{"space everywhere", " [ \"REQ\" , \"s\" , { \"kinds\" : [ 1 ] } ]\n", eose("s")},
		{"closing what is not open", `["CLOSE","x"]`, ""},
	}
	url, s := start(t, relayd.Options{Limits: limits})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := connect(t, url)
			c.send(tt.msg)
			if tt.want != "" {
				c.expect(tt.want)
			}
			c.send(`["REQ","still here",{"kinds":[1]}]`)
			c.expect(eose("still here"))
		})
	}
	if s.Stats().Refused == 0 {
		t.Error("nothing was counted as refused")
	}
}

func manyStrings(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`"%d"`, i))
	}
	return strings.Join(list, ",")
}

func TestSubscriptionLimit(t *testing.T) {
	url, s := start(t, relayd.Options{Limits: relayd.Limits{MaxSubscriptions: 2, MaxFilterValues: 10, MaxAllValues: 15}})
	c := connect(t, url)
	for _, id := range []string{"a", "b", "a"} {
		c.send(`["REQ","` + id + `",{"kinds":[1]}]`)
		c.expect(eose(id))
	}
	c.send(`["REQ","c",{"kinds":[1]}]`)
	c.expect(`["CLOSED","c","error: more than 2 subscriptions"]`)
	// A replacement that is refused closes what it was to replace.
	c.send(`["REQ","a",{"#x":[` + manyStrings(9) + `]}]`)
	c.expect(`["CLOSED","a","error: more than 10 values…`)
	c.send(`["REQ","c",{"kinds":[1,2,3,4,5]}]`)
	c.expect(eose("c"))
	other := connect(t, url)
	other.send(`["REQ","o",{"kinds":[1,2,3,4,5,6,7,8]}]`)
	other.expect(`["CLOSED","o","error: the relay has too many subscriptions, try later"]`)
	if n := s.Stats().Subscriptions; n != 2 {
		t.Errorf("%d subscriptions", n)
	}
}

func TestReplaceable(t *testing.T) {
	url, _ := start(t, relayd.Options{Keep: relayd.AllKinds()})
	a, b := newAuthor(t), newAuthor(t)
	at := func(s int) time.Time { return time.Unix(int64(1700000000+s), 0) }
	c := connect(t, url)
	put := func(raw, id string, accepted bool, reason string) string {
		t.Helper()
		c.send(event(raw))
		c.expect(ok(id, accepted, reason))
		return raw
	}
	tag := func(d string) []string { return []string{"d", d} }
	older, olderID := a.sign(10002, at(1), "older")
	newer, newerID := a.sign(10002, at(2), "newer")
	put(older, olderID, true, "")
	put(newer, newerID, true, "")
	put(newer, newerID, true, "duplicate: already have this event")
	put(older, olderID, false, "duplicate: have a newer version of this event")
	raw, id := b.sign(10002, at(3), "b's")
	bs := put(raw, id, true, "")
	// Of one second, the lower id stays.
	x, xid := a.sign(0, at(1), "x")
	y, yid := a.sign(0, at(1), "y")
	if xid > yid {
		x, xid, y, yid = y, yid, x, xid
	}
	put(y, yid, true, "")
	put(x, xid, true, "")
	put(y, yid, false, "duplicate: have a newer version of this event")
	// Addressable ones by their first d tag; none is the same as an empty one.
	raw, id = a.sign(38333, at(1), "", tag("one"), tag("two"))
	one := put(raw, id, true, "")
	raw, id = a.sign(38333, at(2), "", tag("two"))
	two := put(raw, id, true, "")
	raw, id = a.sign(38333, at(3), "", tag(""))
	put(raw, id, true, "")
	raw, id = a.sign(38333, at(4), "")
	three := put(raw, id, true, "")

	for _, tt := range []struct {
		filters string
		want    []string
	}{
		{`{"kinds":[10002]}`, []string{bs, newer}},
		{`{"kinds":[10002],"limit":1}`, []string{bs}},
		{`{"kinds":[10002],"limit":0}`, nil},
		{`{"authors":["` + a.hex() + `"],"kinds":[10002,0]}`, []string{newer, x}},
		{`{"ids":["` + yid + `","` + xid + `"]}`, []string{x}},
		{`{"kinds":[38333]}`, []string{three, two, one}},
		{`{"#d":["one","two"]}`, []string{two, one}},
		{`{"#d":["one"]},{"kinds":[38333],"limit":2}`, []string{three, two, one}},
		{fmt.Sprintf(`{"kinds":[38333],"until":%d}`, at(1).Unix()), []string{one}},
		{fmt.Sprintf(`{"since":%d}`, at(4).Unix()), []string{three}},
	} {
		c.send(`["REQ","q",` + tt.filters + `]`)
		for _, w := range tt.want {
			c.expect(delivered("q", w))
		}
		c.expect(eose("q"))
	}
	// A new version reaches who is subscribed.
	raw, id = a.sign(38333, at(9), "", tag("one"))
	c.send(event(raw))
	c.expect(delivered("q", raw), ok(id, true, ""))
}

func TestStoreIsBounded(t *testing.T) {
	url, s := start(t, relayd.Options{Keep: relayd.AllKinds(), Limits: relayd.Limits{MaxStored: 5, MaxStoredBytes: 4000, MaxLimit: 3}})
	c := connect(t, url)
	a := newAuthor(t)
	var last string
	for n := range 20 {
		raw, id := a.now(30001, strings.Repeat("x", 600*(n%2)), []string{"d", fmt.Sprint(n)})
		c.send(event(raw))
		c.expect(ok(id, true, ""))
		if st := s.Stats(); st.Stored > 5 || st.StoredBytes > 4000 {
			t.Fatalf("%d events, %d bytes", st.Stored, st.StoredBytes)
		}
		last = raw
	}
	if s.Stats().Stored < 3 {
		t.Errorf("only %d events are left", s.Stats().Stored)
	}
	c.send(`["REQ","q",{"#d":["19"]}]`)
	c.expect(delivered("q", last), eose("q"))
	c.send(`["REQ","q",{"limit":100}]`)
	for range 3 {
		c.expect(`["EVENT","q",…`)
	}
	c.expect(eose("q"))
}

func TestStoredEventsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := startInMemory(t, relayd.Options{Keep: relayd.AllKinds()})
		c := connectTo(t, l)
		a := newAuthor(t)
		expires := fmt.Sprint(time.Now().Add(time.Minute).Unix())
		raw, id := a.now(30001, "", []string{"expiration", expires})
		c.send(event(raw))
		c.expect(ok(id, true, ""))
		c.send(`["REQ","q",{}]`)
		c.expect(delivered("q", raw), eose("q"))
		time.Sleep(time.Minute)
		c = connectTo(t, l) // the relay has given the other one up: it read nothing
		c.send(`["REQ","q",{}]`)
		c.expect(eose("q"))
		// The next event sweeps it out.
		raw, id = a.now(30001, "", []string{"d", "other"}, []string{"expiration", "never"})
		c.send(event(raw))
		c.expect(delivered("q", raw), ok(id, true, ""))
		if n := s.Stats().Stored; n != 1 {
			t.Errorf("%d events are stored", n)
		}
	})
}

func TestInfo(t *testing.T) {
	url, _ := start(t, relayd.Options{Name: "mine", Description: "for us", Limits: relayd.Limits{MaxEvent: 70000, MaxFilters: 7}})
	info, err := relay.FetchInfo(t.Context(), url, relay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Name != "mine" || info.Description != "for us" || !reflect.DeepEqual(info.SupportedNIPs, []int{1, 9, 11, 40, 42, 45, 70}) ||
		info.Limitation.MaxFilters != 7 || info.Limitation.MaxContentLength != 70000 || info.Limitation.MaxSubIDLength != 64 {
		t.Errorf("got %+v", info)
	}
	for _, tt := range []struct {
		method string
		status int
	}{{"GET", 200}, {"OPTIONS", 204}, {"POST", 405}} {
		req, _ := http.NewRequest(tt.method, strings.Replace(url, "ws", "http", 1), nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: status %d, headers %v", tt.method, resp.StatusCode, resp.Header)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestObserve(t *testing.T) {
	seen := make(chan relayd.Observation, 10)
	url, _ := start(t, relayd.Options{Observe: func(o relayd.Observation) { seen <- o }})
	a, to := newAuthor(t), newAuthor(t)
	c, quiet := connect(t, url), connect(t, url)
	for _, each := range []*rawClient{c, quiet} {
		each.send(`["REQ","s",{"kinds":[28333]},{"#p":["` + to.hex() + `"]}]`)
		each.expect(eose("s"))
	}
	raw, id := a.now(28333, "x", []string{"p", "nobody"}, []string{"p", to.hex()})
	c.send(event(raw))
	c.expect(delivered("s", raw), ok(id, true, ""))
	quiet.expect(delivered("s", raw))
	want := relayd.Observation{Kind: 28333, Author: a.sk.Public(), Recipient: to.sk.Public(), Size: len(raw), Subscribers: 2}
	if got := <-seen; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	muted, mid := a.now(20000, "x")
	c.send(event(muted))
	c.expect(ok(mid, false, "mute: …"))
	if len(seen) != 0 {
		t.Errorf("observed %+v", <-seen)
	}
}
