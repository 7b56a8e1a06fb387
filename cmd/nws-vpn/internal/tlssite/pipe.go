package tlssite

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

// newPipe returns the ends of a connection inside this process. Unlike
// net.Pipe's they half-close and reset like those of TCP, and they hold no
// buffer: what is written is handed to whoever reads. They know no deadlines.
func newPipe() (a, b *end) {
	x, y := newHalf(), newHalf()
	return &end{in: x, out: y}, &end{in: y, out: x}
}

// end is one end of a pipe.
type end struct{ in, out *half }

var (
	_ splice.Conn    = (*end)(nil)
	_ splice.Aborter = (*end)(nil)
	_ io.WriterTo    = (*end)(nil)
)

func (e *end) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return e.in.take(func(b []byte) (int, error) { return copy(p, b), nil })
}

// WriteTo implements io.WriterTo without a buffer.
func (e *end) WriteTo(w io.Writer) (total int64, err error) {
	for {
		n, err := e.in.take(w.Write)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func (e *end) Write(p []byte) (int, error) { return e.out.give(p) }

func (e *end) CloseWrite() error {
	e.out.end(io.EOF)
	return nil
}

func (e *end) Close() error {
	e.out.end(io.EOF)
	e.in.leave(syscall.EPIPE)
	return nil
}

// Abort resets the connection: the other end's calls fail with err.
func (e *end) Abort(err error) {
	e.out.end(err)
	e.in.leave(err)
}

func (e *end) LocalAddr() net.Addr              { return pipeAddr{} }
func (e *end) RemoteAddr() net.Addr             { return pipeAddr{} }
func (e *end) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (e *end) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (e *end) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// half is one direction.
type half struct {
	giving sync.Mutex // one give at a time
	data   chan []byte
	taken  chan int // the answer to each data

	ended, gone       chan struct{} // the writer's end, the reader's
	endOnce, goneOnce sync.Once
	endErr, goneErr   error // what the other side gets; set before the close
}

func newHalf() *half {
	return &half{
		data: make(chan []byte), taken: make(chan int),
		ended: make(chan struct{}), gone: make(chan struct{}),
	}
}

func (h *half) end(err error) {
	h.endOnce.Do(func() {
		h.endErr = err
		close(h.ended)
	})
}

func (h *half) leave(err error) {
	h.goneOnce.Do(func() {
		h.goneErr = err
		close(h.gone)
	})
}

func (h *half) give(p []byte) (total int, err error) {
	h.giving.Lock()
	defer h.giving.Unlock()
	for len(p) > 0 {
		select {
		case <-h.ended: // before all else: nothing passes after it
			return total, net.ErrClosed
		default:
		}
		select {
		case h.data <- p:
			n := <-h.taken
			total, p = total+n, p[n:]
		case <-h.gone:
			return total, h.goneErr
		case <-h.ended:
			return total, net.ErrClosed
		}
	}
	return total, nil
}

// take hands what is given to use, and returns what use does.
func (h *half) take(use func([]byte) (int, error)) (n int, err error) {
	select {
	case p := <-h.data:
		defer func() { h.taken <- n }()
		return use(p)
	case <-h.ended:
		return 0, h.endErr
	case <-h.gone:
		return 0, net.ErrClosed
	}
}
