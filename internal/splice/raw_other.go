//go:build !unix

package splice

import (
	"io"
	"net"
)

// copyRaw is only for systems whose sockets can be awaited without a buffer.
func copyRaw(io.Writer, net.Conn) (int64, bool, error) { return 0, false, nil }

func isNotConnected(error) bool { return false }
