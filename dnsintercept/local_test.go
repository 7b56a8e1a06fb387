package dnsintercept

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// leak check 41: NXDOMAIN with SOA
// leak check 42: the canary
func TestLocalAnswers(t *testing.T) {
	const a, aaaa, none = dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.Type(0)
	const ok, nx = dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError
	const https, svcb, txt, any, soa = dnsmessage.Type(65), dnsmessage.Type(64), dnsmessage.TypeTXT, dnsmessage.TypeALL, dnsmessage.TypeSOA
	for _, tt := range []struct {
		host   string
		kind   dnsmessage.Type
		rcode  dnsmessage.RCode
		answer dnsmessage.Type // its only record, or none and an SOA
	}{
		{testKey, a, ok, a},
		{testKey, aaaa, ok, aaaa},
		{strings.ToUpper(testKey), a, ok, a},
		{"etpjkbpf64p3ebhg5oo2sc9q6srjic0." + testKey, a, ok, a},
		{testNPub + ".nostr", aaaa, ok, aaaa},
		{"bLoG.NoStR", a, ok, a},
		{"blog.nostr", https, ok, none},
		{"blog.nostr", svcb, ok, none},
		{"blog.nostr", any, ok, none},
		{"blog.nostr", txt, ok, none},
		{"blog.nostr", soa, ok, none},
		{"unknown.nostr", a, nx, none},
		{"unknown.nostr", txt, nx, none},
		{"www.blog.nostr", a, nx, none},
		{strings.Repeat("z", 52) + ".nostr", a, nx, none},
		{strings.Repeat(strings.Repeat("x", 61)+".", 3) + "nostr", a, nx, none},
		{"nostr", a, ok, none},
		{"nostr", soa, ok, soa},
		{"use-application-dns.net", a, nx, none},
		{"Use-Application-DNS.net", aaaa, nx, none},
	} {
		i := newInterceptor(t, noUpstream(t), Options{})
		m := answer(t, i, ask{host: tt.host, kind: tt.kind, id: 4711})
		if m.RCode != tt.rcode || !m.Authoritative {
			t.Errorf("%s %v: %v", tt.host, tt.kind, m.Header)
		}
		records := m.Answers
		if tt.answer == none {
			if len(m.Answers) != 0 {
				t.Errorf("%s %v: answers %v", tt.host, tt.kind, m.Answers)
			}
			records, tt.answer = m.Authorities, soa
		}
		if len(records) != 1 || records[0].Header.Type != tt.answer || records[0].Header.TTL < 1 || records[0].Header.TTL > 10 {
			t.Errorf("%s %v: records %v, want one %v", tt.host, tt.kind, records, tt.answer)
			continue
		}
		switch body := records[0].Body.(type) {
		case *dnsmessage.SOAResource:
			owner := records[0].Header.Name.String()
			if !strings.HasSuffix("."+tt.host+".", "."+owner) || body.MinTTL != records[0].Header.TTL {
				t.Errorf("%s: SOA of %q with %d s", tt.host, owner, body.MinTTL)
			}
		case *dnsmessage.AResource:
			checkFake(t, netip.AddrFrom4(body.A), "198.18.1.0", "198.19.255.254")
		case *dnsmessage.AAAAResource:
			checkFake(t, netip.AddrFrom16(body.AAAA), "fd6e:7773:7670:1::100", "fd6e:7773:7670:1::ffff:ffff")
		}
		if len(m.Additionals) != 0 {
			t.Errorf("%s: additionals %v", tt.host, m.Additionals)
		}
	}
}

func checkFake(t *testing.T, addr netip.Addr, first, last string) {
	t.Helper()
	if addr.Less(netip.MustParseAddr(first)) || netip.MustParseAddr(last).Less(addr) {
		t.Errorf("fake address %s outside %s to %s", addr, first, last)
	}
}

func TestSpellingsShareNoAddressButStayStable(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	key, npub := lookup(t, i, testKey), lookup(t, i, testNPub+".nostr")
	if key == npub {
		t.Error("two names share an address")
	}
	if again := lookup(t, i, strings.ToUpper(testKey)); again != key {
		t.Errorf("%s at first, then %s", key, again)
	}
	if n := i.Stats().Names; n != 2 {
		t.Errorf("%d names", n)
	}
}

// leak check 40: EDNS
func TestEDNS(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	for _, host := range []string{"blog.nostr", "unknown.nostr"} {
		m := answer(t, i, ask{host: host, kind: dnsmessage.TypeA, size: 1232, do: true})
		if len(m.Additionals) != 1 || m.Additionals[0].Header.Type != dnsmessage.TypeOPT || !m.Additionals[0].Header.DNSSECAllowed() {
			t.Errorf("%s: additionals %v", host, m.Additionals)
		}
	}
	m := answer(t, i, ask{host: "blog.nostr", kind: dnsmessage.TypeA, size: 1232, vers: 1})
	if len(m.Additionals) != 1 || m.Additionals[0].Header.ExtendedRCode(m.RCode) != rcodeBadVersion || len(m.Answers) != 0 {
		t.Errorf("EDNS version 1: %v %v", m.RCode, m.Additionals)
	}
}

