//go:build !unix

package exit

import "net"

// moveDatagram moves one datagram from src to dst.
func moveDatagram(dst, src net.Conn) (int, error) { return moveBuffered(dst, src) }
