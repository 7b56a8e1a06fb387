package exit

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func newResolver(servers ...netip.AddrPort) *resolver {
	var list []upstream
	for _, s := range servers {
		list = append(list, plainUpstream{s})
	}
	return &resolver{servers: fixedServers(list), try: 5 * time.Second}
}

func ask(t *testing.T, r *resolver, host string, typ dnsmessage.Type) ([]byte, error) {
	t.Helper()
	q, err := newQuery(host, typ)
	if err != nil {
		t.Fatal(err)
	}
	return r.exchange(context.Background(), q)
}

// asked returns the addresses of host, which must have some.
func asked(t *testing.T, r *resolver, host string) []string {
	t.Helper()
	addrs, err := r.lookup(context.Background(), host)
	if err != nil {
		t.Fatalf("%s: %v", host, err)
	}
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func TestLookup(t *testing.T) {
	dns := newDNS(t, zone{
		"both.example":  {{addrs: []string{"192.0.2.1", "2001:db8::1", "192.0.2.2"}}},
		"four.example":  {{addrs: []string{"192.0.2.1"}}},
		"alias.example": {{cname: "four.example", addrs: []string{"192.0.2.1"}}},
		"big.example":   {{truncate: true, addrs: []string{"192.0.2.7"}}},
		"case.example":  {{edit: shout, addrs: []string{"192.0.2.65"}}},
	})
	r := newResolver(dns.addr)
	for host, want := range map[string][]string{
		"both.example":  {"2001:db8::1", "192.0.2.1", "192.0.2.2"},
		"four.example":  {"192.0.2.1"},
		"alias.example": {"192.0.2.1"},
		"big.example":   {"192.0.2.7"},
		"case.example":  {"192.0.2.65"},
	} {
		if got := asked(t, r, host); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
	if tcp, _ := dns.count(); tcp != 2 {
		t.Errorf("%d queries over TCP, want the two that were truncated", tcp)
	}
	for _, raw := range dns.raw {
		q, err := parseQuery(raw)
		if err != nil || !q.header.RecursionDesired || strings.Count(q.question.Name.String(), ".") != 2 {
			t.Errorf("sent %v, %v", q.question, err)
		}
	}
}

// shout changes the case of the question's name.
func shout(m []byte) []byte {
	for i := dnsHeader; i < dnsHeader+len("xcasexexample"); i++ {
		if m[i] >= 'a' {
			m[i] &^= 0x20
		}
	}
	return m
}

// A server that never answers for one family costs a second, not the dial.
func TestLookupDoesNotWaitForOneFamily(t *testing.T) {
	slow := newDNS(t, zone{"half.example": {{only: dnsmessage.TypeA, addrs: []string{"192.0.2.1"}}}})
	r := newResolver(slow.addr)
	r.try = time.Hour
	if got := asked(t, r, "half.example"); !slices.Equal(got, []string{"192.0.2.1"}) {
		t.Errorf("got %v", got)
	}
}

func TestExchangeTriesAgainAndElsewhere(t *testing.T) {
	good := record{addrs: []string{"192.0.2.1"}}
	for _, tt := range []struct {
		what   string
		first  []record
		second []record // nil: there is no second server
		rcode  dnsmessage.RCode
		fails  bool
	}{
		{"lost once", []record{{drop: true}, good}, nil, 0, false},
		{"lost twice", []record{{drop: true}, {drop: true}, good}, nil, 0, false},
		{"lost always", []record{{drop: true}}, nil, 0, true},
		{"first is dead", []record{{drop: true}}, []record{good}, 0, false},
		{"first is broken", []record{{rcode: 2}}, []record{good}, 0, false},
		{"first refuses", []record{{rcode: 5}}, []record{good}, 0, false},
		{"both are broken", []record{{rcode: 2}}, []record{{rcode: 2}}, 2, false},
		{"first says no", []record{{rcode: 3}}, []record{good}, 3, false},
		{"broken and dead", []record{{rcode: 2}}, []record{{drop: true}}, 2, false},
		{"wrong ID", []record{{edit: func(m []byte) []byte { m[0]++; return m }}, good}, nil, 0, false},
		{"a query", []record{{edit: func(m []byte) []byte { m[2] &^= responseBit; return m }}, good}, nil, 0, false},
		{"other name", []record{{edit: func(m []byte) []byte { m[13]++; return m }}, good}, nil, 0, false},
		{"no question", []record{{edit: func(m []byte) []byte { m[5] = 0; return m }}, good}, nil, 0, false},
		{"short", []record{{edit: func(m []byte) []byte { return m[:11] }}, good}, nil, 0, false},
		{"empty", []record{{edit: func([]byte) []byte { return []byte{} }}, good}, nil, 0, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel() // each waits for what never comes
			servers := []netip.AddrPort{newDNS(t, zone{"a.example": tt.first}).addr}
			if tt.second != nil {
				servers = append(servers, newDNS(t, zone{"a.example": tt.second}).addr)
			}
			r := newResolver(servers...)
			r.try = time.Second
			answer, err := ask(t, r, "a.example", dnsmessage.TypeA)
			if (err != nil) != tt.fails {
				t.Fatal(err)
			}
			if err == nil && dnsmessage.RCode(answer[3]&0xf) != tt.rcode {
				t.Errorf("%v, want %v", dnsmessage.RCode(answer[3]&0xf), tt.rcode)
			}
		})
	}
}

func TestServerThatIsNotThere(t *testing.T) {
	dead := netip.MustParseAddrPort(closedPort(t)) // closed for UDP as well, most likely
	dns := newDNS(t, zone{"a.example": {{addrs: []string{"192.0.2.1"}}}})
	if got := asked(t, newResolver(dead, dns.addr), "a.example"); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestExchangeEndsWithItsContext(t *testing.T) {
	arrived := make(chan struct{})
	dns := newDNS(t, zone{"a.example": {{drop: true, arrived: arrived}}})
	r := newResolver(dns.addr)
	r.try = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		q, _ := newQuery("a.example", dnsmessage.TypeA)
		_, err := r.exchange(ctx, q)
		done <- err
	}()
	<-arrived
	cancel()
	if err := <-done; err == nil {
		t.Error("no error")
	}
	q, _ := newQuery("a.example", dnsmessage.TypeA)
	if _, err := r.exchange(ctx, q); err == nil {
		t.Error("no error after the end")
	}
}

// What the exchange never passes on, and what it says instead.
func TestQueriesAnsweredHere(t *testing.T) {
	dns := newDNS(t, zone{})
	r := newResolver(dns.addr)
	build := func(edit func(h *dnsmessage.Header), questions ...dnsmessage.Question) []byte {
		h := dnsmessage.Header{ID: 4711, RecursionDesired: true}
		if edit != nil {
			edit(&h)
		}
		msg := dnsmessage.Message{Header: h, Questions: questions}
		raw, err := msg.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	q := func(name string, typ dnsmessage.Type) dnsmessage.Question {
		return dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}
	}
	for what, tt := range map[string]struct {
		raw   []byte
		rcode dnsmessage.RCode
	}{
		"an exit's name": {build(nil, q(nwsName+".", dnsmessage.TypeA)), dnsmessage.RCodeNameError},
		"a petname":      {build(nil, q("bLog.NoStr.", dnsmessage.TypeAAAA)), dnsmessage.RCodeNameError},
		"nostr itself":   {build(nil, q("nostr.", dnsmessage.TypeSOA)), dnsmessage.RCodeNameError},
		"an onion":       {build(nil, q("x.onion.", dnsmessage.TypeA)), dnsmessage.RCodeNameError},
		"localhost":      {build(nil, q("a.localhost.", dnsmessage.TypeA)), dnsmessage.RCodeNameError},
		"a transfer":     {build(nil, q("example.com.", dnsmessage.TypeAXFR)), dnsmessage.RCodeRefused},
		"a small one":    {build(nil, q("example.com.", typeIXFR)), dnsmessage.RCodeRefused},
		"an update":      {build(func(h *dnsmessage.Header) { h.OpCode = 5 }, q("example.com.", dnsmessage.TypeSOA)), dnsmessage.RCodeNotImplemented},
		"a notify":       {build(func(h *dnsmessage.Header) { h.OpCode = 4 }, q("example.com.", dnsmessage.TypeSOA)), dnsmessage.RCodeNotImplemented},
		"no question":    {build(nil), dnsmessage.RCodeFormatError},
		"two questions":  {build(nil, q("a.", dnsmessage.TypeA), q("b.", dnsmessage.TypeA)), dnsmessage.RCodeFormatError},
		"cut short":      {build(nil, q("example.com.", dnsmessage.TypeA))[:20], dnsmessage.RCodeFormatError},
		"far too long":   {append(build(nil, q("example.com.", dnsmessage.TypeA)), make([]byte, maxQuery)...), dnsmessage.RCodeFormatError},
	} {
		query, err := parseQuery(tt.raw)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		raw, err := r.exchange(context.Background(), query)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		var got dnsmessage.Message
		if err := got.Unpack(raw); err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if got.RCode != tt.rcode || !got.Response || got.ID != 4711 || !got.RecursionDesired {
			t.Errorf("%s: %+v, want %v", what, got.Header, tt.rcode)
		}
		if soa := len(got.Authorities) == 1 && got.Authorities[0].Header.Type == dnsmessage.TypeSOA; soa != (tt.rcode == dnsmessage.RCodeNameError) {
			t.Errorf("%s: SOA is %v", what, soa)
		}
		if query.asked && (len(got.Questions) != 1 || got.Questions[0] != query.question) {
			t.Errorf("%s: answers %v", what, got.Questions)
		}
	}
	for what, raw := range map[string][]byte{
		"an answer": build(func(h *dnsmessage.Header) { h.Response = true }), "nothing": nil, "eleven bytes": make([]byte, 11),
	} {
		if _, err := parseQuery(raw); err == nil {
			t.Errorf("%s is taken for a query", what)
		}
	}
	if _, n := dns.count(); n != 0 {
		t.Errorf("%d queries were passed on", n)
	}
}

// Types we know nothing of pass as they are, both ways.
func TestForeignTypesPass(t *testing.T) {
	rdata := []byte("\x07unknown")
	dns := newDNS(t, zone{"a.example": {{edit: func(m []byte) []byte {
		m[7] = 1 // one answer: the name by pointer, type 65400
		return append(m, append([]byte{0xc0, 12, 0xff, 0x78, 0, 1, 0, 0, 0, 9, 0, byte(len(rdata))}, rdata...)...)
	}}}})
	answer, err := ask(t, newResolver(dns.addr), "a.example", 65400)
	if err != nil || !bytes.HasSuffix(answer, rdata) {
		t.Fatalf("%q, %v", answer, err)
	}
}

func TestLongAnswersComeOverTCP(t *testing.T) {
	long := make([]byte, 5000)
	dns := newDNS(t, zone{"a.example": {{edit: func(m []byte) []byte { return append(m, long...) }}}})
	answer, err := ask(t, newResolver(dns.addr), "a.example", dnsmessage.TypeTXT)
	if err != nil || len(answer) < 5000 {
		t.Fatalf("%d bytes, %v", len(answer), err)
	}
	if tcp, _ := dns.count(); tcp != 1 {
		t.Errorf("%d queries over TCP", tcp)
	}
}

func TestFraming(t *testing.T) {
	for _, n := range []int{0, 1, 512, 65535} {
		var wire bytes.Buffer
		msg := bytes.Repeat([]byte{7}, n)
		if err := writeFramed(&wire, msg); err != nil || wire.Len() != n+2 {
			t.Fatalf("%d: %d, %v", n, wire.Len(), err)
		}
		got, err := readFramed(&wire, 65535)
		if err != nil || !bytes.Equal(got, msg) {
			t.Errorf("%d bytes come back as %d, %v", n, len(got), err)
		}
	}
	if _, err := readFramed(bytes.NewReader([]byte{2, 0}), 511); err == nil {
		t.Error("a message beyond the limit is read")
	}
	if _, err := readFramed(bytes.NewReader([]byte{0, 2, 1}), 511); err == nil {
		t.Error("half a message is read")
	}
}

func FuzzQuery(f *testing.F) {
	for _, host := range []string{"example.com", "a.nostr"} {
		q, err := newQuery(host, dnsmessage.TypeA)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(q.raw)
		f.Add(q.answer(dnsmessage.RCodeNameError))
	}
	f.Add(make([]byte, 12))
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := parseQuery(raw)
		if err != nil {
			return
		}
		answer := q.answer(q.rcode)
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil || m.ID != q.header.ID || !m.Response {
			t.Fatalf("our own answer %x: %+v, %v", answer, m.Header, err)
		}
		if !q.local {
			if !q.asked || isLocalName(q.question.Name.String()) || len(raw) > maxQuery {
				t.Fatalf("would be passed on: %x", raw)
			}
			if m.RCode == 0 && !answers(answer, raw) {
				t.Fatalf("our own answer %x is none to %x", answer, raw)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	dnsAnswer := (&fakeDNS{zone: zone{"a.example": {{cname: "b.example", addrs: []string{"192.0.2.1", "2001:db8::1"}}}}, seen: map[dnsmessage.Question]int{}}).answer
	for _, typ := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		q, err := newQuery("a.example", typ)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(q.raw, dnsAnswer(q.raw, false))
	}
	f.Add([]byte{}, make([]byte, 12))
	f.Fuzz(func(t *testing.T, sent, answer []byte) {
		if len(sent) >= dnsHeader && answers(answer, sent) {
			if len(answer) < dnsHeader || answer[0] != sent[0] || answer[1] != sent[1] {
				t.Fatalf("%x is taken for an answer to %x", answer, sent)
			}
			isTruncated(answer)
		}
		addrs, err := parseAddresses(answer)
		if err != nil && addrs != nil {
			t.Fatal("addresses beside an error")
		}
		if len(addrs)*12 > len(answer) {
			t.Fatalf("%d addresses in %d bytes", len(addrs), len(answer))
		}
	})
}