func TestReverse(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	addr := lookup(t, i, "Blog.nostr")
	v6 := answer(t, i, ask{host: "blog.nostr", kind: dnsmessage.TypeAAAA}).Answers[0].Body.(*dnsmessage.AAAAResource).AAAA

	for _, host := range []string{reverse(addr), reverse(netip.AddrFrom16(v6)), strings.ToUpper(reverse(addr))} {
		m := answer(t, i, ask{host: host, kind: dnsmessage.TypePTR})
		if len(m.Answers) != 1 || m.Answers[0].Body.(*dnsmessage.PTRResource).PTR.String() != "blog.nostr." {
			t.Errorf("%s: %v %v", host, m.RCode, m.Answers)
		}
		m = answer(t, i, ask{host: host, kind: dnsmessage.TypeTXT})
		if m.RCode != dnsmessage.RCodeSuccess || len(m.Answers) != 0 || len(m.Authorities) != 1 {
			t.Errorf("%s TXT: %v", host, m)
		}
	}
	for _, addr := range []string{"198.18.0.1", "198.18.0.2", "198.19.255.255", "fd6e:7773:7670::1", "fd6e:7773:7670:1:1::5"} {
		m := answer(t, i, ask{host: reverse(netip.MustParseAddr(addr)), kind: dnsmessage.TypePTR})
		if m.RCode != dnsmessage.RCodeNameError || len(m.Authorities) != 1 {
			t.Errorf("%s: %v", addr, m)
		}
	}
}

// reverse is the name under which addr's name is asked for.
func reverse(addr netip.Addr) string {
	var b strings.Builder
	raw := addr.AsSlice()
	for i := len(raw) - 1; i >= 0; i-- {
		if addr.Is4() {
			fmt.Fprintf(&b, "%d.", raw[i])
		} else {
			fmt.Fprintf(&b, "%x.%x.", raw[i]&15, raw[i]>>4)
		}
	}
	if addr.Is4() {
		return b.String() + "in-addr.arpa"
	}
	return b.String() + "ip6.arpa"
}

func TestRefusedHere(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	for what, a := range map[string]ask{
		"class CHAOS":   {host: "blog.nostr", kind: dnsmessage.TypeA, class: dnsmessage.ClassCHAOS},
		"zone transfer": {host: "example.com", kind: dnsmessage.TypeAXFR},
		"of .nostr":     {host: "blog.nostr", kind: dnsmessage.TypeAXFR},
		"incremental":   {host: "example.com", kind: typeIXFR},
	} {
		if m := answer(t, i, a); m.RCode != dnsmessage.RCodeRefused {
			t.Errorf("%s: %v", what, m.RCode)
		}
	}
}

func TestForwardedNames(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	for _, host := range []string{
		"", "com", "example.com", "nostr.com", "blog.nostr.com", "anostr", "printer",
		"_printer._tcp.local", "1.0.0.10.in-addr.arpa", "18.198.in-addr.arpa", "0.0.20.198.in-addr.arpa",
		"use-application-dns.net.example", "01.1.18.198.in-addr.arpa", "d.f.ip6.arpa",
	} {
		if q, reply := i.direct(ask{host: strings.TrimSuffix(host, "."), kind: dnsmessage.TypeA}.packAny(t)); q == nil {
			t.Errorf("%q was answered here: %x", host, reply)
		}
	}
}

// packAny also packs the root's name.
func (a ask) packAny(t *testing.T) []byte {
	if a.host != "" {
		return a.pack(t)
	}
	return append(make([]byte, 5), 1, 0, 0, 0, 0, 0, 0, 0, 0, byte(a.kind), 0, 1)
}

func TestDottedLabels(t *testing.T) {
	i := newInterceptor(t, noUpstream(t), Options{})
	// A label may hold any byte, a dot too. Such a name is no petname, even if
	// it reads like one, and it is still not for the exit.
	for name, want := range map[string]string{
		"\x0ablog.nostr":                        "3",
		"\x08www.blog\x05nostr":                 "3",
		"\x06nostr.":                            "3",
		"\x0bMy Printer.\x04_ipp\x04_tcp\x00":   "forwarded",
		"\x04blog\x06nostr\x00":                 "forwarded",
		"\x0fnostr.localhost\x07example\x03com": "forwarded",
	} {
		msg := append(make([]byte, 5), 1, 0, 0, 0, 0, 0, 0)
		msg = append(msg, name...)
		msg = append(msg, 0, 0, 1, 0, 1)
		if strings.HasSuffix(name, "_tcp\x00") {
			msg = append(msg[:12], "\x0bMy Printer.\x04_ipp\x04_tcp\x05local\x00\x00\x01\x00\x01"...)
		}
		q, reply := i.direct(msg)
		got := "forwarded"
		if q == nil {
			got = fmt.Sprint(reply[3] & 0xf)
		}
		if got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}
