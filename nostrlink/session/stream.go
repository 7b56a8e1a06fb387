package session

import (
	"io"
	"net"
	"os"
	"syscall"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

// Stream is one stream of a session: a net.Conn whose sending half can be
// closed on its own. All methods are safe for concurrent use.
//
// Reads give what the other end wrote, then io.EOF if it closed its sending
// half, or a *wire.Error if it reset the stream; what arrived before a reset
// can still be read. When the session ends, reads and writes fail with its
// error. After Close they fail with net.ErrClosed, past a deadline with
// os.ErrDeadlineExceeded.
type Stream struct{ *flow }

var (
	_ splice.Conn    = (*Stream)(nil)
	_ splice.Aborter = (*Stream)(nil)
	_ io.WriterTo    = (*Stream)(nil)
	_ io.ReaderFrom  = (*Stream)(nil)
)

// Read reads into p. It waits until there is something.
func (f *Stream) Read(p []byte) (n int, err error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.awaitData(); err != nil {
		return 0, err
	}
	now := f.s.now()
	for n < len(p) {
		b := f.s.core.readable(f.st, len(p)-n)
		if len(b) == 0 {
			break
		}
		n += copy(p[n:], b)
		f.s.core.consume(now, f.st, len(b))
	}
	f.s.after(now)
	return n, nil
}

// awaitData waits until something can be read.
func (f *Stream) awaitData() error {
	for {
		switch {
		case f.closed:
			return net.ErrClosed
		case f.readBy.passed():
			return os.ErrDeadlineExceeded
		case f.lent: // to WriteTo
		case len(f.s.core.readable(f.st, 1)) > 0:
			return nil
		case f.st.in.atEnd() && f.st.in.err != nil:
			return f.st.in.err
		case f.st.in.atEnd():
			return io.EOF
		}
		f.reader.Wait()
	}
}

// WriteTo writes what is read to w until the stream ends, without a buffer of
// its own: w gets the memory the data arrived in. It is how splice.Join copies.
func (f *Stream) WriteTo(w io.Writer) (total int64, err error) {
	for {
		b, err := f.lend()
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(b)
		f.giveBack(n)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// lend waits for data and takes it out of every other reader's reach.
func (f *Stream) lend() ([]byte, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.awaitData(); err != nil {
		return nil, err
	}
	f.lent = true
	f.st.in.buf.pinned = true
	return f.s.core.readable(f.st, cellSize), nil
}

// giveBack ends what lend began, when n of its bytes have been used.
func (f *Stream) giveBack(n int) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.lent = false
	f.st.in.buf.pinned = false
	now := f.s.now()
	f.s.core.consume(now, f.st, n)
	f.reader.Broadcast()
	f.s.after(now)
}

// Write writes p. It waits while the stream's buffer is full.
func (f *Stream) Write(p []byte) (n int, err error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	for f.writing { // writes do not mix
		if err := f.writeError(); err != nil {
			return 0, err
		}
		f.writer.Wait()
	}
	f.writing = true
	defer func() {
		f.writing = false
		f.writer.Broadcast()
	}()
	for {
		if err := f.writeError(); err != nil {
			return n, err
		}
		m := f.s.core.write(f.st, p[n:])
		n += m
		if m > 0 {
			f.s.after(f.s.now())
		}
		if n == len(p) {
			return n, nil
		}
		if m == 0 {
			f.writer.Wait()
		}
	}
}

func (f *Stream) writeError() error {
	switch {
	case f.closed:
		return net.ErrClosed
	case f.writeBy.passed():
		return os.ErrDeadlineExceeded
	case f.st.err != nil:
		return f.st.err
	case f.st.out.err != nil:
		return f.st.out.err
	case f.st.out.fin:
		return syscall.EPIPE
	}
	return nil
}

// ReadFrom writes what r gives until that ends. It holds a buffer while it
// waits for r.
func (f *Stream) ReadFrom(r io.Reader) (int64, error) {
	buf := cellPool.Get().(*[cellSize]byte)
	defer cellPool.Put(buf)
	// The struct hides ReadFrom, which would call itself.
	return io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{r}, buf[:])
}

// CloseWrite ends the direction written; the other end reads io.EOF after the
// last byte. Reading goes on.
func (f *Stream) CloseWrite() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	f.s.core.closeWrite(f.st)
	f.writer.Broadcast()
	f.s.after(f.s.now())
	return nil
}
