package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen opens a listening socket in the host. The address is an IP literal
// and a port. The listener is used from anywhere; the caller closes it.
func (h *Host) Listen(network, address string) (l net.Listener, err error) {
	err = h.socket("listen", address, func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenForAll listens on a port, ":80", for connections to any address at all
// (see AnswerForAll). network is tcp4 or tcp6.
func (h *Host) ListenForAll(network, port string) (l net.Listener, err error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) {
			if network == "tcp6" {
				set = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
			} else {
				set = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
			}
		})
		return errors.Join(err, set)
	}}
	err = h.Do(func() error {
		l, err = config.Listen(context.Background(), network, port)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: listen in %s: %w", h.name, err)
	}
	return l, nil
}

// ListenPacket is Listen for datagrams.
func (h *Host) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = h.socket("listen", address, func() error {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// DialContext connects from the host to an IP literal and a port. Names are
// refused: Go would look them up on other threads, outside the host.
func (h *Host) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = h.socket("dial", address, func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

func (h *Host) socket(what, address string, open func() error) error {
	_, err := netip.ParseAddrPort(address)
	if err == nil {
		err = h.Do(open)
	}
	if err != nil {
		return fmt.Errorf("netlab: %s in %s: %w", what, h.name, err)
	}
	return nil
}
