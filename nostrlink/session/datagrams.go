package session

import (
	"io"
	"net"
	"os"
	"syscall"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

// Datagrams is a flow of datagrams: a net.Conn that keeps their boundaries, as
// a connected UDP socket does. Datagrams may get lost, repeated or reordered;
// a reader or a path that is too slow loses the oldest. All methods are safe
// for concurrent use; errors are as with Stream.
type Datagrams struct{ *flow }

var (
	_ net.Conn       = (*Datagrams)(nil)
	_ splice.Aborter = (*Datagrams)(nil)
	_ io.WriterTo    = (*Datagrams)(nil)
)

// Read reads one datagram. What does not fit into p is lost.
func (f *Datagrams) Read(p []byte) (int, error) {
	d, err := f.next()
	return copy(p, d), err
}

// WriteTo writes every datagram received to w, with one Write each, until the
// flow or w fails. It holds no buffer while it waits.
func (f *Datagrams) WriteTo(w io.Writer) (total int64, err error) {
	for {
		d, err := f.next()
		if err != nil {
			return total, err
		}
		n, err := w.Write(d)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// next waits for a datagram and takes it.
func (f *Datagrams) next() ([]byte, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	for {
		switch {
		case f.closed:
			return nil, net.ErrClosed
		case f.readBy.passed():
			return nil, os.ErrDeadlineExceeded
		}
		if d, ok := f.s.core.takeDatagram(f.st); ok {
			return d, nil
		}
		if err := f.failed(); err != nil {
			return nil, err
		}
		if f.s.core.ask(f.st) {
			f.s.after(f.s.now())
		}
		f.reader.Wait()
	}
}

// failed is why the flow goes on no more, or nil. Of one that was neither read nor
// written before the session ended, the session has not heard. f.s.mu is held.
func (f *Datagrams) failed() error {
	if f.st.err != nil {
		return f.st.err
	}
	return f.s.core.err
}

// MaxDatagram is the longest datagram that Write takes now, in bytes. It changes
// when carriers come and go.
func (f *Datagrams) MaxDatagram() int {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	return f.s.core.largestDatagram()
}

// Write sends p as one datagram. It does not wait; one that is too large for
// the carriers fails with EMSGSIZE.
func (f *Datagrams) Write(p []byte) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	err := f.failed()
	switch {
	case f.closed:
		return 0, net.ErrClosed
	case f.writeBy.passed():
		return 0, os.ErrDeadlineExceeded
	case err != nil:
		return 0, err
	case len(p) > f.s.core.largestDatagram():
		return 0, syscall.EMSGSIZE
	}
	f.s.core.sendDatagram(f.st, p)
	f.s.after(f.s.now())
	return len(p), nil
}
