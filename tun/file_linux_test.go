package tun

import (
	"errors"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/ifaddr"
	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/labtest"
)

// openElsewhere makes a device in a host and takes it over outside.
func openElsewhere(t *testing.T, host *netlab.Host) Device {
	t.Helper()
	var file *os.File
	err := host.Do(func() (err error) {
		if file, err = OpenFile("test0"); err != nil {
			return err
		}
		link, err := netlink.LinkByName("test0")
		if err != nil {
			return err
		}
		addr, _ := netlink.ParseAddr("10.0.0.1/24")
		return errors.Join(netlink.LinkSetMTU(link, 1400), netlink.LinkSetUp(link), ifaddr.Replace(link.Attrs().Index, addr))
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := FromFile(file, 1400)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// A device of another namespace does all that one's own does.
func TestFromFile(t *testing.T) {
	host := labtest.Host(t, "machine")
	d := openElsewhere(t, host)
	if d.Name() != "test0" || d.MTU() != 1400 || !d.Offload() {
		t.Errorf("device %s, MTU %d, offload %v", d.Name(), d.MTU(), d.Offload())
	}
	c, err := host.DialContext(t.Context(), "udp", "10.0.0.2:1000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("hello"))
	packet, h := readFrom(t, d, unix.IPPROTO_UDP)
	if string(packet[len(packet)-5:]) != "hello" || !h.NeedsChecksum {
		t.Errorf("packet %x, header %+v", packet, h)
	}
	testClose(t, d)
	err = host.Do(func() error {
		_, err := netlink.LinkByName("test0")
		return err
	})
	if !errors.As(err, new(netlink.LinkNotFoundError)) {
		t.Errorf("after Close, the device: %v, want gone", err)
	}
}

func TestFromFileRefuses(t *testing.T) {
	for name, open := range map[string]func() (*os.File, error){
		"no device": func() (*os.File, error) { return os.Open(os.DevNull) },
		"closed": func() (*os.File, error) {
			f, err := os.Open(os.DevNull)
			f.Close()
			return f, err
		},
	} {
		f, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if d, err := FromFile(f, 1500); err == nil {
			d.Close()
			t.Errorf("%s: taken", name)
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: the file is left open: %v", name, err)
		}
	}
	if f, err := OpenFile("a-name-of-16-byt"); err == nil {
		f.Close()
		t.Error("a device with too long a name was made")
	}
}
