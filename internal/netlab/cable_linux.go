package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Fault is what a bad cable does to frames, in each direction. The zero Fault
// is a good cable.
type Fault struct {
	Loss, Duplicate, Reorder float64       // shares of the frames, from 0 to 1
	Delay                    time.Duration // of all frames but those reordered
	// MTU, if any, is the largest IP packet that passes; longer ones vanish
	// without a word, as where ICMP is blocked.
	MTU int
}

// cableQueue bounds the frames on their way, per direction.
const cableQueue = 4096

// A Cable is a link whose frames this process carries, and can therefore lose.
// Close it before its lab.
type Cable struct {
	ends    [2]*os.File
	running sync.WaitGroup

	mu    sync.Mutex
	fault Fault
	rand  *rand.Rand
}

// Cable joins two hosts as Link does, by way of this process. Chance decides by
// the seed.
func (l *Lab) Cable(a, b End, seed uint64) (*Cable, error) {
	middle, err := l.Host("cable")
	if err != nil {
		return nil, err
	}
	c := &Cable{rand: rand.New(rand.NewPCG(seed, seed))}
	for i, end := range []End{a, b} {
		port := fmt.Sprintf("end%d", i)
		if err := middle.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("netlab: cable: %w", err)
		}
		if err := l.Link(end, Port(middle, port)); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		// The cable is to carry frames as a real one would.
		err := errors.Join(end.Host.Do(func() error { return wholeFrames(end.Device) }),
			middle.Do(func() (err error) { c.ends[i], err = openCableEnd(port); return err }))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("netlab: cable: %w", err), c.Close())
		}
	}
	for i := range c.ends {
		way := make(chan parcel, cableQueue)
		c.running.Go(func() { c.receive(c.ends[i], way) })
		c.running.Go(func() { deliver(way, c.ends[1-i]) })
	}
	return c, nil
}

// Set changes what the cable does from now on.
func (c *Cable) Set(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// Close cuts the cable. A second call does nothing.
func (c *Cable) Close() error {
	for _, end := range c.ends {
		if end != nil {
			_ = end.Close() // closed already
		}
	}
	c.running.Wait()
	return nil
}

// wholeFrames has an interface send frames no longer than its MTU and with
// their checksums, which for a veth pair the kernel otherwise spares itself.
func wholeFrames(device string) error {
	const (
		ethtoolSetTxChecksum = 0x17 // ETHTOOL_STXCSUM
		ethtoolSetTSO        = 0x1f // ETHTOOL_STSO
		ethtoolSetGSO        = 0x24 // ETHTOOL_SGSO
	)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, command := range []uint32{ethtoolSetTSO, ethtoolSetGSO, ethtoolSetTxChecksum} {
		value := [2]uint32{command, 0}
		var request struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(request.name[:], device)
		request.data = unsafe.Pointer(&value)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return fmt.Errorf("switch off offloads of %s: %w", device, errno)
		}
	}
	return nil
}

func openCableEnd(device string) (*os.File, error) {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		netlink.SetPromiscOn(link),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}))
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "cable on "+device), nil
}

// parcel is a frame and when it arrives.
type parcel struct {
	frame []byte
	due   time.Time
}

// receive takes frames off one end until it is closed, which ends the way too.
func (c *Cable) receive(from *os.File, way chan<- parcel) {
	defer close(way)
	buf := make([]byte, snapLength)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, unix.ENETDOWN) {
			continue // the interface was set down; it can come up again
		}
		if err != nil {
			return
		}
		for range c.copies(n) {
			select {
			case way <- parcel{append([]byte{}, buf[:n]...), time.Now().Add(c.delay())}:
			default: // a full queue loses, as any does
			}
		}
	}
}

// copies is how often a frame of that length arrives.
func (c *Cable) copies(length int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.fault.MTU > 0 && length > c.fault.MTU+etherHeader, c.rand.Float64() < c.fault.Loss:
		return 0
	case c.rand.Float64() < c.fault.Duplicate:
		return 2
	}
	return 1
}

func (c *Cable) delay() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rand.Float64() < c.fault.Reorder {
		return 0
	}
	return c.fault.Delay
}

// deliver brings the parcels of one way to their end, each when it is due:
// those without delay overtake the others.
func deliver(way <-chan parcel, to *os.File) {
	var late []parcel // in the order they came, which is that of their times
	timer := time.NewTimer(0)
	defer timer.Stop()
	for open := true; open; {
		for len(late) > 0 && !late[0].due.After(time.Now()) {
			_, _ = to.Write(late[0].frame) // an end that is down loses it
			late = late[1:]
		}
		if len(late) > 0 {
			timer.Reset(time.Until(late[0].due))
		}
		var p parcel
		select {
		case p, open = <-way:
			if open && !p.due.After(time.Now()) {
				_, _ = to.Write(p.frame)
			} else if open && len(late) < cableQueue {
				late = append(late, p)
			}
		case <-timer.C:
		}
	}
}
