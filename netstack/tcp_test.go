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
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/tun"
)

func TestForwardCarriesBothWaysWithHalfClose(t *testing.T) {
	for _, to := range []netip.AddrPort{server4, server6} {
		t.Run(to.String(), func(t *testing.T) {
			dialer, servers := loopback(t)
			var dialled string
			w := newWorld(t, Forward(dialerFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
				dialled = network + " " + address
				return dialer.DialContext(ctx, network, address)
			}), ForwardOptions{}), Options{})
			app := w.mustDial(t, to)
			server := take(t, servers)
			defer server.Close()
			if want := "tcp " + to.String(); dialled != want {
				t.Errorf("dialled %q, want %q", dialled, want)
			}
			request, answer := make([]byte, 3<<20), make([]byte, 5<<20)
			rand.Read(request)
			rand.Read(answer)
			go func() {
				app.Write(request)
				app.CloseWrite()
			}()
			if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, request) {
				t.Fatalf("request: %d bytes, %v", len(got), err)
			}
			go func() {
				server.Write(answer)
				server.Close()
			}()
			if got, err := io.ReadAll(app); err != nil || !bytes.Equal(got, answer) {
				t.Fatalf("answer: %d bytes, %v", len(got), err)
			}
			app.Close()
			await.That(t, "the flow is gone", func() bool { return w.stack.Stats().TCPOpen == 0 })
			s := w.stack.Stats()
			if s.FromPrograms != uint64(len(request)) || s.ToPrograms != uint64(len(answer)) || s.TCPAccepted != 1 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// plainDevice is one that cannot cut packets, as on other systems than Linux.
type plainDevice struct {
	tun.Device
	t *testing.T
}

func (plainDevice) Offload() bool { return false }

func (d plainDevice) WritePacket(h tun.Header, bufs [][]byte) error {
	if h != (tun.Header{}) {
		d.t.Errorf("the stack asks for %+v", h)
	}
	return d.Device.WritePacket(h, bufs) // refuses what is longer than the MTU
}

func TestDeviceWithoutOffload(t *testing.T) {
	inside, outside := tun.Pipe(1400)
	s, err := New(plainDevice{inside, t}, acceptAll(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := &world{stack: s, machine: newMachine(t, plainDevice{outside, t})}
	for _, to := range []netip.AddrPort{server4, server6} {
		app := w.mustDial(t, to)
		sent := make([]byte, 1<<20)
		rand.Read(sent)
		go func() {
			app.Write(sent)
			app.CloseWrite()
		}()
		if got, err := io.ReadAll(app); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: %d bytes came back, %v", to, len(got), err)
		}
	}
	if s := s.Stats(); s.PacketsDropped > 0 {
		t.Errorf("%d packets were dropped", s.PacketsDropped)
	}
}

func TestRejectedConnectionsAreRefused(t *testing.T) {
	for name, handle := range map[string]func(context.Context, *TCPRequest){
		"refused":     func(_ context.Context, r *TCPRequest) { r.Reject(syscall.ECONNREFUSED) },
		"other error": func(_ context.Context, r *TCPRequest) { r.Reject(errTest) },
		"nil":         func(_ context.Context, r *TCPRequest) { r.Reject(nil) },
		"no answer":   func(context.Context, *TCPRequest) {},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, handlerFuncs{tcp: handle}, Options{})
			for _, to := range []netip.AddrPort{server4, server6} {
				if _, err := w.dial(to); err == nil || !strings.Contains(err.Error(), "refused") {
					t.Errorf("dial %s: %v, want refused", to, err)
				}
			}
			await.That(t, "both are counted", func() bool { return w.stack.Stats().TCPRejected == 2 })
		})
	}
}

func TestForwardRejectsWithTheDialersError(t *testing.T) {
	w := newWorld(t, Forward(dialerFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done() // an exit that says nothing
		return nil, ctx.Err()
	}), ForwardOptions{DialTimeout: time.Millisecond}), Options{})
	if _, err := w.dial(server4); err == nil || !strings.Contains(err.Error(), "no route") {
		t.Errorf("dial: %v, want unreachable", err)
	}
}

func TestOnlyTheFirstAnswerCounts(t *testing.T) {
	second := make(chan error, 1)
	w := newWorld(t, handlerFuncs{tcp: func(_ context.Context, r *TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		r.Reject(syscall.ECONNREFUSED)
		_, err = r.Accept()
		second <- err
		c.Write([]byte("still here"))
	}}, Options{})
	app := w.mustDial(t, server4)
	if got, err := io.ReadAll(app); err != nil || string(got) != "still here" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := take(t, second); err == nil {
		t.Error("the second Accept succeeded")
	}
}

func TestResetOfTheProgramReachesTheServer(t *testing.T) {
	dialer, servers := loopback(t)
	w := newWorld(t, Forward(dialer, ForwardOptions{}), Options{})
	app := w.mustDial(t, server4)
	server := take(t, servers)
	defer server.Close()
	exchange(t, app, server)
	w.abort()
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("server reads %v, want a reset", err)
	}
}

