package tun

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"
)

// cloneDevice is the file that becomes a TUN when it is given a name.
const cloneDevice = "/dev/net/tun"

// OpenFile creates the device name in the calling thread's network namespace
// and returns its file, for FromFile in a process of another namespace. It is
// down, with the kernel's MTU, and gone when the last descriptor of the file is
// closed. Errors of the system are in the chain; the device's file is in an
// *os.PathError.
func OpenFile(name string) (*os.File, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, fmt.Errorf("tun: open %q: %w", name, err)
	}
	fd, err := unix.Open(cloneDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("tun: %w", &os.PathError{Op: "open", Path: cloneDevice, Err: err})
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("tun: open %s: %w%s", name, err, hint(err))
	}
	return os.NewFile(uintptr(fd), cloneDevice), nil
}

// FromFile returns the device whose file OpenFile has made, here or in another
// process. mtu is what the device has been given there. The device owns the file
// from now on, also when the result is an error. It needs no privilege.
func FromFile(file *os.File, mtu int) (Device, error) {
	defer file.Close()
	if err := checkMTU(mtu); err != nil {
		return nil, fmt.Errorf("tun: take over a device: %w", err)
	}
	fd, err := duplicate(file)
	if err != nil {
		return nil, fmt.Errorf("tun: take over a device: %w", err)
	}
	// Not watched: the namespace to watch would be another one, as would be
	// that of the MTU.
	wg, _, err := wgtun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("tun: take over a device: %w", err)
	}
	return newNative(wg, mtu)
}

// duplicate returns another descriptor of the file.
func duplicate(file *os.File) (fd int, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if cerr != nil {
		return -1, cerr
	}
	return fd, err
}
