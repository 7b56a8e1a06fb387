package direct

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/session"
)

const (
	// packetSize is the largest packet sent. Larger ones are no faster, and
	// hold up what comes behind them.
	packetSize = 32 << 10
	// maxFrame is the largest packet received.
	maxFrame = 1<<16 - 1
	header   = 2
	// sendTimeout is how long the other end may take nothing. It is generous:
	// the session sends by another path long before.
	sendTimeout = 30 * time.Second
)

// keepAlive finds out when the other end is gone while nothing passes, and
// keeps address translators from forgetting the connection.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}

// Conn is a connection to the session's other end, proven to be that. It is a
// carrier for the session: Send blocks while the connection is full.
type Conn struct {
	raw net.Conn
	tls *tls.Conn
	out []byte // of the one goroutine that sends
}

var _ session.Carrier = (*Conn)(nil)

// newConn takes over a connection whose handshake is done.
func newConn(raw net.Conn, secured *tls.Conn) *Conn {
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(keepAlive) // what it finds out, the session does too, later
	}
	return &Conn{raw: raw, tls: secured}
}

// MaxPacket implements session.Carrier.
func (c *Conn) MaxPacket() int { return packetSize }

// Send implements session.Carrier.
func (c *Conn) Send(packet []byte) error {
	if len(packet) > maxFrame {
		return fmt.Errorf("direct: packet of %d bytes, at most %d", len(packet), maxFrame)
	}
	c.out = binary.BigEndian.AppendUint16(c.out[:0], uint16(len(packet)))
	c.out = append(c.out, packet...)
	if err := c.tls.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("direct: %w", err)
	}
	if _, err := c.tls.Write(c.out); err != nil {
		return fmt.Errorf("direct: %w", err)
	}
	return nil
}

// Receive hands every packet that comes to take, which borrows it, until the
// connection ends, and says why it did. It is called once.
func (c *Conn) Receive(take func(packet []byte)) error {
	return readFrames(bufio.NewReaderSize(c.tls, maxFrame), take)
}

// readFrames reads packets until r ends.
func readFrames(r io.Reader, take func(packet []byte)) error {
	buf := make([]byte, maxFrame)
	for {
		n, err := readFrame(r, buf)
		if err != nil {
			return fmt.Errorf("direct: %w", err)
		}
		if n > 0 {
			take(buf[:n])
		}
	}
}

// readFrame reads one packet into buf, which holds the largest.
func readFrame(r io.Reader, buf []byte) (n int, err error) {
	if _, err := io.ReadFull(r, buf[:header]); err != nil {
		return 0, err
	}
	n = int(binary.BigEndian.Uint16(buf))
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, io.ErrUnexpectedEOF
	}
	return n, nil
}

// RemoteAddr is where the other end is.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// Close ends the connection at once: Send and Receive return.
func (c *Conn) Close() error { return c.raw.Close() }
