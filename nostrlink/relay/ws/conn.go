package ws

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/nws-vpn/nws-vpn/internal/nonblock"
)

// The status codes that relays and clients use on purpose (RFC 6455, 7.4.1).
const (
	StatusNormal    = uint16(websocket.StatusNormalClosure)
	StatusGoingAway = uint16(websocket.StatusGoingAway)
	StatusTooBig    = uint16(websocket.StatusMessageTooBig)
	StatusPolicy    = uint16(websocket.StatusPolicyViolation)
)

// ErrTooBig is returned by [Conn.ReadMessage] for a message over the limit.
var ErrTooBig = errors.New("ws: message is larger than the limit")

// closeGrace bounds how long a connection that is being closed may take to send
// what is queued and to hear the peer's farewell.
const closeGrace = time.Second

// Conn is one websocket connection. One goroutine at a time may read, that is
// call Next and ReadMessage; every other method may be called from anywhere.
// Close or CloseNow must be called, also after an error.
type Conn struct {
	ws   *websocket.Conn
	sock *socket
	body io.Reader
}

func newConn(w *websocket.Conn, sock *socket, o *outbox) *Conn {
	w.SetReadLimit(-1) // ReadMessage limits
	sock.out.Store(o)
	go o.run()
	return &Conn{ws: w, sock: sock}
}

// Accept answers a websocket handshake. Any origin may connect: a relay is
// meant for web pages from anywhere and knows no cookies.
func Accept(w http.ResponseWriter, r *http.Request, writeTimeout time.Duration) (*Conn, error) {
	h := &hijackWriter{ResponseWriter: w}
	c, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true,
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, err
	}
	return newConn(c, h.sock, newOutbox(h.sock.Conn, false, writeTimeout)), nil
}

// hijackWriter puts our socket between coder/websocket and the network.
type hijackWriter struct {
	http.ResponseWriter
	sock *socket
}

// controlBuffer holds any control frame whole, so that coder/websocket hands
// each to the socket in one piece.
const controlBuffer = 512

func (h *hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.sock = newSocket(conn)
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, nil, err
	}
	src := io.MultiReader(bytes.NewReader(bytes.Clone(early)), h.sock)
	// coder/websocket takes what is buffered out of the reader and continues
	// with the connection, so the buffer has to hold the early bytes now.
	br := bufio.NewReaderSize(src, max(4096, len(early)))
	if _, err := br.Peek(len(early)); err != nil {
		return nil, nil, err
	}
	return h.sock, bufio.NewReadWriter(br, bufio.NewWriterSize(h.sock, controlBuffer)), nil
}

// Next waits for the beginning of a message. It answers control frames
// meanwhile. The message must then be read with ReadMessage.
func (c *Conn) Next() error {
	// A context that can end would cost a registration for every read.
	_, r, err := c.ws.Reader(context.Background())
	if err != nil {
		return c.readError(err)
	}
	c.body = r
	return nil
}

// ReadMessage reads the message that Next announced into buf[:0], which it
// grows as the bytes arrive, up to limit bytes. It returns ErrTooBig beyond;
// only closing is possible then. With a timeout above zero the whole message
// has to arrive within it.
func (c *Conn) ReadMessage(buf []byte, limit int, timeout time.Duration) ([]byte, error) {
	if timeout > 0 {
		c.sock.SetReadDeadline(time.Now().Add(timeout))
		defer c.sock.SetReadDeadline(time.Time{})
	}
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			// One byte beyond the limit tells a message of just the limit from
			// a longer one.
			grown := make([]byte, len(buf), min(max(2*cap(buf), 4096), limit+1))
			copy(grown, buf)
			buf = grown
		}
		n, err := c.body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			return buf, ErrTooBig
		}
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, c.readError(err)
		}
	}
}

// readError finds the reason behind a failed read: our own for ending the
// connection, the peer's farewell, or the network's.
func (c *Conn) readError(err error) error {
	ours := c.sock.out.Load().cause()
	if ours != nil && ours != errEnded {
		return ours
	}
	var farewell websocket.CloseError
	if errors.As(err, &farewell) {
		return fmt.Errorf("ws: closed by the peer (%d %q): %w", farewell.Code, farewell.Reason, io.EOF)
	}
	if ours != nil {
		return ours
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("ws: the peer dropped the connection: %w", io.EOF)
	}
	return err
}

