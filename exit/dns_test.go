package exit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// queryFor is a query with an ID of the test's.
func queryFor(t *testing.T, id uint16, host string) []byte {
	t.Helper()
	q, err := newQuery(host, dnsmessage.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint16(q.raw, id)
	return q.raw
}

// readAnswer reads one answer: its ID and response code.
func readAnswer(t *testing.T, r io.Reader) (id uint16, rcode dnsmessage.RCode) {
	t.Helper()
	msg, err := readFramed(r, 1<<16-1)
	if err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint16(msg), dnsmessage.RCode(msg[3] & 0xf)
}

func TestDNSFlow(t *testing.T) {
	hold := make(chan struct{})
	good := record{addrs: []string{"192.0.2.1"}}
	dns := newDNS(t, zone{
		"good.example": {good}, "broken.example": {{rcode: 2}},
		"slow.example": {{hold: hold, addrs: good.addrs}},
	})
	s := newServer(t, dns.config())
	s.resolver.try = time.Minute
	peer, done := open(t, s, "dns", "")
	// The slow one is asked first, and does not hold up the others.
	send := func(id uint16, host string) {
		if err := writeFramed(peer, queryFor(t, id, host)); err != nil {
			t.Fatal(err)
		}
	}
	send(1, "slow.example")
	for i, tt := range []struct {
		host string
		want dnsmessage.RCode
	}{
		{"good.example", 0}, {"missing.example", 3}, {"broken.example", 2}, {"blog.nostr", 3}, {"good.example", 0},
	} {
		send(uint16(100+i), tt.host)
		if id, rcode := readAnswer(t, peer); id != uint16(100+i) || rcode != tt.want {
			t.Errorf("%s: ID %d, %v", tt.host, id, rcode)
		}
	}
	// Who half-closes still gets his answers.
	peer.(*net.TCPConn).CloseWrite()
	close(hold)
	if id, rcode := readAnswer(t, peer); id != 1 || rcode != 0 {
		t.Errorf("slow: ID %d, %v", id, rcode)
	}
	if n, err := peer.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the last answer: %d, %v", n, err)
	}
	<-done
	if st := s.Stats(); st.DNSFlows != 1 || st.Queries != 6 || st.QueriesFailed != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestDNSFlowWithoutServers(t *testing.T) {
	s := newServer(t, Config{})
	s.resolver.servers = (&resolvConf{path: t.TempDir() + "/none"}).get
	peer, _ := open(t, s, "dns", "")
	if err := writeFramed(peer, queryFor(t, 7, "a.example")); err != nil {
		t.Fatal(err)
	}
	if id, rcode := readAnswer(t, peer); id != 7 || rcode != dnsmessage.RCodeServerFailure {
		t.Errorf("ID %d, %v", id, rcode)
	}
	if st := s.Stats(); st.QueriesFailed != 1 {
		t.Errorf("stats %+v", st)
	}
}

func TestManyQueriesInFlight(t *testing.T) {
	hold := make(chan struct{})
	z := make(zone)
	const n = 3 * maxStreamQueries
	arrived := make(chan struct{}, n)
	for i := range n {
		z[fmt.Sprintf("h%d.example", i)] = []record{{arrived: arrived, hold: hold, addrs: []string{"192.0.2.1"}}}
	}
	dns := newDNS(t, z)
	s := newServer(t, dns.config())
	s.resolver.try = time.Minute
	peer, done := open(t, s, "dns", "")
	go func() {
		for i := range n {
			if writeFramed(peer, queryFor(t, uint16(i), fmt.Sprintf("h%d.example", i))) != nil {
				return
			}
		}
		peer.(*net.TCPConn).CloseWrite()
	}()
	// As many as a flow may have are at the server, and no more.
	for range maxStreamQueries {
		<-arrived
	}
	if _, all := dns.count(); all > maxStreamQueries || len(s.queries) != maxStreamQueries {
		t.Errorf("%d queries are in flight, %d counted", all, len(s.queries))
	}
	close(hold)
	seen := make(map[uint16]bool)
	for range n {
		id, _ := readAnswer(t, peer)
		seen[id] = true
	}
	<-done
	if len(seen) != n || len(s.queries) != 0 {
		t.Errorf("%d answers to %d queries, %d in flight", len(seen), n, len(s.queries))
	}
}

func TestDNSFlowGarbage(t *testing.T) {
	dns := newDNS(t, zone{})
	s := newServer(t, dns.config())
	for what, sent := range map[string][]byte{
		"no header":  {0, 3, 1, 2, 3},
		"empty":      {0, 0},
		"too long":   {0xff, 0xff},
		"an answer":  append([]byte{0, 12}, 0, 1, responseBit, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		"half":       {0, 20, 1, 2},
		"length cut": {7},
	} {
		peer, done := open(t, s, "dns", "")
		if _, err := peer.Write(sent); err != nil {
			t.Fatal(err)
		}
		if what == "half" || what == "length cut" {
			peer.(*net.TCPConn).CloseWrite()
		}
		if n, err := peer.Read(make([]byte, 1)); n != 0 || err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: read %d, %v", what, n, err)
		}
		<-done
	}
	if _, n := dns.count(); n != 0 {
		t.Errorf("%d queries were passed on", n)
	}
}

// Who does not take his answers loses the flow, not the exit's memory.
func TestDNSFlowIsNotRead(t *testing.T) {
	s := newServer(t, Config{})
	synctest.Test(t, func(t *testing.T) {
		peer, flow := net.Pipe() // no buffer: an answer waits for its reader
		began, done := time.Now(), make(chan struct{})
		go func() {
			defer close(done)
			s.Handle(t.Context(), pipeRequest{flow})
		}()
		if err := writeFramed(peer, queryFor(t, 1, "blog.nostr")); err != nil {
			t.Fatal(err)
		}
		<-done
		if took := time.Since(began); took != answerTimeout || len(s.queries) != 0 {
			t.Errorf("ended after %v with %d queries in flight", took, len(s.queries))
		}
	})
}

// pipeRequest is a dns request whose flow is given.
type pipeRequest struct{ net.Conn }

func (pipeRequest) Network() string             { return "dns" }
func (pipeRequest) Address() string             { return "" }
func (r pipeRequest) Accept() (net.Conn, error) { return r.Conn, nil }
func (pipeRequest) Reject(error)                {}
