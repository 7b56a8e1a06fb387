package direct

import (
	"net"
	"sync"
	"sync/atomic"
)

// begunConn is a connection whose first bytes were read.
type begunConn struct {
	net.Conn
	first []byte
}

func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite ends writing, as the user of a TCP connection expects it.
func (c *begunConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// plainListener hands on connections that do not begin like TLS.
type plainListener struct {
	addr   net.Addr
	wanted atomic.Bool
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once

	mu     sync.Mutex // so that nothing is put once it is closed
	closed bool
}

func newPlainListener(addr net.Addr) *plainListener {
	return &plainListener{addr: addr, conns: make(chan net.Conn, strangersEach), done: make(chan struct{})}
}

// put reports whether somebody will accept the connection.
func (l *plainListener) put(conn net.Conn) bool {
	if !l.wanted.Load() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	select {
	case l.conns <- conn:
		return true
	default:
		return false
	}
}

// Accept implements net.Listener.
func (l *plainListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *plainListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.closed = true
		for {
			select {
			case conn := <-l.conns:
				conn.Close()
			default:
				return
			}
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *plainListener) Addr() net.Addr { return l.addr }
