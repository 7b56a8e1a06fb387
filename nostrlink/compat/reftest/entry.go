package reftest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// Lifetime is how long a stream of an Entry lives, whatever happens on it.
const Lifetime = 10 * time.Second

// Entry is an entry node of the reference.
type Entry struct {
	Exit  envelope.PublicKey
	Relay Relay
	// Listener takes the connections that an exit makes to PublicAddress, for
	// CONNECTR. Both or neither. Serve must run then.
	Listener      net.Listener
	PublicAddress string

	mu      sync.Mutex
	waiting map[string]chan net.Conn
}

// Dial opens a stream to address, host:port or a .nostr name without a port,
// from a new key. The request has been taken by the relay when Dial returns.
func (n *Entry) Dial(address string) (net.Conn, error) {
	own, err := envelope.GenerateSecretKey()
	if err != nil {
		return nil, err
	}
	s := &stream{
		own: own, peer: n.Exit, relay: n.Relay, id: wire.NewUUID().String(), dest: address,
		lazy: true, read: make(map[[32]byte]bool),
	}
	s.ctx, s.cancel = context.WithTimeout(context.Background(), Lifetime)
	m := &wire.Message{Key: s.id, Type: wire.TypeConnect, Destination: address}
	var reverse chan net.Conn
	if n.Listener != nil {
		m.Type, m.EntryPublicAddress = wire.TypeConnectReverse, n.PublicAddress
		reverse = make(chan net.Conn, 1)
		n.mu.Lock()
		if n.waiting == nil {
			n.waiting = make(map[string]chan net.Conn)
		}
		n.waiting[s.id] = reverse
		n.mu.Unlock()
	}
	event, id, err := seal(own, n.Exit, m)
	if err == nil {
		err = n.Relay.Publish(s.ctx, event, id)
	}
	if err != nil {
		s.cancel()
		return nil, err
	}
	if reverse == nil {
		return streamConn{s}, nil
	}
	s.cancel()
	// The reference waits for ever; a test shall not.
	select {
	case conn := <-reverse:
		return conn, nil
	case <-time.After(Lifetime):
		return nil, errors.New("reftest: no exit has connected")
	}
}

// Serve takes the connections of CONNECTR until ctx ends.
func (n *Entry) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { n.Listener.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := n.Listener.Accept()
		if err != nil {
			return err
		}
		wg.Go(func() {
			hangUp := context.AfterFunc(ctx, func() { conn.Close() })
			defer hangUp()
			n.meet(conn)
		})
	}
}

func (n *Entry) meet(conn net.Conn) {
	for {
		var key [36]byte
		if _, err := conn.Read(key[:]); err != nil {
			return
		}
		n.mu.Lock()
		reverse := n.waiting[string(key[:])]
		delete(n.waiting, string(key[:]))
		n.mu.Unlock()
		if reverse == nil {
			continue // and does not close
		}
		if _, err := conn.Write([]byte{1}); err == nil {
			reverse <- conn
		}
		return
	}
}

// streamConn makes a net.Conn of a stream, as far as the reference does.
type streamConn struct{ *stream }

func (streamConn) LocalAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9333}
}
func (streamConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (streamConn) SetDeadline(time.Time) error      { return nil }
func (streamConn) SetReadDeadline(time.Time) error  { return nil }
func (streamConn) SetWriteDeadline(time.Time) error { return nil }

var _ io.ReadWriteCloser = (*stream)(nil)
