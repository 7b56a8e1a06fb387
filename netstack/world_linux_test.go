package netstack

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/ifaddr"
	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/tun"
)

// kernelWorld is a network namespace whose default routes lead into a kernel
// TUN that a Stack serves.
type kernelWorld struct {
	host  *netlab.Host
	stack *Stack
}

func newKernelWorld(t *testing.T, h Handler, opts Options) *kernelWorld {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a TUN device in a network namespace")
	}
	lab := netlab.New()
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	host, err := lab.Host("programs")
	if err != nil {
		t.Fatal(err)
	}
	var dev tun.Device
	if err := host.Do(func() (err error) { dev, err = openTUN(); return err }); err != nil {
		t.Fatal(err)
	}
	s, err := New(dev, h, opts)
	if err != nil {
		dev.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &kernelWorld{host: host, stack: s}
}

// openTUN opens a device with addresses and the default routes, in the calling
// thread's namespace.
func openTUN() (tun.Device, error) {
	dev, err := tun.Open("test0", 1500)
	if err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName("test0")
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	for _, prefix := range []string{"10.0.0.1/24", "fd00::1/64"} {
		if err == nil {
			addr, _ := netlink.ParseAddr(prefix)
			addr.Flags = unix.IFA_F_NODAD
			err = ifaddr.Replace(link.Attrs().Index, addr)
		}
	}
	for _, prefix := range []string{"0.0.0.0/0", "::/0"} {
		if err == nil {
			_, all, _ := net.ParseCIDR(prefix)
			err = netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: all})
		}
	}
	if err != nil {
		dev.Close()
		return nil, err
	}
	return dev, nil
}

// connect makes a plain blocking connect(), as most programs do.
func (w *kernelWorld) connect(to netip.AddrPort) error {
	return w.host.Do(func() error {
		fd, err := connectTo(to, netip.AddrPort{})
		if err == nil {
			unix.Close(fd)
		}
		return err
	})
}

// connectTo connects on the calling thread, from a port of its own if from is
// valid. It gives up after ten seconds.
func connectTo(to, from netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	patience := unix.Timeval{Sec: 10}
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience); err != nil {
		return -1, err
	}
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return -1, err
	}
	if from.IsValid() {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return -1, err
		}
		if err = unix.Bind(fd, sockaddr(from)); err != nil {
			return -1, err
		}
	}
	if err = unix.Connect(fd, sockaddr(to)); err == unix.EINTR {
		err = finishConnect(fd)
	}
	return fd, err
}

// finishConnect waits for a connect() that a signal of Go's runtime interrupted.
func finishConnect(fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(patience.Milliseconds()))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		}
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		return err
	}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func (w *kernelWorld) dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := w.host.DialContext(ctx, network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}
