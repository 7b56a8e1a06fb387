package session

import (
	"net"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Request is a stream or flow that the other end wants opened. It ends in
// exactly one Accept or Reject.
type Request struct {
	s  *Session
	st *stream
}

// Network is "tcp", "udp", "dns" or "ping".
func (r *Request) Network() string { return r.st.network.String() }

// Address is the destination as the dialer gave it: host:port; for "ping" a
// host; for "dns" nothing.
func (r *Request) Address() string { return r.st.dest }

// ID is the stream's UUID, its key in NWS messages.
func (r *Request) ID() [16]byte { return r.st.uuid }

// Accept opens it: a *Stream for "tcp" and "dns", a *Datagrams for "udp" and
// "ping". What the dialer has sent already waits in it. It fails when the
// dialer no longer wants it.
func (r *Request) Accept() (net.Conn, error) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.core.accept(r.st); err != nil {
		return nil, err
	}
	f := newFlow(s, r.st)
	s.after(s.now())
	return f.conn(), nil
}

// Reject refuses it; the dialer gets wire.CodeOf(err) and the text of err, from
// DialContext or from a later Read or Write. After an answer it does nothing.
func (r *Request) Reject(err error) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	e := wire.AsError(err)
	if e == nil {
		e = &wire.Error{Code: wire.CodeRefused}
	}
	s.core.refuse(r.st, e.Code, e.Text)
	s.after(s.now())
}
