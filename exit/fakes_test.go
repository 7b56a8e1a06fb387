package exit

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRequest is a request whose other end is the test.
type fakeRequest struct {
	network, address string
	peer             net.Conn      // the test's end of the flow
	flow             net.Conn      // the server's end
	accepted         chan struct{} // closed by Accept
	rejected         chan error
}

func newRequest(t *testing.T, network, address string) *fakeRequest {
	t.Helper()
	r := &fakeRequest{network: network, address: address, accepted: make(chan struct{}), rejected: make(chan error, 1)}
	if network == "udp" || network == "ping" {
		r.peer, r.flow = net.Pipe() // one Read per Write, as datagrams
	} else {
		r.peer, r.flow = tcpPair(t)
	}
	t.Cleanup(func() { r.peer.Close(); r.flow.Close() })
	return r
}

func (r *fakeRequest) Network() string { return r.network }
func (r *fakeRequest) Address() string { return r.address }
func (r *fakeRequest) Reject(err error) {
	r.rejected <- err
}
func (r *fakeRequest) Accept() (net.Conn, error) {
	close(r.accepted)
	return r.flow, nil
}

// handle runs Handle until the test ends; done is closed when it returns.
func handle(t *testing.T, s *Server, r *fakeRequest) (done chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done = make(chan struct{})
	go func() {
		defer close(done)
		s.Handle(ctx, r)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return done
}

// open has s serve a request that must be accepted.
func open(t *testing.T, s *Server, network, address string) (peer net.Conn, done chan struct{}) {
	t.Helper()
	r := newRequest(t, network, address)
	done = handle(t, s, r)
	select {
	case <-r.accepted:
	case err := <-r.rejected:
		t.Fatalf("%s %s: rejected: %v", network, address, err)
	}
	return r.peer, done
}

// rejection has s serve a request that must be rejected.
func rejection(t *testing.T, s *Server, network, address string) error {
	t.Helper()
	r := newRequest(t, network, address)
	done := handle(t, s, r)
	select {
	case <-r.accepted:
		t.Fatalf("%s %s: accepted", network, address)
		return nil
	case err := <-r.rejected:
		<-done
		return err
	}
}

func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l := listenTCP(t, "127.0.0.1")
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func listenTCP(t *testing.T, host string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// echoTCP greets, then returns what it gets until the end, which it returns
// too. count says how many connections there were.
func echoTCP(t *testing.T, host string) (addr string, count *atomic.Int64) {
	t.Helper()
	l := listenTCP(t, host)
	count = new(atomic.Int64)
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			wait.Go(func() {
				defer c.Close()
				io.WriteString(c, "hello")
				io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wait.Wait() })
	return l.Addr().String(), count
}

// closedPort is an address on which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l := listenTCP(t, "127.0.0.1")
	defer l.Close()
	return l.Addr().String()
}

// port cuts the port off an address.
func port(t *testing.T, address string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// zone is what a fake name server knows, by lower-case name without the final
// dot. The n-th query for a name and type gets the n-th answer, the last one
// over and over.
type zone map[string][]record

// record is one answer of a fake name server.
type record struct {
	addrs    []string // those of the type that is asked for count
	cname    string   // put before them
	rcode    dnsmessage.RCode
	drop     bool                // no answer
	truncate bool                // over UDP only
	edit     func([]byte) []byte // changes the whole message
	hold     chan struct{}       // waited for before the answer
	arrived  chan struct{}       // told when a query is there
	only     dnsmessage.Type     // other types get no answer
}

// fakeDNS is a name server on loopback.
type fakeDNS struct {
	zone zone
	addr netip.AddrPort

	mu   sync.Mutex
	seen map[dnsmessage.Question]int
	raw  [][]byte // queries as they came
	tcp  int      // queries over TCP
}

func newDNS(t *testing.T, z zone) *fakeDNS {
	t.Helper()
	f := &fakeDNS{zone: z, seen: make(map[dnsmessage.Question]int)}
	var udp net.PacketConn
	var tcp net.Listener
	for range 20 { // until a port is free for both
		var err error
		tcp = listenTCP(t, "127.0.0.1")
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			break
		}
		tcp.Close()
	}
	if udp == nil {
		t.Fatal("no port for a name server")
	}
	f.addr = netip.MustParseAddrPort(tcp.Addr().String())
	var wait sync.WaitGroup
	wait.Go(func() { f.serveUDP(udp, &wait) })
	wait.Go(func() { f.serveTCP(tcp, &wait) })
	t.Cleanup(func() { udp.Close(); tcp.Close(); wait.Wait() })
	return f
}

func (f *fakeDNS) serveUDP(conn net.PacketConn, wait *sync.WaitGroup) {
	for {
		buf := make([]byte, 4096)
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		wait.Go(func() {
			if answer := f.answer(buf[:n], false); answer != nil {
				conn.WriteTo(answer, from)
			}
		})
	}
}

func (f *fakeDNS) serveTCP(l net.Listener, wait *sync.WaitGroup) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		wait.Go(func() {
			defer conn.Close()
			query, err := readFramed(conn, 1<<16-1)
			if err != nil {
				return
			}
			if answer := f.answer(query, true); answer != nil {
				writeFramed(conn, answer)
			}
		})
	}
}

func (f *fakeDNS) answer(raw []byte, tcp bool) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(raw)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	rec := f.record(raw, q, tcp)
	if rec.arrived != nil {
		rec.arrived <- struct{}{}
	}
	if rec.hold != nil {
		<-rec.hold
	}
	if rec.drop || rec.only != 0 && rec.only != q.Type {
		return nil
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: h.ID, Response: true, RecursionAvailable: true, RCode: rec.rcode, Truncated: rec.truncate && !tcp,
	})
	err = errors.Join(b.StartQuestions(), b.Question(q), b.StartAnswers())
	owner := q.Name
	if rec.cname != "" {
		target := dnsmessage.MustNewName(rec.cname + ".")
		err = errors.Join(err, b.CNAMEResource(dnsmessage.ResourceHeader{Name: owner, Class: q.Class}, dnsmessage.CNAMEResource{CNAME: target}))
		owner = target
	}
	for _, text := range rec.addrs {
		a := netip.MustParseAddr(text)
		head := dnsmessage.ResourceHeader{Name: owner, Class: q.Class, TTL: 1}
		switch {
		case rec.truncate && !tcp:
		case a.Is4() && q.Type == dnsmessage.TypeA:
			err = errors.Join(err, b.AResource(head, dnsmessage.AResource{A: a.As4()}))
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			err = errors.Join(err, b.AAAAResource(head, dnsmessage.AAAAResource{AAAA: a.As16()}))
		}
	}
	msg, finishErr := b.Finish()
	if err != nil || finishErr != nil {
		panic(errors.Join(err, finishErr))
	}
	if rec.edit != nil {
		msg = rec.edit(msg)
	}
	return msg
}

func (f *fakeDNS) record(raw []byte, q dnsmessage.Question, tcp bool) record {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.raw = append(f.raw, raw)
	if tcp {
		f.tcp++
	}
	host := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	n := f.seen[q]
	f.seen[q]++
	records := f.zone[host]
	if len(records) == 0 {
		return record{rcode: dnsmessage.RCodeNameError}
	}
	return records[min(n, len(records)-1)]
}

// count says how many queries came, over TCP and in all.
func (f *fakeDNS) count() (tcp, all int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tcp, len(f.raw)
}
