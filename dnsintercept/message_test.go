package dnsintercept

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// longName is a query like good for a name of three long labels and a last one.
func longName(good []byte, last int) []byte {
	msg := bytes.Clone(good[:12])
	msg[11] = 0
	for range 3 {
		msg = append(append(msg, 63), strings.Repeat("a", 63)...)
	}
	msg = append(append(msg, byte(last)), strings.Repeat("a", last)...)
	return append(msg, 0, 0, 1, 0, 1)
}

// leak check 40: names of 255 bytes
func TestLongestName(t *testing.T) {
	msg := longName(ask{host: "x", kind: dnsmessage.TypeA}.pack(t), 61)
	if q, err := parseQuery(msg); err != nil || q.end-headerLen != 255+4 {
		t.Errorf("a name of 255 octets: %v", err)
	}
}

// leak check 40: malformed queries
func TestMalformed(t *testing.T) {
	good := ask{host: "example.com", kind: dnsmessage.TypeA, id: 0x1234, size: 1232}.pack(t)
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	opt := good[len(good)-11:]
	for what, tt := range map[string]struct {
		msg   []byte
		rcode int // -1 is silence
	}{
		"nothing":            {nil, -1},
		"eleven bytes":       {good[:11], -1},
		"a response":         {edit(func(b []byte) []byte { b[2] |= 0x80; return b }), -1},
		"a status query":     {edit(func(b []byte) []byte { b[2] |= 2 << 3; return b }), 4},
		"an update":          {edit(func(b []byte) []byte { b[2] |= 5 << 3; return b }), 4},
		"no question":        {edit(func(b []byte) []byte { b[5] = 0; return b }), 1},
		"two questions":      {edit(func(b []byte) []byte { b[5] = 2; return b }), 1},
		"only a header":      {good[:12], 1},
		"name cut":           {good[:16], 1},
		"type cut":           {good[:27], 1},
		"compressed name":    {edit(func(b []byte) []byte { b[12], b[13] = 0xc0, 12; return b }), 1},
		"reserved label":     {edit(func(b []byte) []byte { b[12] = 0x40; return b }), 1},
		"answers missing":    {edit(func(b []byte) []byte { b[7] = 1; return b }), 1},
		"OPT cut":            {good[:len(good)-1], 1},
		"OPT twice":          {edit(func(b []byte) []byte { b[11] = 2; return append(b, opt...) }), 1},
		"OPT with a name":    {edit(func(b []byte) []byte { return append(append(b[:len(b)-11], 1, 'x', 0), opt[1:]...) }), 1},
		"name of 256 octets": {longName(good, 62), 1},
	} {
		i := newInterceptor(t, noUpstream(t), Options{})
		q, reply := i.direct(tt.msg)
		switch {
		case q != nil:
			t.Errorf("%s: taken for a query for %q", what, q.host)
		case tt.rcode < 0:
			if reply != nil {
				t.Errorf("%s: answered %x", what, reply)
			}
		default:
			if m := unpack(t, reply); int(m.RCode) != tt.rcode || m.ID != 0x1234 || !m.Response {
				t.Errorf("%s: %+v", what, m.Header)
			}
		}
		if n := i.Stats().Malformed; n != 1 {
			t.Errorf("%s: counted %d times", what, n)
		}
	}
}

func TestForward(t *testing.T) {
	query := ask{host: "wWw.ExAmPlE.cOm", kind: dnsmessage.TypeTXT, id: 77, size: 1400}.pack(t)
	for _, tt := range []struct {
		what  string
		up    func(q []byte) ([]byte, error)
		rcode dnsmessage.RCode
		n     int // records
	}{
		{"good", func(q []byte) ([]byte, error) { return answerTo(q, 5, 6), nil }, 0, 2},
		{"other ID and case", func(q []byte) ([]byte, error) {
			a := answerTo(q, 5)
			a[0], a[1] = 9, 9
			copy(a[headerLen:], "\x03www\x07example\x03com")
			return a, nil
		}, 0, 1},
		{"error", func([]byte) ([]byte, error) { return nil, errUpstream }, dnsmessage.RCodeServerFailure, 0},
		{"other name", func(q []byte) ([]byte, error) { a := answerTo(q, 5); a[13] = 'x'; return a, nil }, dnsmessage.RCodeServerFailure, 0},
		{"other type", func(q []byte) ([]byte, error) { a := answerTo(q, 5); a[30] = 1; return a, nil }, dnsmessage.RCodeServerFailure, 0},
		{"short", func(q []byte) ([]byte, error) { return answerTo(q)[:15], nil }, dnsmessage.RCodeServerFailure, 0},
		{"empty", func([]byte) ([]byte, error) { return nil, nil }, dnsmessage.RCodeServerFailure, 0},
		{"a query", func(q []byte) ([]byte, error) { return bytes.Clone(q), nil }, dnsmessage.RCodeServerFailure, 0},
		{"two questions", func(q []byte) ([]byte, error) { a := answerTo(q, 5); a[5] = 2; return a, nil }, dnsmessage.RCodeServerFailure, 0},
		{"bare refusal", func([]byte) ([]byte, error) { return []byte{0, 0, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0}, nil }, dnsmessage.RCodeRefused, 0},
		{"bare success", func([]byte) ([]byte, error) { return []byte{0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0}, nil }, dnsmessage.RCodeServerFailure, 0},
	} {
		var got []byte
		i := newInterceptor(t, upstreamFunc(func(_ context.Context, q []byte) ([]byte, error) {
			got = bytes.Clone(q)
			return tt.up(q)
		}), Options{})
		q, reply := i.direct(bytes.Clone(query))
		if q == nil {
			t.Fatalf("%s: answered here: %x", tt.what, reply)
		}
		raw := i.forward(t.Context(), q)
		if !bytes.Equal(got, query) {
			t.Errorf("%s: the upstream was asked %x, not %x", tt.what, got, query)
		}
		m := unpack(t, raw)
		if m.RCode != tt.rcode || len(m.Answers) != tt.n || m.ID != 77 || !m.Response {
			t.Errorf("%s: %+v, %d answers", tt.what, m.Header, len(m.Answers))
		}
		if len(m.Questions) != 1 || m.Questions[0].Name.String() != "wWw.ExAmPlE.cOm." {
			t.Errorf("%s: question %v", tt.what, m.Questions)
		}
		if s := i.Stats(); s.Forwarded+s.Failed != 1 {
			t.Errorf("%s: %+v", tt.what, s)
		}
	}
}

