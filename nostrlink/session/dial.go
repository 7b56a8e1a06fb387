package session

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// DialContext opens a stream or a flow of datagrams to address through the
// other end. Only a Dialer's session dials.
//
// With "tcp", and with "dns" for the other end's resolver (address is ""), the
// result is a *Stream, once the other end has accepted it. A refusal is a
// *wire.Error, which unwraps to the errno a local dial would have failed with.
// When ctx ends first the other end is told. ErrEnded says that nothing was sent.
//
// With "udp", and with "ping" for echoes (address is a host without a port),
// the result is a *Datagrams, at once: the first datagram asks for the flow.
// A refusal comes as the error of a later Read or Write.
func (s *Session) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	kind, err := networkNamed(network)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.dial(kind, address, nil)
	if err != nil {
		return nil, err
	}
	if isFlow(kind) {
		return f.conn(), nil
	}
	if err := f.awaitOpened(ctx); err != nil {
		return nil, err
	}
	return f.conn(), nil
}

// DialEarly opens a stream for a client that speaks first: it returns at once,
// and first, and what is written before the other end has answered, travels
// without waiting for the answer. A refusal comes as the error of a later Read
// or Write, a *wire.Error. network is "tcp" or "dns". first is copied; it may
// have up to 16 KiB.
func (s *Session) DialEarly(network, address string, first []byte) (net.Conn, error) {
	kind, err := networkNamed(network)
	if err != nil {
		return nil, err
	}
	if isFlow(kind) {
		return nil, net.UnknownNetworkError(network)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.dial(kind, address, first)
	if err != nil {
		return nil, err
	}
	return f.conn(), nil
}

func networkNamed(name string) (wire.Network, error) {
	for _, n := range [...]wire.Network{wire.NetworkTCP, wire.NetworkUDP, wire.NetworkDNS, wire.NetworkPing} {
		if n.String() == name {
			return n, nil
		}
	}
	return 0, net.UnknownNetworkError(name)
}

// dial makes the stream and its handle. The session is locked.
func (s *Session) dial(network wire.Network, address string, first []byte) (*flow, error) {
	if s.core.cfg.Role != Dialer {
		return nil, &wire.Error{Code: wire.CodeUnsupported, Text: "the listening end of a session cannot dial"}
	}
	var uuid [16]byte
	rand.Read(uuid[:])
	uuid[6], uuid[8] = uuid[6]&0x0f|0x40, uuid[8]&0x3f|0x80 // RFC 9562, version 4
	st, err := s.core.dial(network, address, uuid, first)
	if err != nil {
		return nil, err
	}
	f := newFlow(s, st)
	s.after(s.now())
	return f, nil
}

// awaitOpened waits for the other end's answer.
func (f *flow) awaitOpened(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		f.s.mu.Lock()
		defer f.s.mu.Unlock()
		f.writer.Broadcast()
	})
	defer stop()
	for f.st.phase == opening && f.st.err == nil {
		if ctx.Err() != nil {
			f.s.core.reset(f.st, wire.CodeCancelled, "")
			f.s.after(f.s.now())
			return fmt.Errorf("session: dial: %w", ctx.Err())
		}
		f.writer.Wait()
	}
	return f.st.err
}
