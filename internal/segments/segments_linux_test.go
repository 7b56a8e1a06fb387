package segments_test

import (
	"context"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/segments"
)

// Both ends of a connection that was dialed in such a context send small
// segments, and of another one large.
func TestControl(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, small := range []bool{false, true} {
			ctx := t.Context()
			if small {
				ctx = segments.Small(ctx)
			}
			for end, size := range sizes(t, ctx, address) {
				if (size <= segments.Size) != small {
					t.Errorf("%s, small %v: the %s sends segments of %d bytes", address, small, end, size)
				}
			}
		}
	}
}

// sizes are those of the segments that the ends of a new connection send.
func sizes(t *testing.T, ctx context.Context, address string) map[string]int {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip("this machine has no such address:", err)
	}
	defer l.Close()
	d := net.Dialer{ControlContext: segments.Control}
	dialed, err := d.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	return map[string]int{"client": segmentSize(t, dialed), "server": segmentSize(t, accepted)}
}

func segmentSize(t *testing.T, c net.Conn) (size int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) {
		size, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return size
}

func TestOtherSockets(t *testing.T) {
	d := net.Dialer{ControlContext: segments.Control}
	c, err := d.DialContext(segments.Small(t.Context()), "udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
