package exit

import (
	"bytes"
	"errors"
	"io"
	"net"
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
			relayDatagrams(in, out, time.Minute)
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
