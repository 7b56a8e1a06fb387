package exit

import (
	"context"
	"net"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	for _, day := range []int64{0, 1 << 40} { // also without a quota
		testReport(t, Limits{Day: day, Clients: 3})
	}
}

func testReport(t *testing.T, l Limits) {
	t.Helper()
	a, clock := testAccounts(l)
	for n := byte(1); n <= 5; n++ {
		c, err := a.open(client{key: [32]byte{n}, proven: n%2 == 0})
		if err != nil {
			t.Fatal(err)
		}
		c.sent.Add(int64(n))
		c.received.Add(10 * int64(n))
		c.spent.Add(11 * int64(n))
		c.refusedFor(ReasonPolicy)
		if n != 4 {
			c.close()
		}
	}
	clock.now = clock.now.Add(time.Second)
	r := a.report(2)
	if r.Known != 3 || r.Active != 1 || r.Sent != 15 || r.Received != 150 || len(r.Clients) != 2 {
		t.Fatalf("%+v", r)
	}
	c := r.Clients[1]
	if s := r.Clients[0]; s.Key != [32]byte{5} || s.Proven || s.Day != 55 || s.Month != 55 {
		t.Errorf("a stranger: %+v", s)
	}
	if c.Key != [32]byte{4} || !c.Proven || c.Flows != 1 || c.Opened != 1 || c.Sent != 4 ||
		c.Received != 40 || c.Day != 44 || c.Month != 44 || c.Refused[ReasonPolicy] != 1 {
		t.Errorf("%+v", r.Clients)
	}
	if r := a.report(-1); r.Known != 3 || r.Clients != nil {
		t.Errorf("of nobody: %+v", r)
	}
}

// leak check 52: a client that does not read holds no memory, and its flow no more
// than the buffers of its sockets
func TestSlowReader(t *testing.T) {
	l := listenTCP(t, "127.0.0.1")
	sent := make(chan int, 1)
	full := make(chan struct{})
	go func() {
		c, err := l.Accept()
		if err != nil {
			sent <- 0
			return
		}
		defer c.Close()
		total, block := 0, make([]byte, 64<<10)
		c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		for {
			n, err := c.Write(block)
			if total += n; err != nil {
				close(full)
				sent <- total
				return
			}
		}
	}()
	s := newServer(t, Config{})
	r := newRequest(t, "tcp", l.Addr().String())
	r.flow.Close()
	r.peer, r.flow = net.Pipe() // which holds nothing by itself
	done := handle(t, s, r)
	<-r.accepted
	<-full
	if n := <-sent; n == 0 || n > 32<<20 {
		t.Errorf("%d bytes were taken for a client that reads nothing", n)
	}
	r.peer.Close()
	<-done
}

func TestSitesChange(t *testing.T) {
	to, _ := echoTCP(t, "127.0.0.1")
	target, err := ParseTarget(to)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Config{})
	if err := s.SetSite(Site{Key: [32]byte{1}, Services: map[uint16]Target{80: {Network: "tcp", TLS: true}}}); err == nil {
		t.Error("a service over TLS without a certificate")
	}
	r := newRequest(t, "tcp", to)
	s.HandleFor(context.Background(), [32]byte{1}, r)
	if err := <-r.rejected; reasonOf(err) != ReasonOtherExit {
		t.Errorf("a name that is not there: %v", err)
	}
	if err := s.SetSite(Site{Key: [32]byte{1}, Services: map[uint16]Target{80: target}}); err != nil {
		t.Fatal(err)
	}
	first := (*s.sites.Load())[[32]byte{1}].services[80]
	if err := s.SetSite(Site{Key: [32]byte{1}, Services: map[uint16]Target{80: target, 81: target}}); err != nil {
		t.Fatal(err)
	}
	if now := (*s.sites.Load())[[32]byte{1}].services; now[80] != first || len(now) != 2 {
		t.Error("a service that has not changed is made anew")
	}
}
