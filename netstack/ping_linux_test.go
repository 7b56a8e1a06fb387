package netstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

// pingSocket opens a socket for echoes to one address, as ping does. The kernel
// puts in the identifier and the checksum, and says what it hears of errors.
func (w *kernelWorld) pingSocket(t *testing.T, to netip.Addr) net.Conn {
	t.Helper()
	if err := w.host.Sysctl("net/ipv4/ping_group_range", "0 0"); err != nil {
		t.Fatal(err)
	}
	var file *os.File
	err := w.host.Do(func() error {
		family, protocol, level, option := unix.AF_INET, unix.IPPROTO_ICMP, unix.IPPROTO_IP, unix.IP_RECVERR
		if to.Is6() {
			family, protocol, level, option = unix.AF_INET6, unix.IPPROTO_ICMPV6, unix.IPPROTO_IPV6, unix.IPV6_RECVERR
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "ping")
		return errors.Join(unix.SetsockoptInt(fd, level, option, 1), unix.Connect(fd, netlab.Sockaddr(netip.AddrPortFrom(to, 0))))
	})
	if file != nil {
		defer file.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// request is an echo request as a ping socket takes it.
func request(to netip.Addr, sequence uint16, payload []byte) []byte {
	m := make([]byte, 8, 8+len(payload))
	m[0] = 8
	if to.Is6() {
		m[0] = 128
	}
	binary.BigEndian.PutUint16(m[6:], sequence)
	return append(m, payload...)
}

func TestKernelPingIsAnswered(t *testing.T) {
	w := newKernelWorld(t, handlerFuncs{ping: pingEcho}, Options{})
	for _, to := range []netip.Addr{server4.Addr(), server6.Addr()} {
		c := w.pingSocket(t, to)
		// The larger ones are fragmented, on both ways.
		for i, size := range []int{0, 1, 56, 1473, 3000, 40000} {
			payload := make([]byte, size)
			rand.Read(payload)
			if _, err := c.Write(request(to, uint16(i), payload)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 1<<16)
			n, err := c.Read(got)
			if err != nil {
				t.Fatalf("%s: echo of %d bytes: %v", to, size, err)
			}
			if sequence := binary.BigEndian.Uint16(got[6:]); int(sequence) != i || !bytes.Equal(got[8:n], payload) {
				t.Errorf("%s: echo %d of %d bytes came back as %d of %d", to, i, size, sequence, n-8)
			}
		}
	}
	if s := w.stack.Stats(); s.PingAccepted != 2 || s.PingOpen != 2 {
		t.Errorf("stats %+v, want two flows", s)
	}
}

func TestKernelPingGetsTheRightErrno(t *testing.T) {
	for name, dialer := range map[string]func(*atomic.Pointer[error]) Dialer{"at once": failing, "later": late} {
		t.Run(name, func(t *testing.T) {
			var dialError atomic.Pointer[error]
			w := newKernelWorld(t, Forward(dialer(&dialError), ForwardOptions{}), Options{})
			for _, test := range pingErrnos {
				dialError.Store(&test.err)
				w.expectPingErrno(t, server4.Addr(), test.err, test.v4)
				w.expectPingErrno(t, server6.Addr(), test.err, test.v6)
			}
		})
	}
}

// What a ping socket gets for each error of the dialer.
var pingErrnos = []struct {
	err    error
	v4, v6 syscall.Errno
}{
	{syscall.EHOSTUNREACH, syscall.EHOSTUNREACH, syscall.EHOSTUNREACH},
	{syscall.ENETUNREACH, syscall.ENETUNREACH, syscall.ENETUNREACH},
	{syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.EHOSTUNREACH},
	{syscall.EACCES, syscall.EHOSTUNREACH, syscall.EACCES},
	{syscall.EOPNOTSUPP, syscall.EHOSTUNREACH, syscall.EACCES},
	{syscall.ECONNREFUSED, syscall.ECONNREFUSED, syscall.ECONNREFUSED},
}

func (w *kernelWorld) expectPingErrno(t *testing.T, to netip.Addr, dialError error, want syscall.Errno) {
	t.Helper()
	c := w.pingSocket(t, to)
	if _, err := c.Write(request(to, 1, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 100)); !errors.Is(err, want) {
		t.Errorf("%v: ping of %s gets %v, want %v", dialError, to, err, want)
	}
}

// Nobody answers for a host that has not answered.
func TestKernelPingOfNobodyIsSilent(t *testing.T) {
	w := newKernelWorld(t, handlerFuncs{ping: func(ctx context.Context, c *PingConn) { <-ctx.Done() }}, Options{})
	for _, to := range []netip.Addr{server4.Addr(), server6.Addr()} {
		c := w.pingSocket(t, to)
		if _, err := c.Write(request(to, 1, nil)); err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := c.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d bytes, %v, want silence", to, n, err)
		}
	}
}

// The machine's own addresses are the kernel's, in both directions.
func TestKernelAnswersForItself(t *testing.T) {
	w := newKernelWorld(t, handlerFuncs{ping: func(_ context.Context, c *PingConn) { c.Reject(syscall.EACCES) }}, Options{})
	for _, to := range []netip.Addr{program4, program6} {
		c := w.pingSocket(t, to)
		if _, err := c.Write(request(to, 1, []byte("me"))); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 100)); err != nil || n != 10 {
			t.Errorf("%s: %d bytes, %v, want an answer", to, n, err)
		}
	}
}

