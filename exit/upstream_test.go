package exit

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestParseNameserver(t *testing.T) {
	for text, want := range map[string]string{
		"9.9.9.9":                                       "9.9.9.9:53",
		"[2620:fe::fe]:5353":                            "[2620:fe::fe]:5353",
		"2620:fe::fe":                                   "[2620:fe::fe]:53",
		"tls://9.9.9.9":                                 "tls://9.9.9.9:853",
		"tls://dns.example":                             "tls://dns.example:853",
		"tls://dns.example:8853":                        "tls://dns.example:8853",
		"tls://Dns.Example@192.0.2.1":                   "tls://dns.example@192.0.2.1:853",
		"tls://dns.example@[2001:db8::1]:8853":          "tls://dns.example@[2001:db8::1]:8853",
		"https://dns.example":                           "https://dns.example:443/dns-query",
		"https://dns.example@192.0.2.1:8443/q":          "https://dns.example@192.0.2.1:8443/q",
		"https://[2001:db8::1]:8443/dns-query":          "https://[2001:db8::1]:8443/dns-query",
		"https://dns.example@192.0.2.1:443/dns-query/x": "https://dns.example@192.0.2.1:443/dns-query/x",
	} {
		n, err := ParseNameserver(text)
		if err != nil || n.String() != want {
			t.Errorf("%q: %q, %v, want %q", text, n, err, want)
			continue
		}
		if again, err := ParseNameserver(n.String()); err != nil || again != n {
			t.Errorf("%q again: %+v, %v", n, again, err)
		}
	}
	for _, text := range []string{
		"", "dns.example", "9.9.9.9:0", "0.0.0.0", "udp://9.9.9.9", "tls://", "tls://a b", "tls://dns.example@other.example",
		"tls://dns.example:0", "tls://dns.example:099", "tls://dns.example:x", "https:///dns-query", "tls://@192.0.2.1",
	} {
		if n, err := ParseNameserver(text); err == nil {
			t.Errorf("%q is taken for %+v", text, n)
		}
	}
}

// secureDNS offers a zone over TLS and over HTTPS, for dns.example.
type secureDNS struct {
	*fakeDNS
	tls, https  netip.AddrPort
	connections atomic.Int64 // over TLS
	roots       *x509.CertPool
}

func newSecureDNS(t *testing.T, z zone) *secureDNS {
	t.Helper()
	s := &secureDNS{fakeDNS: newDNS(t, z), roots: x509.NewCertPool()}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != dnsMessageType || binary.BigEndian.Uint16(query) != 0 {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		answer := s.answer(query, true)
		if answer == nil {
			http.Redirect(w, r, "https://198.51.100.1/", http.StatusFound)
			return
		}
		w.Header().Set("Content-Type", dnsMessageType)
		w.Write(answer)
	}))
	web.EnableHTTP2 = true
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	t.Cleanup(web.Close)
	s.https = netip.MustParseAddrPort(web.Listener.Addr().String())
	s.roots.AddCert(web.Certificate())

	l := tls.NewListener(listenTCP(t, "127.0.0.1"), &tls.Config{Certificates: web.TLS.Certificates})
	s.tls = netip.MustParseAddrPort(l.Addr().String())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			serving.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return s
}

// serve answers the questions of one connection until it closes.
func (s *secureDNS) serve(conn net.Conn) {
	defer conn.Close()
	for {
		query, err := readFramed(conn, 1<<16-1)
		if err != nil {
			return
		}
		answer := s.answer(query, true)
		if answer == nil || writeFramed(conn, answer) != nil {
			return
		}
	}
}

func secureResolver(t *testing.T, n Nameserver, roots *x509.CertPool) *resolver {
	u := newUpstream(n, roots)
	t.Cleanup(u.close)
	return &resolver{servers: fixedServers([]upstream{u}), try: 5 * time.Second}
}

