package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
)

// What a program's connect() returns for each error of the dialer.
var errnos = []struct {
	err    error
	v4, v6 syscall.Errno
}{
	{syscall.ECONNREFUSED, syscall.ECONNREFUSED, syscall.ECONNREFUSED},
	{syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.ECONNREFUSED},
	{errTest, syscall.ECONNREFUSED, syscall.ECONNREFUSED},
	{syscall.EHOSTUNREACH, syscall.EHOSTUNREACH, syscall.EHOSTUNREACH},
	{syscall.ENETUNREACH, syscall.ENETUNREACH, syscall.ENETUNREACH},
	{syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.EHOSTUNREACH},
	{context.DeadlineExceeded, syscall.EHOSTUNREACH, syscall.EHOSTUNREACH},
	{fmt.Errorf("wrapped: %w", syscall.EACCES), syscall.EHOSTUNREACH, syscall.EACCES},
}

// failing is a dialer that returns what it is told.
func failing(err *atomic.Pointer[error]) Dialer {
	return dialerFunc(func(context.Context, string, string) (net.Conn, error) { return nil, *err.Load() })
}

func TestKernelConnectGetsTheRightErrno(t *testing.T) {
	var dialError atomic.Pointer[error]
	w := newKernelWorld(t, Forward(failing(&dialError), ForwardOptions{}), Options{})
	for _, test := range errnos {
		dialError.Store(&test.err)
		if err := w.connect(server4); err != test.v4 {
			t.Errorf("%v: connect over IPv4 gives %v, want %v", test.err, err, test.v4)
		}
		if err := w.connect(server6); err != test.v6 {
			t.Errorf("%v: connect over IPv6 gives %v, want %v", test.err, err, test.v6)
		}
	}
	// Refused at the first SYN, unless the machine was very busy.
	if n := w.netstat(t, "TCPSynRetrans"); n > len(errnos)/2 {
		t.Errorf("%d SYNs of %d were repeated", n, 2*len(errnos))
	}
}

// late is a dialer whose connections take what is sent, and then fail as failing
// does: so does a link that asks for a flow with its first datagram.
func late(err *atomic.Pointer[error]) Dialer {
	return dialerFunc(func(context.Context, string, string) (net.Conn, error) {
		return &lateConn{err: *err.Load(), sent: make(chan struct{}, 10), closed: make(chan struct{})}, nil
	})
}

type lateConn struct {
	net.Conn
	err    error
	sent   chan struct{}
	closed chan struct{}
}

func (c *lateConn) Close() error { close(c.closed); return nil }

func (c *lateConn) Write(p []byte) (int, error) { c.sent <- struct{}{}; return len(p), nil }

func (c *lateConn) Read([]byte) (int, error) {
	select {
	case <-c.sent:
		return 0, c.err
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func TestKernelUDPSocketGetsTheRightErrno(t *testing.T) {
	for name, dialer := range map[string]func(*atomic.Pointer[error]) Dialer{"at once": failing, "later": late} {
		t.Run(name, func(t *testing.T) {
			var dialError atomic.Pointer[error]
			w := newKernelWorld(t, Forward(dialer(&dialError), ForwardOptions{}), Options{})
			for _, test := range errnos {
				// Later, these are no refusals: the flow ends, as any does.
				if name == "later" && (errors.Is(test.err, errTest) || errors.Is(test.err, syscall.ECONNRESET)) {
					continue
				}
				dialError.Store(&test.err)
				for _, to := range []netip.AddrPort{server4, server6} {
					w.expectUDPErrno(t, to, test.err, test.v4, test.v6)
				}
			}
		})
	}
}

func (w *kernelWorld) expectUDPErrno(t *testing.T, to netip.AddrPort, dialError error, v4, v6 syscall.Errno) {
	t.Helper()
	want := syscall.ECONNREFUSED
	if errors.Is(dialError, syscall.EACCES) {
		want = v6
		if to == server4 {
			want = v4
		}
	}
	c := w.dial(t, "udp", to.String())
	c.Write([]byte("question"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, want) {
		t.Errorf("%v: socket to %s gets %v, want %v", dialError, to, err, want)
	}
}

func TestKernelUDPSocketGetsALateRefusal(t *testing.T) {
	w := newKernelWorld(t, Forward(dialerFunc(func(ctx context.Context, network, _ string) (net.Conn, error) {
		closed, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		closed.Close()
		var d net.Dialer
		return d.DialContext(ctx, network, closed.LocalAddr().String())
	}), ForwardOptions{}), Options{})
	c := w.dial(t, "udp", server4.String())
	c.Write([]byte("question"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("socket gets %v, want refused", err)
	}
}
