package wire

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// messages are written to and read from testdata/messages.json, as other
// implementations see them.
var messages = []struct {
	name string
	m    Message
}{
	{"connect to a host and port", Message{Key: "4b1da218-0e86-4b03-9714-1c416f711537", Type: TypeConnect, Destination: "example.org:80"}},
	{"connect with the first bytes", Message{Key: "3b1f09a8-2b10-4daa-880c-2a392e781f09", Type: TypeConnect, Destination: "example.org:80", Data: []byte("GET / HTTP/1.1\r\n\r\n")}},
	{"connect back", Message{Key: "3b1f09a8-2b10-4daa-880c-2a392e781f09", Type: TypeConnectReverse, Destination: "example.org:22", EntryPublicAddress: "192.0.2.1:4567"}},
	{"data", Message{Key: "3b1f09a8-2b10-4daa-880c-2a392e781f09", Type: TypeData, Data: []byte{0, 1, 2, 0xff}}},
	{"data as the reference sends it", Message{Key: "3b1f09a8-2b10-4daa-880c-2a392e781f09", Type: TypeSocks5Response, Data: []byte("hello"), Destination: "example.org:80"}},
	{"hello", Message{Type: TypeHello, Hello: &Hello{Versions: []int{1}, Nonce: Nonce{1, 2, 3}, Time: 1795227605, SessionKey: PublicKey{0xe6, 0x68}, MaxPacket: 40960, Window: 24 << 20, StreamWindow: 1 << 20, Identity: `{"id":"00"}`, Agent: "nws-vpn/0.1"}}},
	{"welcome", Message{Type: TypeWelcome, Welcome: &Welcome{Version: 1, HelloNonce: Nonce{1, 2, 3}, Nonce: Nonce{4, 5}, Time: 1795227606, SessionKey: PublicKey{7}, MaxPacket: 40960, Window: 24 << 20, StreamWindow: 1 << 20, MaxStreams: 4096, Policy: "tcp *:*", Agent: "nws-vpn/0.1"}}},
	{"refused", Message{Type: TypeRefused, Refused: &Refused{HelloNonce: Nonce{1, 2, 3}, Code: CodeDenied, Text: "not on the list", Time: 1795227606}}},
	{"hello with relays", Message{Type: TypeHello, Hello: &Hello{Versions: []int{1}, Nonce: Nonce{1, 2, 3}, Time: 1795227605, SessionKey: PublicKey{0xe6, 0x68}, MaxPacket: 40960, Window: 24 << 20, StreamWindow: 1 << 20, Relays: []string{"wss://relay.example", "ws://[2001:db8::1]:7777/a"}, Spread: SpreadStripe, Duplicate: true}}},
	{"welcome with relays", Message{Type: TypeWelcome, Welcome: &Welcome{Version: 1, HelloNonce: Nonce{1, 2, 3}, Nonce: Nonce{4, 5}, Time: 1795227606, SessionKey: PublicKey{7}, MaxPacket: 40960, Window: 24 << 20, StreamWindow: 1 << 20, MaxStreams: 4096, Relays: []string{"wss://relay.example"}}}},
}

func TestMessageVectors(t *testing.T) {
	type entry struct {
		Name    string          `json:"name"`
		Message json.RawMessage `json:"message"`
	}
	path := filepath.Join("testdata", "messages.json")
	if *update {
		var all []entry
		for _, v := range messages {
			b, err := AppendMessage(nil, &v.m)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, entry{v.name, b})
		}
		b, _ := json.MarshalIndent(all, "", " ")
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var golden []entry
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden) != len(messages) {
		t.Fatalf("%d vectors in the file, %d here", len(golden), len(messages))
	}
	for i, v := range golden {
		m, err := ParseMessage(v.Message)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if !reflect.DeepEqual(*m, messages[i].m) {
			t.Errorf("%s: read as %+v, want %+v", v.Name, *m, messages[i].m)
		}
	}
}

