//go:build !unix

package exit

import (
	"io"
	"net"
)

// copySocket writes each datagram of src to dst by one Write.
func copySocket(dst io.Writer, src net.Conn) error { return copyBuffered(dst, src) }
