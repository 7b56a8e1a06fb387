package dnsintercept

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// says is an upstream that notes who was asked, and answers with what its zone
// has: addresses, "nx", "fail", "cut", "chain" for a name that leads to another,
// or "strange" for an address of a kind that was not asked for.
func says(by string, asked *[]string, zone map[string]string) Upstream {
	return upstreamFunc(func(_ context.Context, query []byte) ([]byte, error) {
		q, err := parseQuery(query)
		if err != nil {
			return nil, err
		}
		*asked = append(*asked, by)
		what, ok := zone[q.host]
		a4, a6 := []byte{203, 0, 113, 9}, bytes.Repeat([]byte{0x20}, 16)
		switch {
		case what == "fail":
			return nil, errUpstream
		case !ok || what == "nx":
			msg := q.header(0, dnsmessage.RCodeNameError, 0, 0)
			return q.appendOPT(msg, 0), nil
		case what == "refused":
			return q.fail(dnsmessage.RCodeRefused), nil
		case what == "cut":
			return q.appendOPT(q.header(flagTC, dnsmessage.RCodeSuccess, 0, 0), 0), nil
		case what == "chain" && q.kind == dnsmessage.TypeA:
			msg := appendRecord(q.header(0, dnsmessage.RCodeSuccess, 2, 0), headerLen, dnsmessage.TypeCNAME, 60, appendName(nil, "cdn.elsewhere"))
			return q.appendOPT(appendRecord(msg, headerLen, dnsmessage.TypeA, 60, a4), 0), nil
		case what == "strange":
			msg := appendRecord(q.header(0, dnsmessage.RCodeSuccess, 1, 0), headerLen, dnsmessage.TypeTXT, 60, []byte{0})
			return q.appendOPT(msg, 0), nil
		case q.kind == dnsmessage.TypeA && strings.Contains(what, "4"):
			return q.appendOPT(appendRecord(q.header(0, dnsmessage.RCodeSuccess, 1, 0), headerLen, q.kind, 60, a4), 0), nil
		case q.kind == dnsmessage.TypeAAAA && strings.Contains(what, "6"):
			return q.appendOPT(appendRecord(q.header(0, dnsmessage.RCodeSuccess, 1, 0), headerLen, q.kind, 60, a6), 0), nil
		case q.kind == dnsmessage.TypeTXT:
			return q.appendOPT(appendRecord(q.header(0, dnsmessage.RCodeSuccess, 1, 0), headerLen, q.kind, 60, []byte{0}), 0), nil
		}
		return q.appendOPT(q.header(0, dnsmessage.RCodeSuccess, 0, 0), 0), nil
	})
}

// TestSplitNames: who is asked for a name, and what its asker hears.
func TestSplitNames(t *testing.T) {
	zone := map[string]string{
		"tv.example": "46", "www.tv.example": "4", "chain.tv.example": "chain", "none.tv.example": "", "fail.tv.example": "fail",
		"cut.tv.example": "cut", "strange.tv.example": "strange", "refused.tv.example": "refused", "other.example": "4", "nottv.example": "4",
		`b\"d.tv.example`: "4", "tv.example.com": "4", "_x.tv.example": "4",
	}
	const a, aaaa, txt, https = dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeTXT, typeHTTPS
	for _, tc := range []struct {
		host string
		kind dnsmessage.Type
		// Who is asked with an exclusion; with an inclusion it is the other one.
		asked string
		want  string // fake, real, empty or the rcode
	}{
		{"tv.example", a, "outside", "fake"},
		{"tv.example", aaaa, "outside", "fake"},
		{"TV.Example", a, "outside", "fake"},
		{"www.tv.example", a, "outside", "fake"},
		{"www.tv.example", aaaa, "outside", "empty"},
		{"_x.tv.example", a, "outside", "fake"},
		{"chain.tv.example", a, "outside", "fake"},
		{"none.tv.example", a, "outside", "empty"},
		{"nx.tv.example", a, "outside", "NameError"},
		{"fail.tv.example", a, "outside", "ServerFailure"},
		{"refused.tv.example", a, "outside", "Refused"},
		{"cut.tv.example", a, "outside", "ServerFailure"},
		{"strange.tv.example", a, "outside", "empty"},
		{`b\"d.tv.example`, a, "", "NameError"},
		{"tv.example", https, "", "empty"},
		{"tv.example", dnsmessage.TypeALL, "", "empty"},
		{"tv.example", txt, "outside", "real"},
		{"other.example", a, "within", "real"},
		{"nottv.example", a, "within", "real"},
		{"tv.example.com", a, "within", "real"},
		{"nx.example", a, "within", "NameError"},
	} {
		for _, include := range []bool{false, true} {
			var asked []string
			i := newInterceptor(t, says("within", &asked, zone), Options{Split: &Split{
				Suffixes: []string{"tv.example"}, Include: include, Outside: says("outside", &asked, zone),
			}})
			query := ask{host: tc.host, kind: tc.kind}.pack(t)
			q, _ := i.direct(query)
			if q == nil {
				t.Fatalf("%s is answered without a question", tc.host)
			}
			got := judge(t, i, unpack(t, i.forward(t.Context(), q)))
			wantAsked := tc.asked
			if include && wantAsked != "" {
				wantAsked = map[string]string{"outside": "within", "within": "outside"}[wantAsked]
			}
			if who := strings.Join(asked, " "); got != tc.want || who != wantAsked {
				t.Errorf("%s %v, include %v: %s by %q, want %s by %q", tc.host, tc.kind, include, got, who, tc.want, wantAsked)
			}
		}
	}
}

