package dnsintercept

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testNPub = "npub1ue5qw4ngte0lygvpkct32ms6u5amu8080dkswq9jpx3uq9cycmwspyezm3"
	testKey  = "spk0elj8bpfv48c1mobhargqsktrs7f7fdmge05i16hs05o4oreg.nostr"
)

var testBook = func() name.Book {
	b, err := name.NewBook(map[string]string{"blog": testNPub})
	if err != nil {
		panic(err)
	}
	return b
}()

// ask is a query as a client sends it.
type ask struct {
	host  string
	kind  dnsmessage.Type
	class dnsmessage.Class // IN if zero
	size  int              // EDNS UDP size; no EDNS if zero
	do    bool
	vers  byte
	id    uint16
}

func (a ask) pack(t testing.TB) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: a.id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{
			Name: dnsmessage.MustNewName(a.host + "."), Type: a.kind, Class: max(a.class, dnsmessage.ClassINET),
		}},
	}
	if a.size > 0 {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(a.size, 0, a.do); err != nil {
			t.Fatal(err)
		}
		h.TTL |= uint32(a.vers) << 16
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func unpack(t testing.TB, msg []byte) dnsmessage.Message {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(msg); err != nil {
		t.Fatalf("answer %x cannot be read: %v", msg, err)
	}
	return m
}

// answerTo makes an upstream's answer with records of the given sizes.
func answerTo(query []byte, sizes ...int) []byte {
	q, err := parseQuery(query)
	if err != nil {
		panic(err)
	}
	msg := q.header(0, dnsmessage.RCodeSuccess, uint16(len(sizes)), 0)
	for _, n := range sizes {
		msg = appendRecord(msg, headerLen, dnsmessage.TypeTXT, 60, append([]byte{byte(n)}, make([]byte, n)...))
	}
	return q.appendOPT(msg, 0)
}

// upstreamFunc is an Upstream that is one function.
type upstreamFunc func(ctx context.Context, query []byte) ([]byte, error)

func (f upstreamFunc) Exchange(ctx context.Context, query []byte) ([]byte, error) {
	return f(ctx, query)
}

var errUpstream = errors.New("upstream is down")

// noUpstream fails a test that forwards.
func noUpstream(t testing.TB) Upstream {
	return upstreamFunc(func(_ context.Context, query []byte) ([]byte, error) {
		t.Errorf("forwarded: %q", query)
		return nil, errUpstream
	})
}

func newPool(t testing.TB, opts PoolOptions) *Pool {
	t.Helper()
	p, err := NewPool([32]byte{7}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newInterceptor(t testing.TB, up Upstream, opts Options) *Interceptor {
	opts.Names = testBook
	return New(up, newPool(t, PoolOptions{}), opts)
}

// answer asks i for what it says by itself.
func answer(t *testing.T, i *Interceptor, a ask) dnsmessage.Message {
	t.Helper()
	query := a.pack(t)
	forward, reply := i.direct(query)
	if forward != nil || reply == nil {
		t.Fatalf("%+v: not answered here", a)
	}
	if len(reply) > minUDP {
		t.Errorf("%+v: answer of %d bytes", a, len(reply))
	}
	m := unpack(t, reply)
	if !m.Response || m.ID != a.id || !m.RecursionAvailable || !m.RecursionDesired {
		t.Errorf("%+v: header %+v", a, m.Header)
	}
	if len(m.Questions) != 1 || m.Questions[0] != unpack(t, query).Questions[0] {
		t.Errorf("%+v: question %v", a, m.Questions)
	}
	return m
}

// lookup returns the address of host that i gives out.
func lookup(t *testing.T, i *Interceptor, host string) netip.Addr {
	t.Helper()
	m := answer(t, i, ask{host: host, kind: dnsmessage.TypeA})
	if len(m.Answers) != 1 {
		t.Fatalf("%s: %v %v", host, m.RCode, m.Answers)
	}
	return netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A)
}

// memStore is a Store in memory that can fail and tell what it holds.
type memStore struct {
	mu      sync.Mutex
	entries []Entry
	err     error
	saving  func(Entry) // called in Save, if set
}

func (s *memStore) Load() ([]Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries, s.err
}

func (s *memStore) Save(e Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saving != nil {
		s.saving(e)
	}
	if s.err == nil {
		s.entries = append(s.entries, e)
	}
	return s.err
}

func sendFrame(t testing.TB, conn net.Conn, msgs ...[]byte) {
	t.Helper()
	var b []byte
	for _, msg := range msgs {
		b = binary.BigEndian.AppendUint16(b, uint16(len(msg)))
		b = append(b, msg...)
	}
	if _, err := conn.Write(b); err != nil {
		t.Errorf("write: %v", err)
	}
}
