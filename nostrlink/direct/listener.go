package direct

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a Listener.
const (
	maxStrangers  = 64 // connections that have not proven themselves
	strangersEach = 8  // of them from one address, or one /64 of IPv6
	maxExpected   = 4096
	meetTimeout   = 5 * time.Second
	tlsHandshake  = 0x16 // the first byte of what begins with a ClientHello
	acceptAgain   = 100 * time.Millisecond
)

// Listener takes the connections of sessions' other ends. All methods may be
// called concurrently.
type Listener struct {
	listener  net.Listener
	addresses []string
	plain     *plainListener
	wg        sync.WaitGroup

	mu        sync.Mutex
	expected  map[string]*expectation // by the name of the session
	strangers map[net.Conn]netip.Addr
	each      map[netip.Addr]int
	closed    bool

	taken, refused, dropped atomic.Uint64
}

type expectation struct {
	badge *badge
	take  func(*Conn)
}

// NewListener returns one that accepts on l and is offered to the other ends as
// addresses, host:port. Serve must follow; it closes l.
func NewListener(l net.Listener, addresses ...string) *Listener {
	return &Listener{
		listener: l, addresses: addresses,
		plain:     newPlainListener(l.Addr()),
		expected:  make(map[string]*expectation),
		strangers: make(map[net.Conn]netip.Addr),
		each:      make(map[netip.Addr]int),
	}
}

// Addresses are those that the listener is offered as.
func (l *Listener) Addresses() []string { return l.addresses }

// Plain returns a listener for the connections that do not begin like TLS, so
// that something else can share the port. Until it is asked for, and when it
// does not keep up, they are closed.
func (l *Listener) Plain() net.Listener {
	l.plain.wanted.Store(true)
	return l.plain
}

// ListenerStats count the connections of a Listener.
type ListenerStats struct {
	Taken   uint64 // for a session
	Refused uint64 // that proved nothing, or nothing in time
	Dropped uint64 // for want of room
}

// Stats returns the present counts.
func (l *Listener) Stats() ListenerStats {
	return ListenerStats{Taken: l.taken.Load(), Refused: l.refused.Load(), Dropped: l.dropped.Load()}
}

// Expect has connections of a session's other end taken until stop is called;
// end is which end we are. take gets them, and owns them; it must not block,
// and is not called any more once stop has returned.
func (l *Listener) Expect(s Secret, end End, take func(*Conn)) (stop func(), err error) {
	b, err := newBadge(s, end)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, net.ErrClosed
	case len(l.expected) >= maxExpected:
		return nil, ErrBusy
	}
	x := &expectation{b, take}
	l.expected[b.name] = x
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.expected[b.name] == x {
			delete(l.expected, b.name)
		}
	}, nil
}

// Serve accepts until ctx ends, and returns when nothing of that is left but the
// connections that were taken.
func (l *Listener) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.listener.Close() })
	defer stop()
	defer l.wg.Wait()
	defer l.hangUp()
	for {
		conn, err := l.listener.Accept()
		switch {
		case err == nil:
			l.accept(conn)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return err
		default: // no sockets left, perhaps
			select {
			case <-ctx.Done():
			case <-time.After(acceptAgain):
			}
		}
	}
}

// hangUp closes what has not proven itself.
func (l *Listener) hangUp() {
	l.listener.Close()
	l.plain.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for conn := range l.strangers {
		conn.Close()
	}
}

// accept meets a new connection, in a goroutine of its own, if there is room.
func (l *Listener) accept(conn net.Conn) {
	from := source(conn)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.strangers) >= maxStrangers || l.each[from] >= strangersEach {
		l.dropped.Add(1)
		conn.Close()
		return
	}
	l.strangers[conn] = from
	l.each[from]++
	l.wg.Go(func() { l.meet(conn) })
}

// source is where a connection is from, as far as one person may have many
// addresses.
func source(conn net.Conn) netip.Addr {
	ap, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	a := ap.Addr().Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// part says that a connection is no stranger any more.
func (l *Listener) part(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := l.strangers[conn]
	delete(l.strangers, conn)
	if l.each[from]--; l.each[from] == 0 {
		delete(l.each, from)
	}
}

// meet finds out whose connection it is.
func (l *Listener) meet(conn net.Conn) {
	defer l.part(conn)
	if err := conn.SetDeadline(time.Now().Add(meetTimeout)); err != nil {
		conn.Close()
		return
	}
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		l.refuse(conn)
		return
	}
	begun := &begunConn{Conn: conn, first: first[:]}
	if first[0] != tlsHandshake {
		conn.SetDeadline(time.Time{})
		if !l.plain.put(begun) {
			l.refuse(conn)
		}
		return
	}
	l.secure(conn, begun)
}

func (l *Listener) refuse(conn net.Conn) {
	l.refused.Add(1)
	conn.Close()
}

// secure does the handshake, and gives the connection to who expects it.
func (l *Listener) secure(conn net.Conn, begun *begunConn) {
	var x *expectation
	secured := tls.Server(begun, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if x = l.expected[hello.ServerName]; x == nil {
				return nil, ErrStranger
			}
			return x.badge.config(), nil
		},
	})
	if err := secured.Handshake(); err != nil {
		l.refuse(conn)
		return
	}
	conn.SetDeadline(time.Time{})
	c := newConn(conn, secured)
	if err := c.Send(nil); err != nil { // says that it is taken
		l.refuse(conn)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.expected[x.badge.name] != x {
		l.refuse(conn)
		return
	}
	l.taken.Add(1)
	x.take(c)
}
