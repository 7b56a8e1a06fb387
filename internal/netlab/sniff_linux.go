package netlab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// snapLength is how much of a frame a sniffer sees. The kernel's own packets
// pass a veth pair up to 64 KiB long, so the payload of any probe is whole.
const snapLength = 64<<10 + 128

// A Packet is one frame seen on an interface.
type Packet struct {
	Outgoing bool   // sent by the host, not received
	Ether    uint16 // ethertype: 0x0800 IPv4, 0x86dd IPv6, 0x0806 ARP
	Protocol uint8  // of IP: 6 TCP, 17 UDP, 1 and 58 ICMP
	Type     uint8  // of ICMP
	// Source and Destination are set for IP; the ports are zero when the
	// protocol has none or the packet is a later fragment.
	Source, Destination netip.AddrPort
	Length              int    // of the frame on the wire
	Data                []byte // the frame without its Ethernet header, borrowed
}

// String describes the packet for people.
func (p Packet) String() string {
	way := "in "
	if p.Outgoing {
		way = "out"
	}
	if !p.Source.IsValid() {
		return fmt.Sprintf("%s ethertype %#04x, %d bytes", way, p.Ether, p.Length)
	}
	return fmt.Sprintf("%s protocol %d, %s to %s, %d bytes", way, p.Protocol, p.Source, p.Destination, p.Length)
}

// Local reports whether the packet is one that a link needs to work and that
// does not leave it: ARP, neighbour and router discovery, multicast listener
// reports.
func (p Packet) Local() bool {
	const ethARP, ipICMPv6 = 0x0806, 58
	switch {
	case p.Ether == ethARP:
		return true
	case p.Protocol != ipICMPv6:
		return false
	}
	return p.Type >= 133 && p.Type <= 137 || p.Type >= 130 && p.Type <= 132 || p.Type == 143
}

// A Sniffer reads all frames of an interface, in both directions.
type Sniffer struct {
	file  *os.File
	plain bool // frames have no Ethernet header, as those of a TUN
	see   func(Packet)
	ended chan struct{}

	mu      sync.Mutex
	waiting []chan struct{} // of Sync: closed when the queue has been emptied
	closing bool
}

// Sniff calls see, one packet at a time, for every frame that passes an
// interface of the host, until the sniffer is closed.
func (h *Host) Sniff(device string, see func(Packet)) (*Sniffer, error) {
	s := &Sniffer{see: see, ended: make(chan struct{})}
	err := h.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		s.plain = link.Type() == "tuntap"
		s.file, err = openPacketSocket(link.Attrs())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: sniff %s of %s: %w", device, h.name, err)
	}
	go s.read()
	return s, nil
}

func openPacketSocket(device *netlink.LinkAttrs) (*os.File, error) {
	// Protocol 0 until it is bound: else frames of all interfaces come first.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		unix.Close(fd)
		return nil, err
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Index}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet socket on "+device.Name), nil
}

func (s *Sniffer) read() {
	defer close(s.ended)
	raw, err := s.file.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, snapLength)
	for done := false; !done; {
		for err == nil {
			err = raw.Read(func(fd uintptr) bool { return s.next(int(fd), buf) })
		}
		// Woken by Sync or Close, who want the queue emptied.
		s.mu.Lock()
		waiting := s.waiting
		s.waiting, done = nil, s.closing
		err = s.file.SetReadDeadline(time.Time{})
		s.mu.Unlock()
		_ = raw.Control(func(fd uintptr) {
			for s.next(int(fd), buf) {
			}
		})
		for _, w := range waiting {
			close(w)
		}
		done = done || err != nil
	}
}

// Sync returns when every frame that passed before the call has been seen, or
// the sniffer is closed.
func (s *Sniffer) Sync() {
	done := make(chan struct{})
	s.mu.Lock()
	s.waiting = append(s.waiting, done)
	_ = s.file.SetReadDeadline(time.Now())
	s.mu.Unlock()
	select {
	case <-done:
	case <-s.ended:
	}
}

// next reads one frame, if there is one.
func (s *Sniffer) next(fd int, buf []byte) bool {
	parse := parsePacket
	if s.plain {
		parse = parsePlain
	}
	for {
		n, _, _, from, err := unix.RecvmsgBuffers(fd, [][]byte{buf}, nil, unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		p := parse(buf[:min(n, len(buf))])
		p.Length = n
		p.Outgoing = ok && link.Pkttype == unix.PACKET_OUTGOING
		s.see(p)
		return true
	}
}

// Close ends the sniffing after every frame that has passed so far was seen. It
// fails when the kernel had to drop some, for then nobody knows what they were.
func (s *Sniffer) Close() error {
	s.mu.Lock()
	s.closing = true
	_ = s.file.SetReadDeadline(time.Now())
	s.mu.Unlock()
	<-s.ended
	defer s.file.Close()
	raw, err := s.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("netlab: close sniffer: %w", err)
	}
	var stats *unix.TpacketStats
	if cerr := raw.Control(func(fd uintptr) {
		stats, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("netlab: close sniffer: %w", err)
	}
	if stats.Drops > 0 {
		return fmt.Errorf("netlab: the sniffer missed %d of %d frames", stats.Drops, stats.Packets)
	}
	return nil
}
