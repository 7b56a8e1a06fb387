package netlab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
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