// The JSON of the reference implementation, as captured from it.
func TestReferenceMessages(t *testing.T) {
	for _, test := range []struct {
		json string
		want Message
	}{
		{`{"key":"4b1da218-0e86-4b03-9714-1c416f711537","type":"CONNECT","destination":"spk0elj8bpfv48c1mobhargqsktrs7f7fdmge05i16hs05o4oreg.nostr"}`,
			Message{Key: "4b1da218-0e86-4b03-9714-1c416f711537", Type: TypeConnect, Destination: "spk0elj8bpfv48c1mobhargqsktrs7f7fdmge05i16hs05o4oreg.nostr"}},
		{`{"key":"k","type":"SOCKS5RESPONSE","data":"aGVsbG8=","destination":"x:80","unknown":{"a":[1]}}`,
			Message{Key: "k", Type: TypeSocks5Response, Data: []byte("hello"), Destination: "x:80"}},
		{`{"key":"k","type":"DATA","data":""}`, Message{Key: "k", Type: TypeData}},
	} {
		m, err := ParseMessage([]byte(test.json))
		if err != nil || !reflect.DeepEqual(*m, test.want) {
			t.Errorf("%s read as %+v, %v", test.json, m, err)
		}
	}
}

func TestMessageRefused(t *testing.T) {
	hello := func(change func(*Hello)) *Message {
		h := *messages[5].m.Hello
		change(&h)
		return &Message{Type: TypeHello, Hello: &h}
	}
	welcome := func(change func(*Welcome)) *Message {
		w := *messages[6].m.Welcome
		change(&w)
		return &Message{Type: TypeWelcome, Welcome: &w}
	}
	long := strings.Repeat("x", 20000)
	for _, test := range []struct {
		name string
		m    *Message
	}{
		{"unknown type", &Message{Key: "k", Type: "CONNECTX"}},
		{"no key", &Message{Type: TypeData}},
		{"long key", &Message{Key: long, Type: TypeData}},
		{"long destination", &Message{Key: "k", Type: TypeConnect, Destination: long}},
		{"long entry address", &Message{Key: "k", Type: TypeConnect, EntryPublicAddress: long}},
		{"hello without a body", &Message{Type: TypeHello}},
		{"data with a hello", &Message{Key: "k", Type: TypeData, Hello: messages[5].m.Hello}},
		{"no versions", hello(func(h *Hello) { h.Versions = nil })},
		{"many versions", hello(func(h *Hello) { h.Versions = make([]int, 17) })},
		{"long identity", hello(func(h *Hello) { h.Identity = long })},
		{"long agent", hello(func(h *Hello) { h.Agent = long })},
		{"small packets", hello(func(h *Hello) { h.MaxPacket = 1023 })},
		{"large packets", hello(func(h *Hello) { h.MaxPacket = 65536 })},
		{"large window", hello(func(h *Hello) { h.Window = 1 << 62 })},
		{"large stream window", hello(func(h *Hello) { h.StreamWindow = 1 << 62 })},
		{"many relays", hello(func(h *Hello) { h.Relays = slices.Repeat([]string{"wss://a"}, MaxRelays+1) })},
		{"long relay", hello(func(h *Hello) { h.Relays = []string{"wss://" + long[:MaxRelayURL]} })},
		{"empty relay", hello(func(h *Hello) { h.Relays = []string{"wss://a", ""} })},
		{"relay of two lines", hello(func(h *Hello) { h.Relays = []string{"wss://a\nb"} })},
		{"relay with a space", hello(func(h *Hello) { h.Relays = []string{"wss://a b"} })},
		{"many addresses", hello(func(h *Hello) { h.Direct = slices.Repeat([]string{"a:1"}, MaxDirect+1) })},
		{"address without a port", hello(func(h *Hello) { h.Direct = []string{"203.0.113.7"} })},
		{"address with port 0", hello(func(h *Hello) { h.Direct = []string{"203.0.113.7:0"} })},
		{"address with a named port", hello(func(h *Hello) { h.Direct = []string{"203.0.113.7:http"} })},
		{"address without a host", hello(func(h *Hello) { h.Direct = []string{":80"} })},
		{"address with a space", hello(func(h *Hello) { h.Direct = []string{"a b:80"} })},
		{"long address", hello(func(h *Hello) { h.Direct = []string{long[:600] + ":80"} })},
		{"address without a port", welcome(func(w *Welcome) { w.Direct = []string{"203.0.113.7"} })},
		{"long spread", hello(func(h *Hello) { h.Spread = long })},
		{"many relays", welcome(func(w *Welcome) { w.Relays = slices.Repeat([]string{"wss://a"}, MaxRelays+1) })},
		{"empty relay", welcome(func(w *Welcome) { w.Relays = []string{""} })},
		{"no streams", welcome(func(w *Welcome) { w.MaxStreams = 0 })},
		{"long policy", welcome(func(w *Welcome) { w.Policy = long })},
		{"long agent", welcome(func(w *Welcome) { w.Agent = long })},
		{"long text", &Message{Type: TypeRefused, Refused: &Refused{Text: long}}},
		{"too large", &Message{Key: "k", Type: TypeData, Data: make([]byte, 50000)}},
	} {
		if _, err := AppendMessage(nil, test.m); err == nil {
			t.Errorf("%s: written", test.name)
		}
		b, err := json.Marshal(test.m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseMessage(b); err == nil {
			t.Errorf("%s: read", test.name)
		}
	}
	for _, text := range []string{
		``, `null`, `[]`, `{}`, `{"key":"k","type":"DATA"} x`, `{"key":"k","type":"DATA","data":"not base64"}`,
		`{"type":"HELLO","hello":{"versions":[1],"nonce":"00"}}`,
		`{"type":"HELLO","hello":{"versions":[1],"nonce":"0102030405060708090a0b0c0d0e0fgg"}}`,
	} {
		if _, err := ParseMessage([]byte(text)); err == nil {
			t.Errorf("%s: read", text)
		}
	}
}

// The bounds themselves are allowed, and a way to spread that is not known.
func TestHelloAtItsBounds(t *testing.T) {
	h := *messages[5].m.Hello
	h.Relays = slices.Repeat([]string{"wss://" + strings.Repeat("x", MaxRelayURL-6)}, MaxRelays)
	h.Spread = "another way"
	h.Direct = slices.Repeat([]string{strings.Repeat("x", 400) + ":65535"}, MaxDirect)
	b, err := AppendMessage(nil, &Message{Type: TypeHello, Hello: &h})
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseMessage(b)
	if err != nil || !reflect.DeepEqual(*m.Hello, h) {
		t.Errorf("read as %+v, %v", m, err)
	}
}

func TestRefusedErr(t *testing.T) {
	for code, want := range map[Code]Code{CodeNone: CodeInternal, CodeDenied: CodeDenied} {
		if got := CodeOf((&Refused{Code: code}).Err()); got != want {
			t.Errorf("refused with %v: %v, want %v", code, got, want)
		}
	}
}

// FuzzMessage holds that reading never panics and that what was read is written
// and read again as the same.
func FuzzMessage(f *testing.F) {
	for _, v := range messages {
		b, _ := AppendMessage(nil, &v.m)
		f.Add(b)
	}
	f.Add([]byte(`{"type":"HELLO","hello":{"versions":[1],"max_packet":1024,"relays":[],"spread":"","duplicate":false}}`))
	f.Add([]byte(`{"type":"HELLO","hello":{"versions":[1],"max_packet":1024,"direct":["[2001:db8::1]:443","a.example:9"]}}`))
	f.Add([]byte(`{"type":"WELCOME","welcome":{"version":1,"max_packet":1024,"max_streams":1,"relays":["ws://a",""]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		again, err := AppendMessage(nil, m)
		if err != nil {
			if len(b) > MaxMessage/8 {
				return // escapes can make it too long
			}
			t.Fatalf("%s was read, but not written: %v", b, err)
		}
		m2, err := ParseMessage(again)
		if err != nil || !reflect.DeepEqual(m, m2) {
			t.Fatalf("%s was read as %+v, then %+v, %v", b, m, m2, err)
		}
	})
}
