package netstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/await"
	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

// netstat reads a counter of the programs' kernel.
func (w *kernelWorld) netstat(t *testing.T, name string) int {
	t.Helper()
	text, err := w.host.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j := range names {
			if names[j] == name {
				n, err := strconv.Atoi(values[j])
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
	}
	t.Fatalf("the kernel does not count %s", name)
	return 0
}

// greeting serves each connection like an old web server: it says something
// and closes first, which leaves our side in TIME_WAIT.
func greeting() Handler {
	return handlerFuncs{tcp: func(_ context.Context, r *TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Write([]byte("hello"))
		c.CloseWrite()
		io.Copy(io.Discard, c)
	}}
}

func readGreeting(fd int) error {
	buf := make([]byte, 16)
	got := 0
	for {
		n, err := unix.Read(fd, buf[got:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			if err == nil && string(buf[:got]) != "hello" {
				err = fmt.Errorf("read %q", buf[:got])
			}
			return err
		}
		got += n
	}
}

// gVisor swallowed SYNs from ports that it had in TIME_WAIT, for a minute. Few
// ports and many connections bring that about at once: without the remedy, the
// kernel has to repeat SYNs, and connections stall.
func TestKernelStormOfShortConnections(t *testing.T) {
	const workers, each = 16, 200
	for _, to := range []netip.AddrPort{server4, server6} {
		t.Run(to.String(), func(t *testing.T) {
			w := newKernelWorld(t, greeting(), Options{})
			if err := w.host.Sysctl("net/ipv4/ip_local_port_range", "20000 20099"); err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for range workers {
				all.Go(func() {
					err := w.host.Do(func() error {
						for range each {
							if err := greet(to); err != nil {
								return err
							}
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if n := w.netstat(t, "TCPSynRetrans"); n > workers*each/100 {
				t.Errorf("%d SYNs of %d were repeated", n, workers*each)
			}
			if s := w.stack.Stats(); s.TCPAccepted != workers*each {
				t.Errorf("%d connections accepted, want %d", s.TCPAccepted, workers*each)
			}
		})
	}
}

// One port, over and over, is the worst of it; also after a reset, which frees
// the port at once.
func TestKernelReusesOnePort(t *testing.T) {
	const times = 300
	for name, test := range map[string]struct {
		goodbye func(fd int) error
		repeats int // of SYNs, at most
	}{
		"fin": {readGreeting, times / 100},
		// A SYN may come before the stack has seen the reset, on a busy machine;
		// the kernel repeats it within milliseconds.
		"reset": {func(fd int) error {
			return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}, times / 10},
	} {
		t.Run(name, func(t *testing.T) {
			w := newKernelWorld(t, greeting(), Options{})
			from := netip.AddrPortFrom(program4, 20000)
			err := w.host.Do(func() error {
				for i := range times {
					fd, err := netlab.Connect(server4, from)
					for err == unix.EADDRNOTAVAIL { // its last packet is on the way
						fd, err = netlab.Connect(server4, from)
					}
					if err == nil {
						err = test.goodbye(fd)
						unix.Close(fd)
					}
					if err != nil {
						return fmt.Errorf("connection %d: %w", i, err)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if n := w.netstat(t, "TCPSynRetrans"); n > test.repeats {
				t.Errorf("%d SYNs of %d were repeated", n, times)
			}
		})
	}
}

func greet(to netip.AddrPort) error {
	fd, err := netlab.Connect(to, netip.AddrPort{})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer unix.Close(fd)
	return readGreeting(fd)
}

// Through the kernel's offloads nothing may be lost or swapped, whatever the
// sizes of the pieces.
func TestKernelStreamsArriveWhole(t *testing.T) {
	const size = 24 << 20
	dialer, servers := loopback(t)
	w := newKernelWorld(t, Forward(dialer, ForwardOptions{}), Options{})
	sent := make([]byte, size)
	rand.Read(sent)
	want := sha256.Sum256(sent)
	for _, to := range []netip.AddrPort{server4, server6} {
		app := w.dial(t, "tcp", to.String()).(*net.TCPConn)
		server := take(t, servers)
		var all sync.WaitGroup
		for _, c := range [][2]*net.TCPConn{{app, server}, {server, app}} {
			all.Go(func() {
				defer c[0].CloseWrite()
				for rest, piece := sent, 1; len(rest) > 0; piece = piece*5/3 + 1 {
					n, err := c[0].Write(rest[:min(piece, len(rest))])
					if err != nil {
						t.Error(err)
						return
					}
					rest = rest[n:]
				}
			})
			all.Go(func() {
				sum := sha256.New()
				n, err := io.Copy(sum, c[1])
				if err != nil || n != size || !bytes.Equal(sum.Sum(nil), want[:]) {
					t.Errorf("%s: %d bytes of %d, %v", to, n, size, err)
				}
			})
		}
		all.Wait()
		server.Close()
	}
}

func TestKernelDatagrams(t *testing.T) {
	w := newKernelWorld(t, handlerFuncs{udp: udpEcho}, Options{})
	for _, to := range []netip.AddrPort{server4, server6} {
		c := w.dial(t, "udp", to.String())
		for _, size := range []int{1, 0, 1200, 1473, 9000, maxDatagram - 40} {
			sent := make([]byte, size)
			rand.Read(sent)
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, maxDatagram)
			if n, err := c.Read(got); err != nil || !bytes.Equal(got[:n], sent) {
				t.Errorf("%s: datagram of %d bytes came back with %d, %v", to, size, n, err)
			}
		}
	}
}

// A program's UDP_SEGMENT super datagram must arrive as the datagrams it is.
func TestKernelSegmentedDatagrams(t *testing.T) {
	h, conns := udpAccepting()
	w := newKernelWorld(t, h, Options{})
	c := w.dial(t, "udp", server4.String()).(*net.UDPConn)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000)
	}); cerr != nil || err != nil {
		t.Skip("this kernel has no UDP_SEGMENT")
	}
	if _, err := c.Write(make([]byte, 4500)); err != nil {
		t.Fatal(err)
	}
	flow := take(t, conns)
	for _, want := range []int{1000, 1000, 1000, 1000, 500} {
		if n, err := flow.Read(make([]byte, 9000)); err != nil || n != want {
			t.Errorf("datagram of %d bytes, %v, want %d", n, err, want)
		}
	}
	flow.Close()
}

func TestKernelProgramIsKilled(t *testing.T) {
	dialer, servers := loopback(t)
	w := newKernelWorld(t, Forward(dialer, ForwardOptions{}), Options{})
	app := w.dial(t, "tcp", server4.String()).(*net.TCPConn)
	server := take(t, servers)
	defer server.Close()
	exchange(t, app, server)
	app.SetLinger(0) // as if it had died with data unread
	app.Close()
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("server reads %v, want a reset", err)
	}
	await.That(t, "the flow is gone", func() bool { return w.stack.Stats().TCPOpen == 0 })
}

func TestKernelSeesResetsWhenTheStackCloses(t *testing.T) {
	h, conns := accepting(t)
	w := newKernelWorld(t, h, Options{})
	app := w.dial(t, "tcp", server4.String())
	take(t, conns)
	if err := w.stack.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("program reads %v, want a reset", err)
	}
}

func TestKernelTakesTheDeviceAway(t *testing.T) {
	h, conns := accepting(t)
	w := newKernelWorld(t, h, Options{})
	w.dial(t, "tcp", server4.String())
	take(t, conns)
	if err := w.host.RemoveLink("test0"); err != nil {
		t.Fatal(err)
	}
	take(t, w.stack.Failed())
	if err := w.stack.Close(); err != nil {
		t.Error(err)
	}
}