func judge(t *testing.T, i *Interceptor, m dnsmessage.Message) string {
	t.Helper()
	switch {
	case m.RCode != dnsmessage.RCodeSuccess:
		return strings.TrimPrefix(m.RCode.GoString(), "dnsmessage.RCode")
	case len(m.Answers) == 0:
		return "empty"
	case len(m.Answers) > 1:
		t.Errorf("%d records", len(m.Answers))
	}
	var addr netip.Addr
	switch body := m.Answers[0].Body.(type) {
	case *dnsmessage.AResource:
		addr = netip.AddrFrom4(body.A)
	case *dnsmessage.AAAAResource:
		addr = netip.AddrFrom16(body.AAAA)
	}
	if !i.pool.Contains(addr) {
		return "real"
	}
	if host, ok := i.pool.Host(addr); !ok || host != strings.TrimSuffix(strings.ToLower(m.Answers[0].Header.Name.String()), ".") {
		t.Errorf("the fake address of %v is %q's", m.Answers[0].Header.Name, host)
	}
	return "fake"
}

// A label that holds a dot reads like a name under the suffix, and is not.
func TestSplitIsNotFooledByDots(t *testing.T) {
	var asked []string
	zone := map[string]string{"www.tv.example": "4"}
	i := newInterceptor(t, says("within", &asked, zone), Options{Split: &Split{Suffixes: []string{"tv.example"}, Outside: says("outside", &asked, zone)}})
	query := ask{host: "www.tv.example", kind: dnsmessage.TypeA}.pack(t)
	query[headerLen] = 10 // one label of "www.tv" and so on
	query = append(query[:headerLen], append([]byte{6, 'w', 'w', 'w', '.', 't', 'v', 7}, query[headerLen+8:]...)...)
	q, _ := i.direct(query)
	if q == nil || q.host != "www.tv.example" || !q.dotted {
		t.Fatalf("the query is %+v", q)
	}
	i.forward(t.Context(), q)
	if strings.Join(asked, " ") != "within" {
		t.Errorf("asked %q", asked)
	}
}

// With no name of its own, a Split leaves those that are in neither list to the
// upstream outside; with no upstream there, they all go through the tunnel.
func TestSplitOfTheOthers(t *testing.T) {
	for want, split := range map[string]func(outside Upstream) *Split{
		"outside": func(o Upstream) *Split { return &Split{Include: true, Outside: o} },
		"within":  func(Upstream) *Split { return &Split{Include: true, Suffixes: []string{"tv.example"}} },
	} {
		var asked []string
		zone := map[string]string{"other.example": "4"}
		i := newInterceptor(t, says("within", &asked, zone), Options{Split: split(says("outside", &asked, zone))})
		q, _ := i.direct(ask{host: "other.example", kind: dnsmessage.TypeA}.pack(t))
		if got := judge(t, i, unpack(t, i.forward(t.Context(), q))); got != "real" || strings.Join(asked, " ") != want {
			t.Errorf("%s by %q, want %s", got, asked, want)
		}
	}
}

// TestSplitDials: the name decides which way a connection goes, at the moment it
// is made.
func TestSplitDials(t *testing.T) {
	var asked []string
	zone := map[string]string{"www.tv.example": "46"}
	for _, tc := range []struct {
		name  string
		split *Split
		want  string
	}{
		{"excluded", &Split{Suffixes: []string{"tv.example"}}, "outside"},
		{"included", &Split{Suffixes: []string{"tv.example"}, Include: true}, "within"},
		{"no longer excluded", &Split{Suffixes: []string{"other.example"}}, "within"},
		{"no longer included", &Split{Suffixes: []string{"other.example"}, Include: true}, "within"},
		{"no longer split", nil, "within"},
	} {
		i := newInterceptor(t, says("within", &asked, zone), Options{Split: tc.split})
		addr, _, err := i.pool.Address("www.tv.example")
		if err != nil {
			t.Fatal(err)
		}
		within, outside := &earlyRecorder{}, &recorder{}
		for _, early := range []bool{false, true} {
			near, far := net.Pipe()
			within.conn, outside.conn = near, near
			within.address, outside.address = "", ""
			if tc.split != nil {
				tc.split.Dialer = outside
			}
			d := i.Dialer(within).(*earlyNameDialer)
			first := make(chan string, 1)
			go func() {
				b := make([]byte, 5)
				n, _ := far.Read(b)
				first <- string(b[:n])
			}()
			at := netip.AddrPortFrom(addr, 443).String()
			var conn net.Conn
			if early {
				conn, err = d.DialEarly(t.Context(), "tcp", at, []byte("hello"))
			} else {
				conn, err = d.DialContext(t.Context(), "tcp", at)
			}
			if err != nil {
				t.Fatal(err)
			}
			got := map[bool]string{true: "outside", false: "within"}[outside.address != ""]
			if got != tc.want || within.address+outside.address != "www.tv.example:443" {
				t.Errorf("%s, early %v: %q within, %q outside", tc.name, early, within.address, outside.address)
			}
			conn.Close()
			if text := <-first; text != "" && (!early || tc.want == "within") || text != "hello" && early && tc.want == "outside" {
				t.Errorf("%s, early %v: the far end read %q", tc.name, early, text)
			}
			far.Close()
		}
	}
	i := newInterceptor(t, noUpstream(t), Options{Split: &Split{Suffixes: []string{"tv.example"}, Dialer: &recorder{err: syscall.EHOSTUNREACH}}})
	addr, _, _ := i.pool.Address("tv.example")
	if _, err := i.Dialer(&earlyRecorder{}).(*earlyNameDialer).DialEarly(t.Context(), "tcp", netip.AddrPortFrom(addr, 80).String(), nil); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("a dial that fails outside: %v", err)
	}
	if n := flows(i, addr); n != 0 {
		t.Errorf("%d flows after it", n)
	}
}
