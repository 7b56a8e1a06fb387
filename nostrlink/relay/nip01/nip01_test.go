package nip01

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func ptr[T any](v T) *T { return &v }

const (
	hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	hexB = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

func TestParseRelayMessage(t *testing.T) {
	id := [32]byte{}
	for i := range id {
		id[i] = 0xaa
	}
	tests := []struct {
		name, msg string
		want      RelayMessage
	}{
		{"event", `["EVENT","s",{"a":[1,"]}"]}]`, RelayMessage{Verb: Event, Subscription: []byte("s"), Event: []byte(`{"a":[1,"]}"]}`)}},
		{"event with space", " [ \"EVENT\" ,\n\"s\" , {} ] ", RelayMessage{Verb: Event, Subscription: []byte("s"), Event: []byte(`{}`)}},
		{"event with escaped id", `["EVENT","a\"b",{}]`, RelayMessage{Verb: Event, Subscription: []byte(`a"b`), Event: []byte(`{}`)}},
		{"eose", `["EOSE","s"]`, RelayMessage{Verb: EOSE, Subscription: []byte("s")}},
		{"closed", `["CLOSED","s","auth-required: why"]`, RelayMessage{Verb: Closed, Subscription: []byte("s"), Text: "auth-required: why"}},
		{"closed without reason", `["CLOSED","s"]`, RelayMessage{Verb: Closed, Subscription: []byte("s")}},
		{"ok", `["OK","` + hexA + `",true,""]`, RelayMessage{Verb: OK, ID: id, Accepted: true}},
		{"ok false", `["OK","` + hexA + `", false ,"blocked: \u0041"]`, RelayMessage{Verb: OK, ID: id, Text: "blocked: A"}},
		{"ok without reason", `["OK","` + hexA + `",true]`, RelayMessage{Verb: OK, ID: id, Accepted: true}},
		{"notice", `["NOTICE","hi"]`, RelayMessage{Verb: Notice, Text: "hi"}},
		{"auth", `["AUTH","c"]`, RelayMessage{Verb: Auth, Text: "c"}},
		{"unknown", `["NEG-MSG",1,2]`, RelayMessage{Verb: "NEG-MSG"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseRelayMessage([]byte(tt.msg))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestParseRelayMessageRefuses(t *testing.T) {
	for _, msg := range []string{
		``, ` `, `[`, `]`, `[]`, `{}`, `["`, `["EVENT`, `[1]`, `["EVENT"]`, `["EVENT","s"]`, `["EVENT",1,{}]`,
		`["EVENT","s",[]]`, `["EVENT","s","x"]`, `["EVENT","",{}]`, `["EVENT" "s",{}]`, `["EVENT","s",}]`,
		`["EVENT","` + strings.Repeat("x", 65) + `",{}]`, "[\"EVENT\",\"\x01\",{}]", "[\"EVENT\",\"\xff\",{}]",
		`["EOSE"]`, `["EOSE",null]`, `["OK"]`, `["OK","aa",true,""]`, `["OK","` + hexA + `"]`, `["OK","` + hexA + `",1,""]`,
		`["OK","` + strings.Repeat("z", 64) + `",true,""]`, `["NOTICE"]`, `["NOTICE",{}]`, `["NOTICE","\q"]`, `["AUTH"]`,
	} {
		if got, err := ParseRelayMessage([]byte(msg)); err == nil {
			t.Errorf("%q: got %+v", msg, got)
		}
	}
}

func TestParseClientMessage(t *testing.T) {
	tests := []struct {
		name, msg string
		want      ClientMessage
	}{
		{"event", `["EVENT",{"id":1}]`, ClientMessage{Verb: Event, Event: []byte(`{"id":1}`)}},
		{"auth", `["AUTH",{}]`, ClientMessage{Verb: Auth, Event: []byte(`{}`)}},
		{"close", `["CLOSE","s"]`, ClientMessage{Verb: Close, Subscription: []byte("s"), Token: []byte(`"s"`)}},
		{"req", `["REQ","é\n",{},{"kinds":[1],"#p":["x"],"limit":0}]`, ClientMessage{
			Verb: Req, Subscription: []byte("é\n"), Token: []byte(`"é\n"`),
			Filters: []byte(`{},{"kinds":[1],"#p":["x"],"limit":0}`),
		}},
		{"count", `["COUNT","s",{}]`, ClientMessage{Verb: Count, Subscription: []byte("s"), Token: []byte(`"s"`), Filters: []byte(`{}`)}},
		{"unknown", `["HELLO"]`, ClientMessage{Verb: "HELLO"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseClientMessage([]byte(tt.msg))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestParseClientMessageRefuses(t *testing.T) {
	for _, msg := range []string{
		``, `[]`, `["EVENT"]`, `["EVENT",[]]`, `["EVENT","s",{}]`, `["CLOSE"]`, `["CLOSE",1]`, `["CLOSE","s",1]`,
		`["REQ"]`, `["REQ","s"]`, `["REQ","",{}]`, `["COUNT"]`,
	} {
		if got, err := ParseClientMessage([]byte(msg)); err == nil {
			t.Errorf("%q: got %+v", msg, got)
		}
	}
}

func TestParseFilters(t *testing.T) {
	got, err := ParseFilters([]byte(`{} , {"kinds":[1],"#p":["x"],"limit":0}`), 2)
	want := []Filter{{}, {Kinds: []int{1}, Tags: map[string][]string{"p": {"x"}}, Limit: ptr(0)}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, s := range []string{``, `{},{},{}`, `[]`, `null`, `{}x`, `{}],[{}`, `{"ids":["x"]}`, `{`, `{},`} {
		if got, err := ParseFilters([]byte(s), 2); err == nil {
			t.Errorf("%q: got %+v", s, got)
		}
	}
}

func TestRefusalNamesTheSubscription(t *testing.T) {
	m, err := ParseClientMessage([]byte(`["REQ","sub"]`))
	if err == nil || m.Verb != Req || string(m.Token) != `"sub"` {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestFilter(t *testing.T) {
	tests := []struct {
		filter Filter
		json   string
	}{
		{Filter{}, `{}`},
		{Filter{IDs: []string{hexA}, Authors: []string{hexA, hexB}, Kinds: []int{0, 65535}}, `{"ids":["` + hexA + `"],"authors":["` + hexA + `","` + hexB + `"],"kinds":[0,65535]}`},
		{Filter{Kinds: []int{}}, `{"kinds":[]}`},
		{Filter{Tags: map[string][]string{"p": {`a"\`, "\x00é"}, "d": {}}, Limit: ptr(0)}, `{"#d":[],"#p":["a\"\\","\u0000é"],"limit":0}`},
		{Filter{Since: ptr[int64](1), Until: ptr[int64](1 << 40), Limit: ptr(500)}, `{"since":1,"until":1099511627776,"limit":500}`},
	}
	for _, tt := range tests {
		t.Run(tt.json, func(t *testing.T) {
			if got := string(tt.filter.AppendJSON(nil)); got != tt.json {
				t.Errorf("encoded as %s", got)
			}
			var got Filter
			if err := json.Unmarshal([]byte(tt.json), &got); err != nil || !reflect.DeepEqual(got, tt.filter) {
				t.Errorf("decoded as %+v, %v", got, err)
			}
		})
	}
}

func TestFilterRefuses(t *testing.T) {
	for _, s := range []string{
		`[]`, `null`, `1`, `{"ids":null}`, `{"ids":[1]}`, `{"ids":["` + strings.ToUpper(hexA) + `"]}`, `{"authors":["` + hexA[1:] + `"]}`,
		`{"kinds":[-1]}`, `{"kinds":[65536]}`, `{"kinds":[1.5]}`, `{"kinds":["1"]}`, `{"since":-1}`, `{"since":"1"}`, `{"since":null}`,
		`{"limit":-1}`, `{"limit":1e99}`, `{"#p":"x"}`, `{"#p":[1]}`, `{"#pp":["x"]}`, `{"#1":["x"]}`, `{"#":["x"]}`, `{"search":"x"}`,
	} {
		var f Filter
		if err := f.UnmarshalJSON([]byte(s)); err == nil {
			t.Errorf("%s: got %+v", s, f)
		}
	}
}

// TestAppend checks each message that is written by reading it.
func TestAppend(t *testing.T) {
	id := [32]byte{1, 2, 31: 3}
	for _, tt := range []struct {
		msg  []byte
		want RelayMessage
	}{
		{AppendOK(nil, id, true, `"quoted"`), RelayMessage{Verb: OK, ID: id, Accepted: true, Text: `"quoted"`}},
		{AppendOK(nil, id, false, "mute: x"), RelayMessage{Verb: OK, ID: id, Text: "mute: x"}},
		{AppendEOSE(nil, []byte(`"s"`)), RelayMessage{Verb: EOSE, Subscription: []byte("s")}},
		{AppendClosed(nil, []byte(`"s"`), "no"), RelayMessage{Verb: Closed, Subscription: []byte("s"), Text: "no"}},
		{AppendNotice(nil, "a\nb"), RelayMessage{Verb: Notice, Text: "a\nb"}},
		{AppendAuth(nil, "c"), RelayMessage{Verb: Auth, Text: "c"}},
	} {
		got, err := ParseRelayMessage(tt.msg)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v", tt.msg, got, err)
		}
	}
	m, err := ParseClientMessage(AppendClose(nil, "s"))
	if err != nil || m.Verb != Close || string(m.Subscription) != "s" {
		t.Errorf("close: got %+v, %v", m, err)
	}
}

func FuzzParseRelayMessage(f *testing.F) {
	for _, s := range []string{
		`["EVENT","s",{"a":1}]`, `["OK","` + hexA + `",true,"x: y"]`, `["EOSE","s"]`, `["CLOSED","s","no"]`, `["NOTICE","\u00e9"]`, `["AUTH","c"]`,
		`[ "EVENT" , "\ud800" , {} ]`, `["OK","` + hexA + `",false`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		m, err := ParseRelayMessage(msg)
		if err != nil {
			return
		}
		if len(m.Event) > len(msg) || len(m.Text) > 3*len(msg) {
			t.Errorf("more out than in: %+v", m)
		}
		token := AppendString(nil, string(m.Subscription))
		var again []byte
		switch m.Verb {
		case Event:
			again = append(append(append([]byte(`["EVENT",`), token...), ','), m.Event...)
			again = append(again, ']')
		case OK:
			again = AppendOK(nil, m.ID, m.Accepted, m.Text)
		case EOSE:
			again = AppendEOSE(nil, token)
		case Closed:
			again = AppendClosed(nil, token, m.Text)
		case Notice:
			again = AppendNotice(nil, m.Text)
		case Auth:
			again = AppendAuth(nil, m.Text)
		default:
			return
		}
		if n, err := ParseRelayMessage(again); err != nil || !reflect.DeepEqual(m, n) {
			t.Errorf("%q: read %+v, wrote %q, read %+v, %v", msg, m, again, n, err)
		}
	})
}

func FuzzParseClientMessage(f *testing.F) {
	for _, s := range []string{
		`["EVENT",{"id":1}]`, `["REQ","s",{}]`, `["REQ","s",{"ids":["` + hexA + `"],"kinds":[1],"#p":["x"],"limit":0},{"since":1,"until":2}]`,
		`["CLOSE","s"]`, `["AUTH",{}]`, `["COUNT","s",{}]`, `["REQ","\u0000",{"kinds":[1,`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		m, err := ParseClientMessage(msg)
		if err != nil || m.Verb != Req {
			return
		}
		filters, err := ParseFilters(m.Filters, 10)
		if err != nil {
			return
		}
		if len(filters) > 10 {
			t.Errorf("%d filters", len(filters))
		}
		again := AppendReq(nil, string(m.Subscription), filters)
		n, err := ParseClientMessage(again)
		if err != nil || string(m.Subscription) != string(n.Subscription) {
			t.Errorf("%q: read %+v, wrote %q, read %+v, %v", msg, m, again, n, err)
		}
		if f, err := ParseFilters(n.Filters, 10); err != nil || !reflect.DeepEqual(filters, f) {
			t.Errorf("%q: read %+v, wrote %q, read %+v, %v", m.Filters, filters, n.Filters, f, err)
		}
		echo := AppendEOSE(nil, m.Token)
		if e, err := ParseRelayMessage(echo); err != nil || string(e.Subscription) != string(m.Subscription) {
			t.Errorf("%q: echoed as %q, %v", m.Token, e.Subscription, err)
		}
	})
}
