package exit

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestReverseNames(t *testing.T) {
	for name, want := range map[string]string{
		"5.1.168.192.in-addr.arpa.": "192.168.1.5/32", "168.192.IN-ADDR.arpa": "192.168.0.0/16", "10.in-addr.arpa.": "10.0.0.0/8",
		"b._dns-sd._udp.0.1.168.192.in-addr.arpa.": "192.168.1.0/32", "0/25.2.0.192.in-addr.arpa.": "192.0.2.0/24", "9.5.1.168.192.in-addr.arpa.": "192.168.1.5/32",
		"256.168.192.in-addr.arpa.": "192.168.0.0/16",
		"d.f.ip6.arpa.":             "fd00::/8", "D.F.IP6.ARPA.": "fd00::/8", "8.b.d.0.1.0.0.2.ip6.arpa.": "2001:db8::/32",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.": "fd00::1/128",
		"in-addr.arpa.": "", "ip6.arpa.": "", "x.in-addr.arpa.": "", "10.in-addr.arpa.example.": "", "10in-addr.arpa.": "", "example.": "", ".": "",
	} {
		if p, ok := reverse(name); ok != (want != "") || ok && p.String() != want {
			t.Errorf("%s: %v, %v, want %q", name, p, ok, want)
		}
	}
}

func FuzzReverse(f *testing.F) {
	for _, name := range []string{"5.1.168.192.in-addr.arpa.", "x.d.f.ip6.arpa.", "..in-addr.arpa"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p, ok := reverse(name)
		if ok && (p.Bits() <= 0 || p != p.Masked() || !p.Contains(lastOf(p))) {
			t.Errorf("%q: %v to %v", name, p, lastOf(p))
		}
	})
}

// The names of what clients do not reach are not asked for, with whatever type.
func TestReverseNamesStayUnknown(t *testing.T) {
	hidden := []string{
		"5.1.168.192.in-addr.arpa", "168.192.in-addr.arpa", "b._dns-sd._udp.0.0.0.10.in-addr.arpa", "254.169.in-addr.arpa",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", "0.8.e.f.ip6.arpa",
	}
	told := []string{"8.8.8.8.in-addr.arpa", "192.in-addr.arpa", "172.in-addr.arpa", "1.0.0.127.in-addr.arpa", "7.4.6.0.6.2.ip6.arpa", "in-addr.arpa", "a.example"}
	zone := make(zone)
	for _, name := range append(hidden, told...) {
		zone[name] = []record{{addrs: []string{"1.1.1.1"}}}
	}
	dns := newDNS(t, zone)
	s := newServer(t, dns.config()) // which opens 127.0.0.0/8
	peer, _ := open(t, s, "dns", "")
	for i, name := range append(hidden, told...) {
		want := dnsmessage.RCodeSuccess
		if i < len(hidden) {
			want = dnsmessage.RCodeNameError
		}
		if err := writeFramed(peer, queryFor(t, uint16(i), name)); err != nil {
			t.Fatal(err)
		}
		if id, rcode := readAnswer(t, peer); id != uint16(i) || rcode != want {
			t.Errorf("%s: %v, want %v", name, rcode, want)
		}
	}
	if _, asked := dns.count(); asked != len(told) {
		t.Errorf("%d names were asked for, want %d", asked, len(told))
	}
}

// section adds a record to a message.
type section func(b *dnsmessage.Builder, name dnsmessage.Name) error

func address(text string) section {
	return func(b *dnsmessage.Builder, name dnsmessage.Name) error {
		a, h := netip.MustParseAddr(text), dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 60}
		if a.Is4() {
			return b.AResource(h, dnsmessage.AResource{A: a.As4()})
		}
		return b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: a.As16()})
	}
}

func pointer(owner string) section {
	return func(b *dnsmessage.Builder, name dnsmessage.Name) error {
		return b.PTRResource(dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(owner), Class: dnsmessage.ClassINET, TTL: 60}, dnsmessage.PTRResource{PTR: name})
	}
}

func exchanger(b *dnsmessage.Builder, name dnsmessage.Name) error {
	return b.MXResource(dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 60}, dnsmessage.MXResource{MX: name})
}

func hint(text string) section {
	return func(b *dnsmessage.Builder, name dnsmessage.Name) error {
		a, r := netip.MustParseAddr(text), dnsmessage.SVCBResource{Priority: 1, Target: root}
		key := dnsmessage.SVCParamIPv6Hint
		if a.Is4() {
			key = dnsmessage.SVCParamIPv4Hint
		}
		r.SetParam(key, a.AsSlice())
		return b.HTTPSResource(dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 60}, dnsmessage.HTTPSResource{SVCBResource: r})
	}
}