func TestPingProgram(t *testing.T) {
	ping, err := exec.LookPath("ping")
	if err != nil {
		t.Skip("needs the program ping")
	}
	w := newKernelWorld(t, handlerFuncs{ping: func(_ context.Context, c *PingConn) {
		if c.Destination() == server4.Addr() || c.Destination() == server6.Addr() {
			c.WriteTo(c)
		}
		c.Reject(syscall.EACCES)
	}}, Options{})
	for _, test := range []struct {
		args, want string
	}{
		{"-c 3 -i 0.01 " + server4.Addr().String(), "3 received"},
		{"-c 3 -i 0.01 " + server6.Addr().String(), "3 received"},
		{"-c 2 -i 0.01 -s 3000 " + server4.Addr().String(), "3008 bytes from"},
		{"-c 2 -i 0.01 -s 3000 " + server6.Addr().String(), "3008 bytes from"},
		{"-c 1 -W 5 203.0.113.7", "icmp_seq=1 Packet filtered"},
		{"-c 1 -W 5 2001:db8::7", "icmp_seq=1 Destination unreachable: Administratively prohibited"},
	} {
		result, err := w.host.Run(t.Context(), netlab.CommandOptions{}, ping, append([]string{"-n"}, strings.Fields(test.args)...)...)
		if err != nil || !strings.Contains(result.Output, test.want) {
			t.Errorf("ping %s: %v, want %q in\n%s", test.args, err, test.want, result.Output)
		}
	}
}

func TestKernelUDPSocketLearnsTheLongestDatagram(t *testing.T) {
	const limit = 1300
	for _, to := range []netip.AddrPort{server4, server6} {
		t.Run(fmt.Sprint(to), func(t *testing.T) {
			h, far := forwardTo(limit)
			far.SetDeadline(time.Now().Add(patience))
			w := newKernelWorld(t, h, Options{})
			c := w.dial(t, "udp", to.String())
			c.Write(make([]byte, limit+1))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.EMSGSIZE) {
				t.Fatalf("after a datagram that is too large: %v, want EMSGSIZE", err)
			}
			if mtu, err := w.pathMTU(c, to); err != nil || mtu-headersOf(to) != limit {
				t.Errorf("the socket takes the path for one of %d bytes with headers, %v", mtu, err)
			}
			if _, err := c.Write(make([]byte, limit)); err != nil {
				t.Error(err)
			}
			if n, err := far.Read(make([]byte, 2000)); err != nil || n != limit {
				t.Errorf("%d bytes came through, %v", n, err)
			}
		})
	}
}

func headersOf(to netip.AddrPort) int {
	if to.Addr().Is4() {
		return 28
	}
	return 48
}

// pathMTU asks the kernel what it knows.
func (w *kernelWorld) pathMTU(c net.Conn, to netip.AddrPort) (mtu int, err error) {
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if to.Addr().Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) { mtu, err = unix.GetsockoptInt(int(fd), level, option) })
	return mtu, errors.Join(cerr, err)
}