// TrySend queues m when the queue is empty or holds at most limit bytes with
// it. Otherwise it returns a channel that is closed when something has been
// written, after which the caller tries again. With a nil channel and a nil
// error m belongs to the queue; otherwise it still belongs to the caller.
func (c *Conn) TrySend(m Message, limit int) (room <-chan struct{}, err error) {
	return c.sock.out.Load().add(m, limit)
}

// Send is TrySend that waits for room until ctx ends.
func (c *Conn) Send(ctx context.Context, m Message, limit int) error {
	for {
		room, err := c.TrySend(m, limit)
		if room == nil {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Queued is how many bytes wait to be written or are being written, and for how
// long the peer has not taken any of them.
func (c *Conn) Queued() (bytes int, stalled time.Duration) { return c.sock.out.Load().queued() }

// Ping queues a ping. The answer shows as a fresh [Conn.Idle].
func (c *Conn) Ping() { c.sock.out.Load().ping() }

// Idle is the time since the last byte was received.
func (c *Conn) Idle() time.Duration { return c.sock.idle() }

// Fail ends the connection at once with a reason, which readers and senders
// get as their error. The first reason stays. It does not wait and may be
// called from a callback of a reader.
func (c *Conn) Fail(err error) { c.sock.out.Load().fail(err) }

// Done is closed when nothing more can be sent: after Fail, Close, CloseNow, or
// an error.
func (c *Conn) Done() <-chan struct{} { return c.sock.out.Load().closing }

// Finish lets the writer send what is queued and a close frame with code and
// reason (at most 123 bytes, longer ones are cut), and then end the connection:
// when the peer has answered, or after a second. It does not wait. Somebody has
// to go on reading, see Drain; otherwise the peer may never see the reason.
func (c *Conn) Finish(code uint16, reason string) {
	c.sock.out.Load().finish(net.ErrClosed, code, reason)
}

// Drain reads and forgets until the connection ends. It is for a reader that
// stops after Finish or while somebody else calls Close.
func (c *Conn) Drain() {
	for {
		if c.body != nil {
			if _, err := io.Copy(io.Discard, c.body); err != nil {
				return
			}
		}
		if c.Next() != nil {
			return
		}
	}
}

// Close is Finish that waits for the end of the connection, a bit more than a
// second at most, and releases it.
func (c *Conn) Close(code uint16, reason string) {
	c.Finish(code, reason)
	<-c.sock.out.Load().done
	c.CloseNow()
}

// CloseNow releases the connection without a farewell and waits for the writer.
func (c *Conn) CloseNow() {
	o := c.sock.out.Load()
	o.fail(net.ErrClosed)
	<-o.done
	c.ws.CloseNow()
}

// socket is the network connection as coder/websocket sees it. Once the
// handshake is done its writes, which are control frames then, go to the outbox.
type socket struct {
	*nonblock.Conn
	out  atomic.Pointer[outbox]
	born time.Time
	last atomic.Int64 // nanoseconds from born to the last byte received
}

func newSocket(conn net.Conn) *socket {
	return &socket{Conn: nonblock.NewConn(conn), born: time.Now()}
}

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 {
		s.last.Store(int64(time.Since(s.born)))
	}
	return n, err
}

func (s *socket) idle() time.Duration {
	return time.Since(s.born) - time.Duration(s.last.Load())
}

func (s *socket) Write(p []byte) (int, error) {
	if o := s.out.Load(); o != nil {
		return len(p), o.control(p)
	}
	return s.Conn.Write(p)
}

// Close is called by coder/websocket when it has ended the connection, perhaps
// after it has just written its close frame. The writer closes the network
// connection when that has left.
func (s *socket) Close() error {
	o := s.out.Load()
	if o == nil {
		return s.Conn.Close()
	}
	o.peerDone()
	return s.SetReadDeadline(time.Now())
}