// messageOf makes an answer with three sections, for a query of some type.
func messageOf(t testing.TB, typ dnsmessage.Type, rcode dnsmessage.RCode, sections [3][]section) (query, []byte) {
	t.Helper()
	q, err := newQuery("x.example", typ)
	if err != nil {
		t.Fatal(err)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true, RCode: rcode})
	b.EnableCompression()
	errs := []error{b.StartQuestions(), b.Question(q.question)}
	for i, start := range []func() error{b.StartAnswers, b.StartAuthorities, b.StartAdditionals} {
		errs = append(errs, start())
		for _, add := range sections[i] {
			errs = append(errs, add(&b, q.question.Name))
		}
	}
	m, err := b.Finish()
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
	return q, m
}

// No section of any answer tells of addresses that clients do not reach.
func TestAllSectionsAreLookedAt(t *testing.T) {
	g := newServer(t, Config{}, "127.0.0.0/8").gate.Load()
	const mx, srv, a = dnsmessage.TypeMX, dnsmessage.TypeSRV, dnsmessage.TypeA
	good, bad := address("1.1.1.1"), address("192.168.1.5")
	for name, tt := range map[string]struct {
		typ      dnsmessage.Type
		rcode    dnsmessage.RCode
		sections [3][]section
		want     [3]int // records; -1 for the same message
	}{
		"glue":                          {mx, 0, [3][]section{{exchanger}, {}, {good}}, [3]int{-1}},
		"private glue":                  {mx, 0, [3][]section{{exchanger}, {}, {good, bad}}, [3]int{1, 0, 0}},
		"private glue of IPv6":          {srv, 0, [3][]section{{exchanger, exchanger}, {}, {address("fd00::1")}}, [3]int{2, 0, 0}},
		"open glue":                     {mx, 0, [3][]section{{exchanger}, {}, {address("127.0.0.1")}}, [3]int{-1}},
		"private hints besides":         {mx, 0, [3][]section{{exchanger}, {}, {hint("10.0.0.1")}}, [3]int{1, 0, 0}},
		"private authority":             {a, 0, [3][]section{{good}, {bad}, {good}}, [3]int{1, 0, 0}},
		"besides a name that is none":   {a, dnsmessage.RCodeNameError, [3][]section{{}, {bad}, {}}, [3]int{0, 0, 0}},
		"a private answer of MX":        {mx, 0, [3][]section{{exchanger, bad}, {}, {}}, [3]int{0, 0, 0}},
		"private hints among them":      {mx, 0, [3][]section{{hint("fe80::1")}, {}, {}}, [3]int{0, 0, 0}},
		"an alias of a private name":    {dnsmessage.TypePTR, 0, [3][]section{{pointer("5.1.168.192.in-addr.arpa.")}, {}, {}}, [3]int{0, 0, 0}},
		"an alias of a public name":     {dnsmessage.TypePTR, 0, [3][]section{{pointer("8.8.8.8.in-addr.arpa.")}, {}, {}}, [3]int{-1}},
		"a private name in the besides": {mx, 0, [3][]section{{exchanger}, {}, {pointer("5.1.168.192.in-addr.arpa.")}}, [3]int{1, 0, 0}},
	} {
		q, m := messageOf(t, tt.typ, tt.rcode, tt.sections)
		before := bytes.Clone(m)
		got := g.filterAnswer(q, m)
		var parsed dnsmessage.Message
		if err := parsed.Unpack(got); err != nil || parsed.RCode != tt.rcode || !slices.Equal(parsed.Questions, []dnsmessage.Question{q.question}) {
			t.Errorf("%s: %+v, %v", name, parsed, err)
		}
		if n := [3]int{len(parsed.Answers), len(parsed.Authorities), len(parsed.Additionals)}; tt.want[0] >= 0 && n != tt.want {
			t.Errorf("%s: %v records are left, want %v", name, n, tt.want)
		}
		if tt.want[0] < 0 && !bytes.Equal(got, before) || !bytes.Equal(m, before) {
			t.Errorf("%s: %x became %x", name, before, got)
		}
	}
}

func FuzzFilterAnswer(f *testing.F) {
	g := &gate{local: &localNets{}}
	g.local.fresh = time.Now().Add(time.Hour)
	var q query
	for _, sections := range [][3][]section{
		{{exchanger}, {}, {address("10.0.0.1")}}, {{hint("10.0.0.1")}, {pointer("10.in-addr.arpa.")}, {}}, {{address("1.1.1.1")}, {exchanger}, {hint("fd00::1")}},
	} {
		var m []byte
		q, m = messageOf(f, dnsmessage.TypeMX, 0, sections)
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		got := g.filterAnswer(q, m)
		var parsed dnsmessage.Message
		if err := parsed.Unpack(got); err != nil {
			return // which no program can read either
		}
		if besides, err := g.inspect(got); besides || err != nil {
			t.Errorf("%x becomes %x, of which is said: %v, %v", m, got, besides, err)
		}
		for _, r := range slices.Concat(parsed.Answers, parsed.Authorities, parsed.Additionals) {
			if a, ok := r.Body.(*dnsmessage.AResource); ok && g.checkAddr(netip.AddrFrom4(a.A)) != nil {
				t.Errorf("%x is told with %v", got, r)
			}
		}
	})
}
