package tun

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/labtest"
)

// openNative opens a device with addresses and routes.
func openNative(t *testing.T, host *netlab.Host) Device {
	t.Helper()
	var d Device
	err := host.Do(func() (err error) {
		d, err = Open("test0", 1500)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	err = errors.Join(host.SetLink("test0", true), host.AddAddress("test0", "10.0.0.1/24"), host.AddAddress("test0", "fd00::1/64"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpen(t *testing.T) {
	host := labtest.Host(t, "machine")
	d := openNative(t, host)
	if d.Name() != "test0" || d.MTU() != 1500 || !d.Offload() {
		t.Errorf("device %s, MTU %d, offload %v", d.Name(), d.MTU(), d.Offload())
	}
	for _, test := range []struct {
		name string
		mtu  int
		want string
	}{
		{"test0", 1500, "another program has"},
		{"", 1500, "name"},
		{"a-name-of-16-byt", 1500, "name"},
		{"test1", 1279, "MTU"},
		{"test1", 65536, "MTU"},
	} {
		err := host.Do(func() error {
			d, err := Open(test.name, test.mtu)
			if err == nil {
				d.Close()
			}
			return err
		})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("open %q with MTU %d: %v, want an error about %q", test.name, test.mtu, err, test.want)
		}
	}
	// Closing removes the device, and its name is free again.
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	openNative(t, host)
}

func TestNativeClose(t *testing.T) {
	testClose(t, openNative(t, labtest.Host(t, "machine")))
}

// readFrom returns the next packet of a protocol, past what the kernel says on
// its own.
func readFrom(t *testing.T, d Device, protocol byte) ([]byte, Header) {
	t.Helper()
	for {
		packet, h := read(t, d)
		if packet[0]>>4 == 4 && packet[9] == protocol || packet[0]>>4 == 6 && packet[6] == protocol {
			return packet, h
		}
	}
}

// The kernel leaves the checksum of its own packets to the device.
func TestNativeReads(t *testing.T) {
	host := labtest.Host(t, "machine")
	d := openNative(t, host)
	for _, to := range []string{"10.0.0.2:1000", "[fd00::2]:1000"} {
		c, err := host.DialContext(t.Context(), "udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("hello"))
		packet, h := readFrom(t, d, unix.IPPROTO_UDP)
		if string(packet[len(packet)-5:]) != "hello" {
			t.Errorf("%s: packet %x", to, packet)
		}
		ip := len(packet) - 5 - 8
		if !h.NeedsChecksum || int(h.ChecksumStart) != ip || h.ChecksumOffset != 6 || h.Segmentation != SegmentNone {
			t.Errorf("%s: header %+v", to, h)
		}
	}
}

// What is written arrives, as one packet that is much longer than the MTU.
func TestNativeWrites(t *testing.T) {
	host := labtest.Host(t, "machine")
	d := openNative(t, host)
	c, err := host.ListenPacket("udp", "10.0.0.1:1000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	for _, size := range []int{0, 100, 60000} {
		ip, udp, data := udpParts(netip.MustParseAddrPort("10.0.0.2:2000"), netip.MustParseAddrPort("10.0.0.1:1000"), size)
		h := Header{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 6}
		if err := d.WritePacket(h, [][]byte{ip, udp, data}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, MaxPacket)
		n, from, err := c.ReadFrom(buf)
		if err != nil || n != size || from.(*net.UDPAddr).Port != 2000 {
			t.Errorf("%d bytes from %v, %v, want %d", n, from, err, size)
		}
	}
	// A packet that is none is refused, and the device goes on.
	if err := d.WritePacket(Header{}, [][]byte{{0x90}}); err == nil || errors.Is(err, os.ErrClosed) {
		t.Errorf("writing a malformed packet: %v", err)
	}
	ip, udp, data := udpParts(netip.MustParseAddrPort("10.0.0.2:2000"), netip.MustParseAddrPort("10.0.0.1:1000"), 7)
	d.WritePacket(Header{}, [][]byte{ip, udp, data})
	if n, _, err := c.ReadFrom(make([]byte, 100)); n != 7 || err != nil {
		t.Errorf("%d bytes, %v, want 7", n, err)
	}
}

// udpParts are the parts of an IPv4 packet without a UDP checksum.
func udpParts(from, to netip.AddrPort, size int) (ip, udp, data []byte) {
	udp = make([]byte, 8)
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+size))
	ip = make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(20+8+size))
	copy(ip[12:], from.Addr().AsSlice())
	copy(ip[16:], to.Addr().AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return ip, udp, make([]byte, size)
}
