package exit

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// echoUDP sends every datagram back.
func echoUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(buf[:n], from)
		}
	})
	t.Cleanup(func() { c.Close(); wait.Wait() })
	return c.LocalAddr().String()
}

func TestDatagramsKeepTheirBoundaries(t *testing.T) {
	s := newServer(t, Config{})
	peer, done := open(t, s, "udp", echoUDP(t))
	buf := make([]byte, maxDatagram)
	total := int64(0)
	for _, size := range []int{1, 0, 1200, 9000, 65507, 2} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := peer.Write(sent); err != nil {
			t.Fatal(err)
		}
		n, err := peer.Read(buf)
		if err != nil || !bytes.Equal(buf[:n], sent) {
			t.Fatalf("%d bytes came back as %d, %v", size, n, err)
		}
		total += int64(size)
	}
	// One that no UDP socket takes is lost, and nothing else.
	if _, err := peer.Write(make([]byte, 65508)); err != nil {
		t.Fatal(err)
	}
	peer.Write([]byte("after"))
	if n, err := peer.Read(buf); err != nil || string(buf[:n]) != "after" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	peer.Close()
	<-done
	if st := s.Stats(); st.UDPFlows != 1 || st.BytesSent != total+5 || st.BytesReceived != total+5 {
		t.Errorf("stats %+v", st)
	}
}

// Pipes take the place of sockets, as these do not know the test's time.
func TestIdleDatagramFlowsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, in := net.Pipe()
		out, world := net.Pipe()
		began, ended := time.Now(), time.Time{}
		go func() {
			relayDatagrams(in, out, patience{time.Minute, time.Minute})
			ended = time.Now()
		}()
		buf := make([]byte, 10)
		for i := range 10 {
			time.Sleep(50 * time.Second)
			from, to := client, world
			if i%2 == 1 { // either direction keeps it open
				from, to = world, client
			}
			if _, err := from.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := to.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []net.Conn{client, world} {
			if _, err := c.Read(buf); err != io.EOF {
				t.Errorf("after the idle time: %v, want EOF", err)
			}
		}
		synctest.Wait()
		if want := began.Add(500*time.Second + time.Minute); !ended.Equal(want) {
			t.Errorf("ended at %v, want %v", ended, want)
		}
	})
}

// A flow whose destination never answers ends sooner.
func TestUnansweredDatagramFlowsEndSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, answer := range []bool{false, true} {
			client, in := net.Pipe()
			out, world := net.Pipe()
			began, ended := time.Now(), make(chan time.Time, 1)
			go func() {
				relayDatagrams(in, out, patience{answered: 5 * time.Minute, unanswered: time.Minute})
				ended <- time.Now()
			}()
			buf := make([]byte, 10)
			time.Sleep(50 * time.Second)
			client.Write([]byte("x"))
			world.Read(buf)
			want := began.Add(50*time.Second + time.Minute)
			if answer {
				world.Write([]byte("y"))
				client.Read(buf)
				want = began.Add(50*time.Second + 5*time.Minute)
			}
			if got := <-ended; !got.Equal(want) {
				t.Errorf("answered %v: ended after %v, want %v", answer, got.Sub(began), want.Sub(began))
			}
		}
	})
}

func TestIdleDatagramFlowsHoldNoBuffers(t *testing.T) {
	const flows = 100
	s := newServer(t, Config{})
	to := echoUDP(t)
	var peers []*stub
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range flows {
		r := newRequest(t, "udp", to)
		peer := newStub()
		r.flow = peer
		handle(t, s, r)
		peer.toServer <- []byte("x")
		if got := <-peer.fromServer; string(got) != "x" {
			t.Fatalf("read %q", got)
		}
		peers = append(peers, peer)
	}
	runtime.GC()
	runtime.GC() // the second empties what the pool kept through the first
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > flows*maxDatagram/4 {
		t.Errorf("%d idle flows hold %d bytes: buffers are kept while idle", flows, grown)
	}
	for _, p := range peers {
		p.Close()
	}
}

// stub is a flow of a session: it writes itself, one datagram at a time.
type stub struct {
	net.Conn
	toServer, fromServer chan []byte
	closed               chan struct{}
	once                 sync.Once
}

func newStub() *stub {
	return &stub{toServer: make(chan []byte), fromServer: make(chan []byte), closed: make(chan struct{})}
}

func (s *stub) Close() error { s.once.Do(func() { close(s.closed) }); return nil }

func (s *stub) Write(p []byte) (int, error) {
	select {
	case s.fromServer <- bytes.Clone(p):
		return len(p), nil
	case <-s.closed:
		return 0, net.ErrClosed
	}
}

func (s *stub) WriteTo(w io.Writer) (int64, error) {
	for {
		select {
		case p := <-s.toServer:
			if _, err := w.Write(p); err != nil {
				return 0, err
			}
		case <-s.closed:
			return 0, net.ErrClosed
		}
	}
}

// abortable records how it was aborted.
type abortable struct {
	net.Conn
	aborted chan error
}

func (a *abortable) Abort(err error) {
	a.aborted <- err
	a.Conn.Close()
}

func TestPortUnreachableEndsADatagramFlow(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := c.LocalAddr().String()
	c.Close() // nobody there now
	s := newServer(t, Config{})
	r := newRequest(t, "udp", to)
	flow := &abortable{r.flow, make(chan error, 1)}
	r.flow = flow
	done := handle(t, s, r)
	<-r.accepted
	if _, err := r.peer.Write([]byte("anybody?")); err != nil {
		t.Fatal(err)
	}
	if err := <-flow.aborted; !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the flow ends with %v, want ECONNREFUSED", err)
	}
	<-done
}
