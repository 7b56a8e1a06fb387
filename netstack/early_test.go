package netstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/await"
)

// early is an EarlyDialer over sockets. A connection that is dialled early has
// its first bytes written by the time that its other end comes out of servers.
type early struct {
	Dialer
	servers chan *net.TCPConn
	firsts  chan []byte
	refuse  func(net.Conn) (net.Conn, error) // or nil
}

func newEarly(t *testing.T) *early {
	d, servers := loopback(t)
	return &early{Dialer: d, servers: servers, firsts: make(chan []byte, 10)}
}

func (d *early) DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error) {
	d.firsts <- bytes.Clone(first)
	c, err := d.DialContext(ctx, network, address)
	if err == nil {
		_, err = c.Write(first)
	}
	if err == nil && d.refuse != nil {
		return d.refuse(c)
	}
	return c, err
}

// earlyWorld forwards by d, early on server4's and server6's port.
func earlyWorld(t *testing.T, d Dialer, wait time.Duration) *world {
	return newWorld(t, Forward(d, ForwardOptions{EarlyPorts: []uint16{server4.Port()}, EarlyWait: wait}), Options{})
}

func TestFirstBytesGoWithTheDial(t *testing.T) {
	for _, to := range []netip.AddrPort{server4, server6} {
		d := newEarly(t)
		w := earlyWorld(t, d, patience)
		app := w.mustDial(t, to) // connected, and nobody has been dialled
		if len(d.firsts) > 0 {
			t.Error("dialled before there was anything to send")
		}
		app.Write([]byte("GET /"))
		if first := take(t, d.firsts); string(first) != "GET /" {
			t.Errorf("dialled with %q", first)
		}
		server := take(t, d.servers)
		app.Write([]byte(" HTTP/1.0"))
		app.CloseWrite()
		if got, err := io.ReadAll(server); err != nil || string(got) != "GET / HTTP/1.0" {
			t.Errorf("server reads %q, %v", got, err)
		}
		server.Write([]byte("200"))
		server.Close()
		if got, err := io.ReadAll(app); err != nil || string(got) != "200" {
			t.Errorf("program reads %q, %v", got, err)
		}
	}
}

func TestServerMaySpeakFirstOnAnEarlyPort(t *testing.T) {
	d := newEarly(t)
	app := earlyWorld(t, d, time.Millisecond).mustDial(t, server4)
	server := take(t, d.servers)
	if first := take(t, d.firsts); len(first) > 0 {
		t.Errorf("dialled with %q", first)
	}
	exchange(t, server, app)
	exchange(t, app, server)
}

func TestOtherPortsAndDialersAreNotEarly(t *testing.T) {
	d := newEarly(t)
	for name, dial := range map[string]func() *world{
		"port":   func() *world { return newWorld(t, Forward(d, ForwardOptions{EarlyPorts: []uint16{443}}), Options{}) },
		"off":    func() *world { return newWorld(t, Forward(d, ForwardOptions{}), Options{}) },
		"dialer": func() *world { return earlyWorld(t, d.Dialer, 0) },
	} {
		app := dial().mustDial(t, server4)
		exchange(t, app, take(t, d.servers))
		if len(d.firsts) > 0 {
			t.Errorf("%s: dialled early", name)
		}
	}
}

// refused is a connection that was never made.
type refused struct{ net.Conn }

func (refused) Read([]byte) (int, error)    { return 0, syscall.ECONNREFUSED }
func (refused) Write(p []byte) (int, error) { return 0, syscall.ECONNREFUSED }

func TestLateRefusalIsAReset(t *testing.T) {
	for name, refuse := range map[string]func(net.Conn) (net.Conn, error){
		"at once": func(c net.Conn) (net.Conn, error) { c.Close(); return nil, errTest },
		"later":   func(c net.Conn) (net.Conn, error) { return refused{c}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			d := newEarly(t)
			d.refuse = refuse
			w := earlyWorld(t, d, patience)
			app := w.mustDial(t, server4)
			app.Write([]byte("GET /"))
			if n, err := app.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("program reads %d bytes, %v, want a reset", n, err)
			}
			await.That(t, "the flow is gone", func() bool { return w.stack.Stats().TCPOpen == 0 })
		})
	}
}

func TestEndInsteadOfFirstBytes(t *testing.T) {
	d := newEarly(t)
	app := earlyWorld(t, d, patience).mustDial(t, server4)
	app.CloseWrite()
	if first := take(t, d.firsts); len(first) > 0 {
		t.Errorf("dialled with %q", first)
	}
	server := take(t, d.servers)
	if n, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("server reads %d bytes, %v, want the end", n, err)
	}
	server.Write([]byte("all the same"))
	server.Close()
	if got, err := io.ReadAll(app); err != nil || string(got) != "all the same" {
		t.Errorf("program reads %q, %v", got, err)
	}
}

func TestNobodyIsDialledForAProgramThatHasGone(t *testing.T) {
	d := newEarly(t)
	w := earlyWorld(t, d, patience)
	w.mustDial(t, server4)
	await.That(t, "the connection is open", func() bool { return w.stack.Stats().TCPOpen == 1 })
	w.abort()
	await.That(t, "the flow is gone", func() bool { return w.stack.Stats().TCPOpen == 0 })
	if len(d.firsts) > 0 {
		t.Error("somebody was dialled")
	}
}

// waiting is an EarlyDialer that has no link yet.
type waiting struct {
	Dialer
	began, ended chan struct{}
}

func (d waiting) DialEarly(ctx context.Context, _, _ string, _ []byte) (net.Conn, error) {
	close(d.began)
	<-ctx.Done()
	close(d.ended)
	return nil, ctx.Err()
}

func TestEarlyDialEndsWithTheProgram(t *testing.T) {
	d := waiting{nil, make(chan struct{}), make(chan struct{})}
	w := newWorld(t, Forward(d, ForwardOptions{EarlyPorts: []uint16{server4.Port()}, DialTimeout: time.Hour}), Options{})
	w.mustDial(t, server4).Write([]byte("GET /"))
	take(t, d.began)
	w.abort()
	take(t, d.ended)
	await.That(t, "the flow is gone", func() bool { return w.stack.Stats().TCPOpen == 0 })
}

func TestLargeFirstWriteArrivesWhole(t *testing.T) {
	d := newEarly(t)
	app := earlyWorld(t, d, patience).mustDial(t, server4)
	sent := make([]byte, 1<<20)
	rand.Read(sent)
	written := make(chan error, 1)
	go func() {
		_, err := app.Write(sent)
		written <- errors.Join(err, app.CloseWrite())
	}()
	if first := take(t, d.firsts); len(first) == 0 || len(first) > maxFirstBytes {
		t.Errorf("dialled with %d bytes, want 1 to %d", len(first), maxFirstBytes)
	}
	got, err := io.ReadAll(take(t, d.servers))
	if err = errors.Join(err, take(t, written)); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("server reads %d bytes of %d, %v", len(got), len(sent), err)
	}
}

func TestCloseEndsTheWaitForFirstBytes(t *testing.T) {
	d := newEarly(t)
	w := earlyWorld(t, d, time.Hour)
	w.mustDial(t, server4)
	await.That(t, "the connection is open", func() bool { return w.stack.Stats().TCPOpen == 1 })
	// The world's cleanup waits for all handlers.
}
