//go:build !linux

package nonblock

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// NewConn wraps a connection, which is not to be used otherwise then.
func NewConn(c net.Conn) *Conn { return &Conn{Conn: c} }

// transfer is one direction, which is never used here.
type transfer struct {
	sync.Mutex
	raw syscall.RawConn
	one [1][]byte
}

func (*transfer) do([][]byte) (int, error) { return 0, errors.ErrUnsupported }