func TestNamesOverTLSAndHTTPS(t *testing.T) {
	s := newSecureDNS(t, zone{
		"a.example":    {{addrs: []string{"192.0.2.1", "2001:db8::1"}}},
		"lost.example": {{drop: true}, {drop: true}, {addrs: []string{"192.0.2.2"}}},
		"gone.example": {{drop: true}},
	})
	for _, n := range []Nameserver{
		{Protocol: "tls", Host: "example.com", Addr: s.tls},
		{Protocol: "https", Host: "example.com", Addr: s.https, Path: "/dns-query"},
		{Protocol: "https", Host: "127.0.0.1", Addr: s.https, Path: "/"},
	} {
		r := secureResolver(t, n, s.roots)
		for range 3 {
			if got := asked(t, r, "a.example"); !slices.Equal(got, []string{"2001:db8::1", "192.0.2.1"}) {
				t.Errorf("%v: %v", n, got)
			}
		}
		// One whose name is not in the certificate, and one that nobody vouches for.
		for _, bad := range []*resolver{
			secureResolver(t, Nameserver{Protocol: n.Protocol, Host: "other.test", Addr: n.Addr, Path: n.Path}, s.roots),
			secureResolver(t, n, x509.NewCertPool()),
		} {
			if answer, err := ask(t, bad, "a.example", dnsmessage.TypeA); err == nil {
				t.Errorf("%v: a server with a wrong certificate answers %x", n, answer)
			}
		}
	}
	r := secureResolver(t, Nameserver{Protocol: "tls", Host: "example.com", Addr: s.tls}, s.roots)
	before := s.connections.Load()
	for range 10 {
		if _, err := ask(t, r, "a.example", dnsmessage.TypeA); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.connections.Load() - before; n != 1 {
		t.Errorf("%d connections for ten queries, one after the other", n)
	}
	// A connection that the server has closed is replaced.
	if got, err := ask(t, r, "lost.example", dnsmessage.TypeA); err != nil || len(got) == 0 {
		t.Errorf("after lost answers: %v", err)
	}
	// A redirect is no answer, and is not followed.
	if _, err := ask(t, secureResolver(t, Nameserver{Protocol: "https", Host: "example.com", Addr: s.https, Path: "/"}, s.roots), "gone.example", dnsmessage.TypeAAAA); err == nil {
		t.Error("a redirect is followed")
	}
}

func TestPrivateAnswersAreKeptBack(t *testing.T) {
	dns := newDNS(t, zone{
		"public.example": {{addrs: []string{"1.1.1.1", "2606:4700::1111"}}},
		"lan.example":    {{addrs: []string{"192.168.1.1", "fd00::1"}}},
		"mixed.example":  {{addrs: []string{"1.1.1.1", "10.0.0.1", "2606:4700::1111", "fe80::1"}}},
		"opened.example": {{addrs: []string{"127.0.0.1"}}},
	})
	s := newServer(t, dns.config())
	for host, want := range map[string]int{"public.example": 1, "lan.example": 0, "mixed.example": 0, "opened.example": 1, "none.example": 0} {
		for _, typ := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
			q, err := newQuery(host, typ)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := s.resolver.exchange(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseAddresses(s.gate.Load().filterAnswer(q, answer))
			if host == "opened.example" && typ == dnsmessage.TypeAAAA {
				want = 0
			}
			if err != nil || len(got) != want {
				t.Errorf("%s %v: %v, %v", host, typ, got, err)
			}
		}
	}
	q, _ := newQuery("x.example", dnsmessage.TypeA)
	if got := s.gate.Load().filterAnswer(q, append(q.answer(0), 1)[:13]); dnsmessage.RCode(got[3]&0xf) != dnsmessage.RCodeServerFailure {
		t.Errorf("an answer that cannot be read becomes %x", got)
	}
}

// Programs connect to the hints of these records as they do to addresses.
func TestPrivateHintsAreKeptBack(t *testing.T) {
	s := newServer(t, Config{})
	hints := map[dnsmessage.SVCParamKey][]byte{dnsmessage.SVCParamALPN: []byte("\x02h2")}
	for _, tt := range []struct {
		v4, v6 string // bytes
		kept   bool
	}{
		{"", "", true},
		{"\x01\x01\x01\x01", "", true},
		{"\x01\x01\x01\x01\xc0\xa8\x01\x01", "", false},
		{"", "\xfd" + strings.Repeat("\x00", 14) + "\x01", false},
	} {
		hints[dnsmessage.SVCParamIPv4Hint], hints[dnsmessage.SVCParamIPv6Hint] = []byte(tt.v4), []byte(tt.v6)
		for _, typ := range []dnsmessage.Type{dnsmessage.TypeSVCB, dnsmessage.TypeHTTPS, dnsmessage.TypeALL} {
			q, err := newQuery("x.example", typ)
			if err != nil {
				t.Fatal(err)
			}
			h := dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: 60}
			r := dnsmessage.SVCBResource{Priority: 1, Target: root}
			for key, value := range hints {
				r.SetParam(key, value)
			}
			b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true})
			err = errors.Join(b.StartQuestions(), b.Question(q.question), b.StartAnswers())
			if typ == dnsmessage.TypeSVCB {
				err = errors.Join(err, b.SVCBResource(h, r))
			} else {
				err = errors.Join(err, b.HTTPSResource(h, dnsmessage.HTTPSResource{SVCBResource: r}))
			}
			answer, ferr := b.Finish()
			if err = errors.Join(err, ferr); err != nil {
				t.Fatal(err)
			}
			if got := s.gate.Load().filterAnswer(q, answer); bytes.Equal(got, answer) != tt.kept {
				t.Errorf("%v with hints %q and %q becomes %x", typ, tt.v4, tt.v6, got)
			}
		}
	}
	q, _ := newQuery("x.example", dnsmessage.TypeHTTPS)
	if got := s.gate.Load().filterAnswer(q, append(q.answer(0), 1)[:13]); dnsmessage.RCode(got[3]&0xf) != dnsmessage.RCodeServerFailure {
		t.Errorf("an answer that cannot be read becomes %x", got)
	}
}