func TestResetOfTheServerReachesTheProgram(t *testing.T) {
	dialer, servers := loopback(t)
	w := newWorld(t, Forward(dialer, ForwardOptions{}), Options{})
	app := w.mustDial(t, server4)
	server := take(t, servers)
	exchange(t, app, server)
	server.SetLinger(0)
	server.Close()
	if _, err := app.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("program reads %v, want a reset", err)
	}
}

func exchange(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, c := range [][2]net.Conn{{a, b}, {b, a}} {
		buf := make([]byte, 4)
		if _, err := c[0].Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c[1], buf); err != nil {
			t.Fatal(err)
		}
	}
}

// stuckConn never takes and never sends anything.
type stuckConn struct {
	net.Conn
	writing chan struct{}
	end     chan struct{}
	once    sync.Once
}

func newStuckConn() *stuckConn {
	return &stuckConn{writing: make(chan struct{}, 1), end: make(chan struct{})}
}

func (c *stuckConn) Read([]byte) (int, error) { <-c.end; return 0, net.ErrClosed }
func (c *stuckConn) Write([]byte) (int, error) {
	c.writing <- struct{}{}
	<-c.end
	return 0, net.ErrClosed
}
func (c *stuckConn) CloseWrite() error { return nil }
func (c *stuckConn) Close() error      { c.once.Do(func() { close(c.end) }); return nil }
func (c *stuckConn) Abort(error)       { c.Close() }

// waitingForTheServer is a world with a flow whose server has stopped to read.
func waitingForTheServer(t *testing.T) (w *world, app net.Conn, remote *stuckConn) {
	t.Helper()
	remote = newStuckConn()
	w = newWorld(t, Forward(dialerFunc(func(context.Context, string, string) (net.Conn, error) {
		return remote, nil
	}), ForwardOptions{}), Options{})
	app = w.mustDial(t, server4)
	app.Write([]byte("upload"))
	take(t, remote.writing)
	return w, app, remote
}

func TestLostProgramEndsAFlowThatWaitsForTheServer(t *testing.T) {
	w, _, remote := waitingForTheServer(t)
	w.abort()
	take(t, remote.end)
	await.That(t, "the flow is gone", func() bool { return w.stack.Stats().TCPOpen == 0 })
}

func TestStackCloseEndsAFlowThatWaitsForTheServer(t *testing.T) {
	w, app, remote := waitingForTheServer(t)
	w.stack.Close()
	take(t, remote.end)
	if _, err := app.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("program reads %v, want a reset", err)
	}
}

func TestPendingConnectionsAreBounded(t *testing.T) {
	const most, dials = 2, 5
	goOn := make(chan struct{})
	w := newWorld(t, handlerFuncs{tcp: func(_ context.Context, r *TCPRequest) {
		<-goOn
		r.Reject(syscall.ECONNREFUSED)
	}}, Options{MaxPending: most})
	errs := make(chan error, dials)
	for range dials {
		go func() { _, err := w.dial(server4); errs <- err }()
	}
	// What is beyond the limit is dropped and comes again.
	await.That(t, "SYNs are dropped", func() bool { return w.stack.Stats().PacketsDropped >= dials-most })
	if s := w.stack.Stats(); s.TCPPending != most {
		t.Errorf("%d pending, want %d", s.TCPPending, most)
	}
	close(goOn)
	for range dials {
		if err := take(t, errs); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("dial: %v, want refused", err)
		}
	}
}

func TestFlowsAreBounded(t *testing.T) {
	h, conns := accepting(t)
	w := newWorld(t, h, Options{MaxTCPFlows: 2})
	app := w.mustDial(t, server4)
	first := take(t, conns)
	w.mustDial(t, server6)
	take(t, conns)
	if _, err := w.dial(server4); err == nil {
		t.Fatal("a third connection was accepted")
	}
	first.Close()
	app.Close()
	await.That(t, "there is room again", func() bool { return w.stack.Stats().TCPOpen == 1 })
	w.mustDial(t, server4)
}

// A flow counts until gVisor is done with it: what has been written is still
// in its memory after Close.
func TestFlowCountsWhileItsDataIsUndelivered(t *testing.T) {
	h, conns := accepting(t)
	w := newWorld(t, h, Options{})
	app := w.mustDial(t, server4)
	c := take(t, conns)
	sent := make([]byte, 64<<10)
	rand.Read(sent)
	// More than the program's kernel takes while the program does not read.
	total := 0
	c.SetWriteDeadline(time.Now().Add(time.Second / 4))
	for {
		n, err := c.Write(sent)
		total += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if s := w.stack.Stats(); s.TCPOpen != 1 {
		t.Errorf("%d flows open after Close, want 1", s.TCPOpen)
	}
	if n, err := io.Copy(io.Discard, app); err != nil || n != int64(total) {
		t.Errorf("program read %d bytes of %d, %v", n, total, err)
	}
	app.Close()
	await.That(t, "the flow is gone", func() bool { return w.stack.Stats().TCPOpen == 0 })
}

func TestCloseWhileConnecting(t *testing.T) {
	asked := make(chan struct{}, 8)
	w := newWorld(t, Forward(dialerFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}), ForwardOptions{}), Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.dial(server4)
	}()
	take(t, asked)
	w.stack.Close() // must not wait for the dial's own timeout
	w.abort()
	take(t, done)
}
