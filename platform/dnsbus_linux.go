package platform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// The services that are asked, and what says that one is not there.
const (
	resolvedName = "org.freedesktop.resolve1"
	nmName       = "org.freedesktop.NetworkManager"

	errNoOwner        = "org.freedesktop.DBus.Error.NameHasNoOwner"
	errUnknownService = "org.freedesktop.DBus.Error.ServiceUnknown"
	errUnknownMethod  = "org.freedesktop.DBus.Error.UnknownMethod"
)

// errElsewhere is of a service that was reached through the file system but
// manages another network namespace: its interfaces are not ours.
var errElsewhere = errors.New("it runs in another network namespace")

var errNotRunning = errors.New("it is not running")

// bus is a connection to the system's message bus. It starts no service that is
// not running, and ends some time after it was made: a service that hangs delays
// the tunnel, and no more.
type bus struct {
	conn *dbus.Conn
	ctx  context.Context
	stop context.CancelFunc
}

func openBus(e *env) (*bus, error) {
	ctx, stop := context.WithTimeout(context.Background(), e.dns.busTimeout)
	var d net.Dialer
	sock, err := d.DialContext(ctx, "unix", e.dns.bus)
	if err != nil {
		stop()
		return nil, fmt.Errorf("reach the system's message bus: %w", err)
	}
	deadline, _ := ctx.Deadline()
	_ = sock.SetDeadline(deadline)
	conn, err := dbus.DialUnix(sock.(*net.UnixConn), dbus.WithContext(ctx))
	if err == nil {
		if err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err == nil {
			err = conn.Hello()
		}
		if err != nil {
			conn.Close()
		}
	}
	if err != nil {
		stop()
		sock.Close()
		return nil, fmt.Errorf("reach the system's message bus: %w", err)
	}
	return &bus{conn, ctx, stop}, nil
}

func (b *bus) close() {
	b.conn.Close()
	b.stop()
}

// call calls a method and stores what it returns, if anything is to be stored.
func (b *bus) call(service, path, method string, args []any, out ...any) error {
	call := b.conn.Object(service, dbus.ObjectPath(path)).CallWithContext(b.ctx, method, dbus.FlagNoAutoStart, args...)
	err := call.Err
	if err == nil && len(out) > 0 {
		err = call.Store(out...)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// get stores a property of an object in out, whose type must fit.
func (b *bus) get(service, path, iface, property string, out any) error {
	var v dbus.Variant
	if err := b.call(service, path, "org.freedesktop.DBus.Properties.Get", []any{iface, property}, &v); err != nil {
		return fmt.Errorf("%s: %w", property, err)
	}
	if err := dbus.Store([]any{v.Value()}, out); err != nil {
		return fmt.Errorf("%s: %w", property, err)
	}
	return nil
}

// here returns nil if the service runs, and runs in the network namespace of
// the calling thread. The bus's socket is a file, which containers and
// namespaces may share with the machine around them.
func (b *bus) here(service string) error {
	var pid uint32
	if err := b.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.GetConnectionUnixProcessID", []any{service}, &pid); isBusError(err, errNoOwner, errUnknownService) {
		return errNotRunning
	} else if err != nil {
		return err
	}
	var theirs, ours unix.Stat_t
	err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &theirs)
	if errors.Is(err, fs.ErrPermission) {
		return nil // without CAP_SYS_PTRACE; a process there is, so it is likely
	}
	if err == nil {
		err = unix.Stat("/proc/thread-self/ns/net", &ours)
	}
	if err != nil || pid == 0 || theirs.Ino != ours.Ino {
		return errElsewhere
	}
	return nil
}

// isBusError reports whether a service, or the bus in its place, answered with
// one of these errors.
func isBusError(err error, names ...string) bool {
	var e dbus.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, n := range names {
		if e.Name == n {
			return true
		}
	}
	return false
}

// isAbsent reports whether err says that the service is not there for us, in
// distinction from one that does not do what it is told.
func isAbsent(err error) bool {
	return errors.Is(err, errElsewhere) || errors.Is(err, errNotRunning) || errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, unix.ECONNREFUSED) || isBusError(err, errNoOwner, errUnknownService)
}

// addrFromBytes reads an address as services send it, with the zone that a
// link-local one needs.
func addrFromBytes(b []byte, ifindex int) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(b)
	if !ok || a.IsUnspecified() || a.IsMulticast() {
		return netip.Addr{}, false
	}
	if a = a.Unmap(); a.Is6() && a.IsLinkLocalUnicast() && ifindex > 0 {
		if i, err := net.InterfaceByIndex(ifindex); err == nil {
			a = a.WithZone(i.Name)
		}
	}
	return a, true
}
