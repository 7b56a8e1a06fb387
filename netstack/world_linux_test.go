package netstack

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/labtest"
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
	host := labtest.Host(t, "programs")
	var dev tun.Device
	if err := host.Do(func() (err error) { dev, err = tun.Open("test0", 1500); return err }); err != nil {
		t.Fatal(err)
	}
	if err := host.LeadInto("test0", "10.0.0.1/24", "fd00::1/64"); err != nil {
		dev.Close()
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

// connect makes a plain blocking connect(), as most programs do.
func (w *kernelWorld) connect(to netip.AddrPort) error {
	return w.host.Do(func() error {
		fd, err := netlab.Connect(to, netip.AddrPort{})
		if err == nil {
			unix.Close(fd)
		}
		return err
	})
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