func TestTruncated(t *testing.T) {
	for _, tt := range []struct {
		size, limit int // EDNS size, what may be sent
	}{{0, 512}, {100, 512}, {512, 512}, {1232, 1232}, {4096, 4096}, {65535, 4096}} {
		msg := ask{host: "example.com", kind: dnsmessage.TypeTXT, size: tt.size}.pack(t)
		q, err := parseQuery(msg)
		if err != nil {
			t.Fatal(err)
		}
		// Records of 255 bytes first, then one that fills up to the limit.
		var sizes []int
		rest := tt.limit - len(answerTo(msg))
		for ; rest > 300; rest -= 212 {
			sizes = append(sizes, 199)
		}
		fits := answerTo(msg, append(sizes, rest-13)...)
		if len(fits) != tt.limit {
			t.Fatalf("the test's answer has %d bytes", len(fits))
		}
		if got := q.truncated(fits); !bytes.Equal(got, fits) {
			t.Errorf("size %d: %d bytes were cut", tt.size, len(fits))
		}
		long := answerTo(msg, append(sizes, rest-12)...)
		got := q.truncated(long)
		m := unpack(t, got)
		if len(got) > minUDP || !m.Truncated || len(m.Answers) != 0 || len(m.Questions) != 1 || (tt.size > 0) != (len(m.Additionals) == 1) {
			t.Errorf("size %d: %d bytes became %+v", tt.size, len(long), m)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, a := range []ask{
		{host: testKey, kind: dnsmessage.TypeA},
		{host: "blog.nostr", kind: dnsmessage.TypeAAAA, size: 1232, do: true},
		{host: "unknown.nostr", kind: dnsmessage.TypeALL},
		{host: "example.com", kind: dnsmessage.TypeTXT, size: 4096},
		{host: "1.1.18.198.in-addr.arpa", kind: dnsmessage.TypePTR},
		{host: reverse(netip.MustParseAddr("fd6e:7773:7670:1::100")), kind: dnsmessage.TypePTR},
		{host: canary, kind: dnsmessage.TypeA},
		{host: "example.com", kind: dnsmessage.TypeAXFR, class: dnsmessage.ClassCHAOS},
	} {
		f.Add(a.pack(f), []byte{})
	}
	f.Add([]byte("\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"), []byte{0, 0, 0x80})
	f.Fuzz(func(t *testing.T, msg, upstream []byte) {
		up := upstreamFunc(func(_ context.Context, query []byte) ([]byte, error) {
			if !bytes.Equal(query, msg) {
				t.Errorf("forwarded %x, not %x", query, msg)
			}
			return bytes.Clone(upstream), nil
		})
		i := New(up, newPool(t, PoolOptions{Capacity: 1}), Options{Names: testBook})
		q, reply := i.direct(bytes.Clone(msg))
		if q != nil {
			var p dnsmessage.Parser
			p.Start(msg)
			// dnsmessage reads the name independently of us. It does not read all.
			if question, err := p.Question(); err == nil && name.Under(question.Name.String()) {
				t.Fatalf("%s would be forwarded", question.Name)
			}
			reply = q.truncated(i.forward(t.Context(), q))
			if len(reply) > q.udpSize {
				t.Fatalf("answer of %d bytes for %d", len(reply), q.udpSize)
			}
			if !bytes.Equal(reply[headerLen:q.end], msg[headerLen:q.end]) {
				t.Fatal("another question")
			}
		} else if len(reply) > minUDP {
			t.Fatalf("answer of %d bytes", len(reply))
		}
		if reply == nil {
			return
		}
		if !bytes.Equal(reply[:2], msg[:2]) || reply[2]&0x80 == 0 {
			t.Fatalf("header %x for %x", reply[:4], msg[:4])
		}
		if q != nil {
			return // the upstream's bytes are its own affair
		}
		var p dnsmessage.Parser
		h, err := p.Start(reply)
		if err != nil || h.RCode == dnsmessage.RCodeSuccess && binary.BigEndian.Uint16(reply[4:]) != 1 {
			t.Fatalf("answer %x: %v", reply, err)
		}
		if p.SkipAllQuestions() != nil || p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil || p.SkipAllAdditionals() != nil {
			t.Fatalf("answer %x cannot be read", reply)
		}
	})
}

func FuzzReverse(f *testing.F) {
	for _, addr := range []string{"198.18.1.0", "0.0.0.0", "::", "fd6e:7773:7670:1::ab"} {
		f.Add(reverse(netip.MustParseAddr(addr)))
	}
	f.Add("01.1.18.198.in-addr.arpa")
	f.Fuzz(func(t *testing.T, host string) {
		if addr, ok := parseReverse(host); ok && reverse(addr) != host {
			t.Fatalf("%q was read as %s", host, addr)
		}
	})
}