func TestCache(t *testing.T) {
	dns := newDNS(t, zone{"a.example": {{addrs: []string{"192.0.2.1", "2001:db8::1"}}}, "fail.example": {{rcode: dnsmessage.RCodeServerFailure}}})
	r := newResolver(dns.addr)
	r.cache = newDNSCache()
	now := time.Now()
	r.cache.now = func() time.Time { return now }
	queries := func() int { _, all := dns.count(); return all }
	for range 5 {
		if got := asked(t, r, "a.example"); !slices.Equal(got, []string{"2001:db8::1", "192.0.2.1"}) {
			t.Errorf("got %v", got)
		}
	}
	if n := queries(); n != 2 {
		t.Errorf("%d queries for the same two questions", n)
	}
	upper, err := newQuery("A.eXample", dnsmessage.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	upper.raw[0], upper.raw[1] = 0xab, 0xcd
	answer, err := r.exchange(context.Background(), upper)
	if err != nil || !answers(answer, upper.raw) || !strings.Contains(string(answer), "\x01A\x07eXample") || queries() != 2 {
		t.Errorf("in another spelling: %q, %v after %d queries", answer, err, queries())
	}
	now = now.Add(time.Second)
	asked(t, r, "a.example")
	if n := queries(); n != 4 {
		t.Errorf("%d queries after the answers' time", n)
	}
	for range 2 {
		ask(t, r, "fail.example", dnsmessage.TypeA)
	}
	if n := queries(); n < 6 {
		t.Error("a failure is kept")
	}
}

// answerOf makes an answer with records of the given times to live.
func answerOf(t testing.TB, host string, ttls ...uint32) (query, []byte) {
	t.Helper()
	q, err := newQuery(host, dnsmessage.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true})
	b.StartQuestions()
	b.Question(q.question)
	b.StartAnswers()
	for _, ttl := range ttls {
		b.AResource(dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: ttl}, dnsmessage.AResource{A: [4]byte{1, 1, 1, 1}})
	}
	m, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return q, m
}

func TestLifetimes(t *testing.T) {
	for _, tt := range []struct {
		ttls []uint32
		want time.Duration
	}{
		{[]uint32{60}, time.Minute}, {[]uint32{300, 20, 60}, 20 * time.Second}, {[]uint32{0}, 0}, {[]uint32{1 << 31}, 0}, {nil, 0},
	} {
		_, m := answerOf(t, "a.example", tt.ttls...)
		life, at := lifetime(m)
		if life != tt.want || life > 0 && len(at) != len(tt.ttls) {
			t.Errorf("%v: kept for %v, %d times in it", tt.ttls, life, len(at))
		}
	}
	q, _ := newQuery("no.example", dnsmessage.TypeA)
	if life, _ := lifetime(q.answer(dnsmessage.RCodeNameError)); life != time.Minute {
		t.Errorf("a name that does not exist is kept for %v", life)
	}
	// What is left of the time is told.
	c := newDNSCache()
	now := time.Now()
	c.now = func() time.Time { return now }
	q, m := answerOf(t, "a.example", 100, 50)
	c.put(&q, m)
	now = now.Add(30 * time.Second)
	if left, at := lifetime(c.get(&q)); left != 20*time.Second || len(at) != 2 {
		t.Errorf("%v left of 50 s after 30", left)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	c := newDNSCache()
	for i := range 3 * maxCached {
		q, m := answerOf(t, "x"+strings.Repeat("y", i%50)+"."+string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676%26))+".example", 3600)
		c.put(&q, m)
	}
	if len(c.entries) > maxCached || c.used.Len() != len(c.entries) || c.bytes > maxCachedBytes {
		t.Errorf("%d answers of %d bytes are kept", len(c.entries), c.bytes)
	}
	q, m := answerOf(t, "last.example", 3600)
	c.put(&q, m)
	if c.get(&q) == nil {
		t.Error("the newest answer is not kept")
	}
	for c.used.Len() > 0 {
		c.drop(c.used.Back())
	}
	if c.bytes != 0 || len(c.entries) != 0 {
		t.Errorf("%d bytes, %d entries in an empty cache", c.bytes, len(c.entries))
	}
}

func FuzzCachedAnswer(f *testing.F) {
	_, m := answerOf(f, "a.example", 60, 1<<31, 5)
	f.Add(m)
	q, _ := newQuery("no.example", dnsmessage.TypeA)
	f.Add(q.answer(dnsmessage.RCodeNameError))
	g := &gate{local: &localNets{}}
	g.local.fresh = time.Now().Add(time.Hour)
	f.Fuzz(func(t *testing.T, m []byte) {
		if len(m) < dnsHeader {
			return
		}
		c := newDNSCache()
		c.put(&q, m)
		if got := c.get(&q); got != nil && len(got) != len(m) {
			t.Errorf("%x is kept as %x", m, got)
		}
		g.filterAnswer(q, m)
	})
}
