//go:build !linux

package tun

import (
	"errors"
	"fmt"
	"os"
	"sync"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

// headroom is the room that wireguard/tun wants before each packet: macOS and
// the BSDs put a header of 4 bytes there.
const headroom = 16

// Open creates the device name ("utun" on macOS, where the kernel chooses the
// number) with the given MTU. It has no address yet. The device is gone when
// it is closed or the process ends.
func Open(name string, mtu int) (Device, error) {
	if err := checkMTU(mtu); err != nil {
		return nil, fmt.Errorf("tun: open %s: %w", name, err)
	}
	wg, err := wgtun.CreateTUN(name, mtu)
	if err != nil {
		return nil, fmt.Errorf("tun: open %s: %w", name, err)
	}
	actual, err := wg.Name()
	if err != nil {
		wg.Close()
		return nil, fmt.Errorf("tun: open %s: %w", name, err)
	}
	d := &native{wg: wg, name: actual, mtu: mtu, eventsDone: make(chan struct{})}
	d.out = make([]byte, headroom+MaxPacket)
	d.sizes = make([]int, wg.BatchSize())
	for range d.sizes {
		d.in = append(d.in, make([]byte, headroom+MaxPacket))
	}
	go func() {
		defer close(d.eventsDone)
		for range wg.Events() {
		}
	}()
	return d, nil
}

// native reads and writes through wireguard/tun.
type native struct {
	wg         wgtun.Device
	name       string
	mtu        int
	eventsDone chan struct{}
	calls      sync.WaitGroup // ReadPacket and WritePacket calls under way

	closing sync.Mutex
	closed  bool

	// One batch as read, of which the packets from next to have are not yet
	// handed over.
	in         [][]byte
	sizes      []int
	next, have int

	out []byte
}

func (d *native) Name() string  { return d.name }
func (d *native) MTU() int      { return d.mtu }
func (d *native) Offload() bool { return false }

// begin registers a call that Close is to wait for.
func (d *native) begin() bool {
	d.closing.Lock()
	defer d.closing.Unlock()
	if !d.closed {
		d.calls.Add(1)
	}
	return !d.closed
}

func (d *native) ReadPacket(bufs [][]byte) (int, Header, error) {
	if !d.begin() {
		return 0, Header{}, os.ErrClosed
	}
	defer d.calls.Done()
	for d.next == d.have {
		n, err := d.wg.Read(d.in, d.sizes, headroom)
		if err != nil && !errors.Is(err, wgtun.ErrTooManySegments) {
			return 0, Header{}, d.failed("read from", err)
		}
		d.next, d.have = 0, n
	}
	packet := d.in[d.next][headroom : headroom+d.sizes[d.next]]
	d.next++
	n, err := scatter(bufs, packet)
	return n, Header{}, err
}

func (d *native) WritePacket(h Header, bufs [][]byte) error {
	if !d.begin() {
		return os.ErrClosed
	}
	defer d.calls.Done()
	if h != (Header{}) || total(bufs) > MaxPacket {
		return fmt.Errorf("tun: write to %s: the device does not cut packets", d.name)
	}
	packet := d.out[:headroom]
	for _, b := range bufs {
		packet = append(packet, b...)
	}
	if _, err := d.wg.Write([][]byte{packet}, headroom); err != nil {
		return d.failed("write to", err)
	}
	return nil
}

// failed turns any error after Close into os.ErrClosed.
func (d *native) failed(what string, err error) error {
	d.closing.Lock()
	defer d.closing.Unlock()
	if d.closed {
		return os.ErrClosed
	}
	return fmt.Errorf("tun: %s %s: %w", what, d.name, err)
}

func (d *native) Close() error {
	d.closing.Lock()
	first := !d.closed
	d.closed = true
	d.closing.Unlock()
	var err error
	if first {
		err = d.wg.Close()
	}
	d.calls.Wait()
	<-d.eventsDone
	return err
}
