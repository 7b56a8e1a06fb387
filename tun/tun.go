// Package tun is the network device that this machine's programs send their
// packets to: whole IP packets, in both directions, no Ethernet.
//
// Open makes a kernel device. wireguard/tun creates and configures it, but on
// Linux the packets do not pass through it: its Read cuts each packet that the
// kernel hands over (up to 64 KiB) into pieces of the MTU, and its Write glues
// such pieces together again, because encrypting them one by one needs that.
// Here the flow ends in this process, so packets move on the device's file
// whole, with the virtio header that says how the kernel may cut them; that is
// an order of magnitude faster. Elsewhere packets go through wireguard/tun,
// one by one.
//
// Pipe makes a device in memory, for tests and for programs without a kernel
// device.
package tun

import (
	"errors"
	"fmt"
)

const (
	// MaxPacket is the size of the largest packet of a Device, in bytes.
	MaxPacket = 65535
	// MinMTU is the smallest MTU of a Device: what IPv6 demands of a link.
	MinMTU = 1280
)

// ErrTooShort is returned by ReadPacket when the buffers could not hold the
// packet. The packet is lost; the device is well.
var ErrTooShort = errors.New("tun: packet does not fit the buffers")

// Device is one end of a packet link. One goroutine may read while another
// writes; neither direction may be used by two goroutines at a time. Close may
// be called at any time, more than once, and by anyone.
type Device interface {
	// Name is the interface's name, for people and for the platform's tools.
	Name() string

	// MTU is the size of the largest packet that belongs on the link, in
	// bytes. Packets with a Segmentation may be longer, up to MaxPacket.
	MTU() int

	// Offload reports whether the device does the work that a Header asks
	// for. If not, every Header is zero, and a non-zero one is refused.
	Offload() bool

	// ReadPacket waits for a packet and stores it in bufs, filling each before
	// it goes on to the next. It returns the packet's length. An error other
	// than ErrTooShort is final; it is os.ErrClosed after Close.
	ReadPacket(bufs [][]byte) (n int, h Header, err error)

	// WritePacket sends the packet whose parts are bufs, which it borrows
	// until it returns. The link may drop the packet without an error, as
	// links do; a packet that it refuses is an error, and the device goes on.
	// After Close the error is os.ErrClosed.
	WritePacket(h Header, bufs [][]byte) error

	// Close removes the device. It ends blocked calls and waits for them.
	Close() error
}

// Segmentation says into what a packet longer than the MTU is to be cut
// before it leaves the machine.
type Segmentation uint8

const (
	SegmentNone  Segmentation = 0 // not at all
	SegmentTCPv4 Segmentation = 1 // TCP segments over IPv4
	SegmentTCPv6 Segmentation = 4 // TCP segments over IPv6
)

// Header is what is still to be done with a packet before it leaves the
// machine, or need not be checked because it never did. The zero Header is an
// ordinary packet.
type Header struct {
	Segmentation Segmentation
	// HeaderLength is the length of the IP and TCP headers, and SegmentSize
	// the payload of each piece, when Segmentation is not SegmentNone.
	HeaderLength, SegmentSize uint16

	// NeedsChecksum: the checksum over everything from ChecksumStart has not
	// been computed yet; it belongs ChecksumOffset bytes after that, where
	// the pseudo-header's sum is now. The packet comes from this machine, so
	// its reader has no use for a checksum.
	NeedsChecksum                 bool
	ChecksumStart, ChecksumOffset uint16

	// ChecksumValid: somebody has verified the transport checksum.
	ChecksumValid bool
}

func checkMTU(mtu int) error {
	if mtu < MinMTU || mtu > MaxPacket {
		return fmt.Errorf("an MTU of %d is outside %d to %d", mtu, MinMTU, MaxPacket)
	}
	return nil
}

// total is the length of all parts together.
func total(bufs [][]byte) int {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	return n
}

// scatter stores packet in bufs, as ReadPacket promises.
func scatter(bufs [][]byte, packet []byte) (int, error) {
	n := len(packet)
	for _, b := range bufs {
		packet = packet[copy(b, packet):]
	}
	if len(packet) > 0 {
		return 0, ErrTooShort
	}
	return n, nil
}
