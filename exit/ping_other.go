//go:build !linux

package exit

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// dialPing is there on Linux only.
func dialPing(netip.Addr) (net.Conn, error) {
	return nil, fmt.Errorf("exit: ping: %w", errors.ErrUnsupported)
}
