package nonblock

import "net"

// Conn is a connection that reads and writes in the way of this package where it
// can, and as the connection below it does elsewhere.
type Conn struct {
	net.Conn
	in, out transfer
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if c.out.raw == nil {
		return c.Conn.Write(p)
	}
	c.out.Lock()
	defer c.out.Unlock()
	for done := 0; ; {
		c.out.one[0] = p[done:]
		n, err := c.out.do(c.out.one[:])
		c.out.one[0] = nil
		if done += n; done == len(p) || err != nil {
			return done, err
		}
	}
}

// WriteBuffers writes all of bufs, which it uses up. What they hold is borrowed
// until it returns.
func (c *Conn) WriteBuffers(bufs net.Buffers) error {
	if c.out.raw == nil {
		_, err := bufs.WriteTo(c.Conn)
		return err
	}
	c.out.Lock()
	defer c.out.Unlock()
	for len(bufs) > 0 {
		n, err := c.out.do(bufs)
		if err != nil {
			return err
		}
		bufs = skip(bufs, n)
	}
	return nil
}

// skip takes n bytes off the front.
func skip(bufs net.Buffers, n int) net.Buffers {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if c.in.raw == nil || len(p) == 0 {
		return c.Conn.Read(p)
	}
	c.in.Lock()
	defer c.in.Unlock()
	c.in.one[0] = p
	n, err := c.in.do(c.in.one[:])
	c.in.one[0] = nil
	return n, err
}

// Vectors reports whether WriteBuffers writes without copying.
func (c *Conn) Vectors() bool { return c.out.raw != nil }
