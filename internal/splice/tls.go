package splice

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
)

// OverTLS returns a TLS connection as Join wants one: Abort resets what is below
// it, where Close would say farewell and make a broken transfer look whole, and
// while it is silent it holds a small buffer only.
func OverTLS(conn *tls.Conn) net.Conn { return &tlsConn{conn} }

type tlsConn struct{ *tls.Conn }

// Abort implements Aborter.
func (c *tlsConn) Abort(err error) { Abort(c.NetConn(), err) }

// What a TLS connection is read into: a record while data flows, less while
// it waits for some.
const (
	tlsRecord  = 16 << 10
	tlsWaiting = 512
)

var tlsBuffers = sync.Pool{New: func() any { return new([tlsRecord]byte) }}

// WriteTo implements io.WriterTo.
func (c *tlsConn) WriteTo(w io.Writer) (total int64, err error) {
	waiting := make([]byte, tlsWaiting)
	for {
		n, err := c.Read(waiting)
		if n > 0 {
			written, err := w.Write(waiting[:n])
			if total += int64(written); err != nil {
				return total, err
			}
		}
		if n == len(waiting) && err == nil {
			var moved int64
			moved, err = c.moveRecords(w)
			total += moved
		}
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// moveRecords copies until less comes than a record holds.
func (c *tlsConn) moveRecords(w io.Writer) (total int64, err error) {
	buf := tlsBuffers.Get().(*[tlsRecord]byte)
	defer tlsBuffers.Put(buf)
	for n := tlsWaiting; n >= tlsWaiting && err == nil; {
		n, err = c.Read(buf[:])
		if n > 0 {
			written, err := w.Write(buf[:n])
			if total += int64(written); err != nil {
				return total, err
			}
		}
	}
	return total, err
}
