package tun

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/nws-vpn/nws-vpn/internal/nonblock"
)

// Open creates the device name with the given MTU. It is down and has no
// address yet. Linux needs CAP_NET_ADMIN for it. The device is gone when it is
// closed or the process ends.
func Open(name string, mtu int) (Device, error) {
	if name == "" || len(name) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("tun: open %q: the name of a device has 1 to %d bytes", name, unix.IFNAMSIZ-1)
	}
	if err := checkMTU(mtu); err != nil {
		return nil, fmt.Errorf("tun: open %s: %w", name, err)
	}
	wg, err := wgtun.CreateTUN(name, mtu)
	if err != nil {
		return nil, fmt.Errorf("tun: open %s: %w%s", name, err, hint(err))
	}
	return newNative(wg, mtu)
}

func newNative(wg wgtun.Device, mtu int) (Device, error) {
	d := &native{wg: wg, mtu: mtu, eventsDone: make(chan struct{})}
	go d.drainEvents()
	if err := d.setUp(); err != nil {
		d.Close()
		return nil, fmt.Errorf("tun: open the device: %w", err)
	}
	return d, nil
}

func hint(err error) string {
	switch {
	case errors.Is(err, os.ErrPermission):
		return " (run as root or with CAP_NET_ADMIN)"
	case errors.Is(err, unix.EBUSY):
		return " (another program has a device of this name)"
	}
	return ""
}

// native moves packets on the file of a device that wireguard/tun manages.
type native struct {
	wg         wgtun.Device
	name       string
	mtu        int
	raw        syscall.RawConn
	eventsDone chan struct{}

	read, write transfer
}

// transfer is one direction's system call and its scratch. The function is
// bound once, because a closure per packet would be garbage per packet.
type transfer struct {
	header [headerSize]byte
	iov    [][]byte
	n      int
	err    error
	call   func(fd uintptr) bool
}

func (d *native) setUp() (err error) {
	if d.name, err = d.wg.Name(); err != nil {
		return err
	}
	if d.raw, err = d.wg.File().SyscallConn(); err != nil {
		return err
	}
	// wireguard/tun also turns on the merging of UDP datagrams, which would
	// have to be taken apart again here.
	var offloadErr error
	err = d.raw.Control(func(fd uintptr) {
		offloadErr = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6)
	})
	if err = errors.Join(err, offloadErr); err != nil {
		return fmt.Errorf("set the offloads: %w", err)
	}
	d.read.call = func(fd uintptr) bool { return d.read.try(nonblock.Readv, fd) }
	d.write.call = func(fd uintptr) bool { return d.write.try(nonblock.Writev, fd) }
	return nil
}

// try makes one attempt; false means that the descriptor is not ready.
func (t *transfer) try(call func(uintptr, [][]byte) (int, error), fd uintptr) bool {
	t.n, t.err = call(fd, t.iov)
	return t.err != unix.EAGAIN
}

// drainEvents takes the events that wireguard/tun would block on. The MTU and
// the state of the device are the platform's business.
func (d *native) drainEvents() {
	defer close(d.eventsDone)
	for range d.wg.Events() {
	}
}

func (d *native) Name() string  { return d.name }
func (d *native) MTU() int      { return d.mtu }
func (d *native) Offload() bool { return true }

func (d *native) ReadPacket(bufs [][]byte) (int, Header, error) {
	t := &d.read
	t.iov = append(append(t.iov[:0], t.header[:]), bufs...)
	for {
		if err := d.raw.Read(t.call); err != nil {
			return 0, Header{}, os.ErrClosed
		}
		if t.err != nil {
			return 0, Header{}, fmt.Errorf("tun: read from %s: %w", d.name, t.err)
		}
		h, err := parseHeader(t.header[:min(t.n, headerSize)])
		if err != nil {
			continue // nothing that the kernel was asked for
		}
		// The kernel cuts off what does not fit and does not say so, hence a
		// packet that fills the buffers to the last byte counts as cut off.
		if t.n-headerSize >= total(bufs) {
			return 0, Header{}, ErrTooShort
		}
		return t.n - headerSize, h, nil
	}
}

func (d *native) WritePacket(h Header, bufs [][]byte) error {
	t := &d.write
	t.iov = append(append(t.iov[:0], h.appendTo(t.header[:0])), bufs...)
	err := d.raw.Write(t.call)
	clear(t.iov) // they are borrowed
	switch {
	case err != nil:
		return os.ErrClosed
	case t.err != nil:
		return fmt.Errorf("tun: write to %s: %w", d.name, t.err)
	}
	return nil
}

func (d *native) Close() error {
	err := d.wg.Close() // waits for calls on the file, and acts only once
	<-d.eventsDone
	return err
}
