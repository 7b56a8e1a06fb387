package session

import (
	"net"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// flow is what streams and flows of datagrams share: the handle of an
// application on a stream of the core, which it guards with the session's
// mutex.
type flow struct {
	s  *Session
	st *stream

	reader, writer  sync.Cond
	readBy, writeBy deadline
	closed          bool
	writing         bool // a Write is under way
	lent            bool // WriteTo has the data
}

// newFlow makes the handle of st. The session is locked.
func newFlow(s *Session, st *stream) *flow {
	f := &flow{s: s, st: st}
	f.reader.L, f.writer.L = &s.mu, &s.mu
	st.owner = f
	return f
}

// conn is the handle as its user knows it.
func (f *flow) conn() net.Conn {
	if f.st.dg != nil {
		return &Datagrams{f}
	}
	return &Stream{f}
}

func (f *flow) wakeReader() { f.reader.Broadcast() }
func (f *flow) wakeWriter() { f.writer.Broadcast() }

// Close is for a user who is done: it returns at once, what was written still
// goes out, and what the other end still sends is thrown away.
func (f *flow) Close() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	now := f.s.now()
	f.release()
	f.s.core.close(now, f.st)
	f.s.after(now)
	return nil
}

// Abort resets the stream: the other end's reads and writes fail with err's
// code. err may be nil.
func (f *flow) Abort(err error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.closed {
		return
	}
	f.release()
	// The text of a local error stays here: it may name local addresses.
	code := wire.CodeOf(err)
	if code == wire.CodeNone || code == wire.CodeInternal {
		code = wire.CodeReset
	}
	f.s.core.reset(f.st, code, "")
	f.s.after(f.s.now())
}

// release ends every wait on f.
func (f *flow) release() {
	f.closed = true
	f.readBy.stop()
	f.writeBy.stop()
	f.reader.Broadcast()
	f.writer.Broadcast()
}

// LocalAddr is not an address of any network: the session has none.
func (f *flow) LocalAddr() net.Addr { return Addr{f.st.network.String(), ""} }

// RemoteAddr is the destination as the dialer named it.
func (f *flow) RemoteAddr() net.Addr { return Addr{f.st.network.String(), f.st.dest} }

// Addr is the address of a stream's end.
type Addr struct{ network, address string }

// Network is "tcp", "udp", "dns" or "ping".
func (a Addr) Network() string { return a.network }

// String is the destination, or "" for this end.
func (a Addr) String() string { return a.address }

// SetDeadline sets both deadlines; the zero time is none.
func (f *flow) SetDeadline(t time.Time) error {
	f.SetReadDeadline(t)
	return f.SetWriteDeadline(t)
}

// SetReadDeadline makes reads fail after t.
func (f *flow) SetReadDeadline(t time.Time) error {
	return f.setDeadline(&f.readBy, &f.reader, t)
}

// SetWriteDeadline makes writes fail after t.
func (f *flow) SetWriteDeadline(t time.Time) error {
	return f.setDeadline(&f.writeBy, &f.writer, t)
}

func (f *flow) setDeadline(d *deadline, waiting *sync.Cond, t time.Time) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	d.stop()
	d.at = t
	waiting.Broadcast()
	if left := time.Until(t); !t.IsZero() && left > 0 {
		d.timer = time.AfterFunc(left, func() {
			f.s.mu.Lock()
			defer f.s.mu.Unlock()
			waiting.Broadcast()
		})
	}
	return nil
}

// deadline is a point in time at which waiting ends.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
