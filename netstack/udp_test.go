package netstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
)

// udpEcho sends each datagram back, until the flow ends.
func udpEcho(_ context.Context, c *UDPConn) {
	buf := make([]byte, maxDatagram)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestDatagramsKeepTheirBoundaries(t *testing.T) {
	for _, to := range []netip.AddrPort{server4, server6} {
		t.Run(to.String(), func(t *testing.T) {
			w := newWorld(t, handlerFuncs{udp: udpEcho}, Options{})
			app := w.dialUDP(t, to)
			// The larger ones are fragmented, on both ways.
			for _, size := range []int{1, 0, 1200, 1473, 9000, maxDatagram - 40} {
				sent := make([]byte, size)
				rand.Read(sent)
				if _, err := app.Write(sent); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, maxDatagram)
				n, err := app.Read(got)
				if err != nil {
					t.Fatalf("datagram of %d bytes: %v", size, err)
				}
				if !bytes.Equal(got[:n], sent) {
					t.Errorf("datagram of %d bytes came back with %d", size, n)
				}
			}
			if s := w.stack.Stats(); s.UDPOpen != 1 || s.UDPAccepted != 1 {
				t.Errorf("stats %+v, want one flow", s)
			}
		})
	}
}

func TestForwardCarriesDatagrams(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	dialled := make(chan string, 1)
	w := newWorld(t, Forward(dialerFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled <- network + " " + address
		var d net.Dialer
		return d.DialContext(ctx, network, server.LocalAddr().String())
	}), ForwardOptions{}), Options{UDPIdle: 300 * time.Millisecond})
	app := w.dialUDP(t, server6)
	app.Write([]byte("question"))
	buf := make([]byte, 100)
	n, from, err := server.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "question" {
		t.Fatalf("server got %q, %v", buf[:n], err)
	}
	if got, want := take(t, dialled), "udp "+server6.String(); got != want {
		t.Errorf("dialled %q, want %q", got, want)
	}
	server.WriteTo([]byte("first"), from)
	server.WriteTo([]byte("second"), from)
	for _, want := range []string{"first", "second"} {
		if n, err := app.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("program got %q, %v, want %q", buf[:n], err, want)
		}
	}
	await.That(t, "the idle flow ends", func() bool { return w.stack.Stats().UDPOpen == 0 })
}

// messages is a dialled connection that passes its messages to WriteTo.
type messages struct {
	*stuckConn
	in chan []byte
}

func (m messages) WriteTo(w io.Writer) (int64, error) {
	for {
		select {
		case p := <-m.in:
			if _, err := w.Write(p); err != nil {
				return 0, err
			}
		case <-m.end:
			return 0, net.ErrClosed
		}
	}
}

func (m messages) Write(p []byte) (int, error) {
	if len(p) > 100 {
		return 0, syscall.EMSGSIZE
	}
	m.in <- append([]byte("re: "), p...)
	return len(p), nil
}

func TestForwardOfDatagramsThatAreTooLong(t *testing.T) {
	remote := messages{newStuckConn(), make(chan []byte, 1)}
	w := newWorld(t, Forward(dialerFunc(func(context.Context, string, string) (net.Conn, error) {
		return remote, nil
	}), ForwardOptions{}), Options{})
	app := w.dialUDP(t, server4)
	app.Write(make([]byte, 200)) // lost, but the flow goes on
	app.Write([]byte("short"))
	buf := make([]byte, 100)
	if n, err := app.Read(buf); err != nil || string(buf[:n]) != "re: short" {
		t.Errorf("program got %q, %v", buf[:n], err)
	}
}

// udpAccepting hands each flow to the test and holds it until it is closed.
func udpAccepting() (Handler, chan *UDPConn) {
	conns := make(chan *UDPConn, 64)
	return handlerFuncs{udp: func(_ context.Context, c *UDPConn) {
		conns <- c
		<-c.ctx.Done()
	}}, conns
}

func TestIdleFlowEnds(t *testing.T) {
	h, conns := udpAccepting()
	w := newWorld(t, h, Options{UDPIdle: 50 * time.Millisecond})
	app := w.dialUDP(t, server4)
	app.Write([]byte("x"))
	c := take(t, conns)
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of an idle flow: %v, want closed", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write to it: %v, want closed", err)
	}
	// The program can begin again.
	app.Write([]byte("y"))
	if again := take(t, conns); again == c {
		t.Error("the flow that ended came again")
	}
}

func TestWaitingDatagramsAreBounded(t *testing.T) {
	h, conns := udpAccepting()
	w := newWorld(t, h, Options{})
	app := w.dialUDP(t, server4)
	const size = 1000
	for w.stack.Stats().PacketsDropped == 0 {
		if _, err := app.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	c := take(t, conns)
	if most := maxWaiting / size; len(c.queue) > most || len(c.queue) < most/2 {
		t.Errorf("%d datagrams wait, want up to %d", len(c.queue), most)
	}
	c.Close()
	if n := w.stack.udp.waiting.Load(); n != 0 {
		t.Errorf("%d bytes are counted as waiting after the flow has ended", n)
	}
}

func TestUDPFlowsAreBounded(t *testing.T) {
	h, conns := udpAccepting()
	w := newWorld(t, h, Options{MaxUDPFlows: 2, UDPIdle: time.Second})
	for range 2 {
		w.dialUDP(t, server4).Write([]byte("x"))
	}
	first, second := take(t, conns), take(t, conns)
	third := w.dialUDP(t, server4)
	third.Write([]byte("x"))
	await.That(t, "the third is dropped", func() bool { return w.stack.Stats().PacketsDropped == 1 })
	// Once one has been idle for long, it has to go.
	await.That(t, "a flow is idle", func() bool { return first.idleFor() > 600*time.Millisecond })
	second.touch()
	third.Write([]byte("x"))
	take(t, conns)
	take(t, first.ctx.Done())
}

func TestUDPConnDeadlines(t *testing.T) {
	h, conns := udpAccepting()
	w := newWorld(t, h, Options{})
	w.dialUDP(t, server4).Write([]byte("x"))
	c := take(t, conns)
	c.SetDeadline(time.Now().Add(-time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Write(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
	c.SetDeadline(time.Time{})
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("read without a deadline: %v", err)
	}
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("blocked read: %v", err)
	}
	if _, err := c.Write(make([]byte, maxDatagram+1)); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("write of too much: %v", err)
	}
}
