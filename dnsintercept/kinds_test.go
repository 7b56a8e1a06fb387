package dnsintercept

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// kinds are the types of records that programs ask for.
var kinds = map[string]dnsmessage.Type{
	"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "NAPTR": 35,
	"DS": 43, "DNSKEY": 48, "SVCB": 64, "HTTPS": 65, "ANY": 255, "CAA": 257, "a private one": 65280,
}

// TestEveryKindHasADefinedAnswer asks for each, of a name of ours, of one of
// ours that does not exist, and of another's.
//
// leak check 40: every type, for every sort of name
func TestEveryKindHasADefinedAnswer(t *testing.T) {
	for what, kind := range kinds {
		for _, size := range []int{0, 512, 1232, 4096, 65535} {
			for _, do := range []bool{false, size > 0} {
				checkKind(t, what, ask{kind: kind, size: size, do: do, id: 99})
			}
		}
	}
}

func checkKind(t *testing.T, what string, a ask) {
	t.Helper()
	i := newInterceptor(t, noUpstream(t), Options{})
	for host, rcode := range map[string]dnsmessage.RCode{
		"blog.nostr": dnsmessage.RCodeSuccess, "unknown.nostr": dnsmessage.RCodeNameError, "xn--bcher-kva.nostr": dnsmessage.RCodeNameError,
	} {
		a.host = host
		m := answer(t, i, a)
		answers := 0
		if rcode == 0 && (a.kind == dnsmessage.TypeA || a.kind == dnsmessage.TypeAAAA) {
			answers = 1
		}
		if m.RCode != rcode || len(m.Answers) != answers || len(m.Authorities) != 1-answers || m.AuthenticData {
			t.Errorf("%s of %s: %+v", what, host, m)
		}
		if opts := len(m.Additionals); opts != 0 != (a.size > 0) || opts == 1 && m.Additionals[0].Header.DNSSECAllowed() != a.do {
			t.Errorf("%s of %s with %d bytes: additionals %v", what, host, a.size, m.Additionals)
		}
	}
	// What is not ours goes out as it came, but for the ID.
	a.host = "XN--Bcher-KVA.exAmple"
	query := a.pack(t)
	var seen []byte
	i = newInterceptor(t, upstreamFunc(func(_ context.Context, q []byte) ([]byte, error) {
		seen = bytes.Clone(q)
		return answerTo(q, 5), nil
	}), Options{})
	q, reply := i.direct(bytes.Clone(query))
	if q == nil {
		t.Fatalf("%s was answered here: %x", what, reply)
	}
	m := unpack(t, i.forward(t.Context(), q))
	if !bytes.Equal(seen, query) || len(m.Answers) != 1 || m.ID != a.id || m.Questions[0].Name.String() != "XN--Bcher-KVA.exAmple." {
		t.Errorf("%s went out as %x for %x, and came back as %+v", what, seen, query, m)
	}
}

// TestChainsComeBackWhole has an upstream follow names: nothing of it is lost,
// reordered or followed again, and the question's case is the program's.
//
// leak check 40: chains of CNAMEs
func TestChainsComeBackWhole(t *testing.T) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 1, Response: true, RecursionAvailable: true, AuthenticData: true})
	b.EnableCompression()
	const links = 12
	n := func(i int) dnsmessage.Name { return dnsmessage.MustNewName(fmt.Sprintf("n%d.example.com.", i)) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.StartQuestions())
	must(b.Question(dnsmessage.Question{Name: n(0), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}))
	must(b.StartAnswers())
	for i := range links {
		must(b.CNAMEResource(dnsmessage.ResourceHeader{Name: n(i), Class: dnsmessage.ClassINET, TTL: 60}, dnsmessage.CNAMEResource{CNAME: n(i + 1)}))
	}
	must(b.AResource(dnsmessage.ResourceHeader{Name: n(links), Class: dnsmessage.ClassINET, TTL: 60}, dnsmessage.AResource{A: [4]byte{192, 0, 2, 80}}))
	whole, err := b.Finish()
	must(err)
	i := newInterceptor(t, upstreamFunc(func(context.Context, []byte) ([]byte, error) { return bytes.Clone(whole), nil }), Options{})
	q, _ := i.direct(ask{host: "N0.eXample.com", kind: dnsmessage.TypeA, id: 7, size: 4096, do: true}.pack(t))
	m := unpack(t, i.forward(t.Context(), q))
	if len(m.Answers) != links+1 || m.ID != 7 || m.Questions[0].Name.String() != "N0.eXample.com." || !m.AuthenticData {
		t.Errorf("the chain came back as %+v", m)
	}
	for i, r := range m.Answers[:links] {
		if c, ok := r.Body.(*dnsmessage.CNAMEResource); !ok || !strings.EqualFold(c.CNAME.String(), n(i+1).String()) {
			t.Errorf("link %d is %v", i, r)
		}
	}
}

// TestSearchDomainsWalkOn asks what a resolver with two search domains asks:
// each name that does not exist is answered so, and the next one is asked. Names
// of ours with a search domain behind them are none of ours.
//
// leak check 41: search domains walk on
func TestSearchDomainsWalkOn(t *testing.T) {
	asked := make(map[string]bool)
	i := newInterceptor(t, upstreamFunc(func(_ context.Context, query []byte) ([]byte, error) {
		q, err := parseQuery(query)
		if err != nil {
			return nil, err
		}
		asked[q.host] = true
		if strings.HasSuffix(q.host, ".corp.lan") {
			return answerTo(query, 5), nil
		}
		return q.reply(dnsmessage.RCodeNameError, nil, headerLen, 5), nil
	}), Options{})
	for _, step := range []struct {
		host    string
		rcode   dnsmessage.RCode
		forward bool
	}{
		{"unknown.nostr", dnsmessage.RCodeNameError, false},
		{"unknown.nostr.foo", dnsmessage.RCodeNameError, true},
		{"unknown.nostr.corp.lan", dnsmessage.RCodeSuccess, true},
		{"printer.foo", dnsmessage.RCodeNameError, true},
		{"printer.corp.lan", dnsmessage.RCodeSuccess, true},
		{"blog.nostr", dnsmessage.RCodeSuccess, false},
	} {
		q, reply := i.direct(ask{host: step.host, kind: dnsmessage.TypeA}.pack(t))
		if q != nil {
			reply = i.forward(t.Context(), q)
		}
		if m := unpack(t, reply); m.RCode != step.rcode || (q != nil) != step.forward || asked[step.host] != step.forward {
			t.Errorf("%s: forwarded %v, %v", step.host, q != nil, m.RCode)
		}
	}
}

// leak check 40: AXFR and IXFR
func TestTransfersAreRefused(t *testing.T) {
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeAXFR, typeIXFR} {
		for _, host := range []string{"example.com", "nostr", "blog.nostr"} {
			i := newInterceptor(t, noUpstream(t), Options{})
			if m := answer(t, i, ask{host: host, kind: kind}); m.RCode != dnsmessage.RCodeRefused {
				t.Errorf("%v of %s: %v", kind, host, m.RCode)
			}
		}
	}
}
