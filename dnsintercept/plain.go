package dnsintercept

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"
)

// serverTimeout is how long one name server may take before the next is asked.
const serverTimeout = 1500 * time.Millisecond

// PlainUpstream is an Upstream of name servers that are asked as any resolver
// does: over UDP, and over TCP for what does not fit; the next one when one does
// not answer. Both fields are called concurrently.
type PlainUpstream struct {
	Servers func() []netip.Addr
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// Exchange sends query and waits for its answer, see Upstream.
func (u *PlainUpstream) Exchange(ctx context.Context, query []byte) ([]byte, error) {
	if len(query) < headerLen || len(query) > maxMsg {
		return nil, errors.New("dnsintercept: not a DNS message")
	}
	// The ID is ours: one that a program has chosen badly helps those who guess.
	query = bytes.Clone(query)
	if _, err := rand.Read(query[:2]); err != nil {
		return nil, err
	}
	last := errors.New("dnsintercept: no name server is known outside the tunnel")
	for _, server := range u.Servers() {
		answer, err := u.ask(ctx, netip.AddrPortFrom(server, dnsPort).String(), query)
		if err == nil {
			return answer, nil
		}
		if last = err; ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

func (u *PlainUpstream) ask(ctx context.Context, server string, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	answer, err := u.on(ctx, "udp", server, func(conn net.Conn) ([]byte, error) { return askDatagram(conn, query) })
	if err != nil || answer[2]&(flagTC>>8) == 0 {
		return answer, err
	}
	return u.on(ctx, "tcp", server, func(conn net.Conn) ([]byte, error) { return askStream(conn, query) })
}

// on talks on a connection until ctx ends.
func (u *PlainUpstream) on(ctx context.Context, network, server string, talk func(net.Conn) ([]byte, error)) ([]byte, error) {
	conn, err := u.Dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return talk(conn)
}

// askDatagram returns the first datagram that answers query: others may come from
// anybody who says that he is the server.
func askDatagram(conn net.Conn, query []byte) ([]byte, error) {
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, maxUDP+1)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if !answers(buf[:n], query) {
			continue
		}
		if n > maxUDP {
			buf[2] |= flagTC >> 8 // it was cut, here
		}
		return buf[:n], nil
	}
}

func askStream(conn net.Conn, query []byte) ([]byte, error) {
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	answer, err := readFrame(conn, maxMsg)
	if err == nil && !answers(answer, query) {
		err = errors.New("dnsintercept: the name server answered another query")
	}
	return answer, err
}

// answers reports whether a message looks like query's answer: its ID and, unless
// the server left that out, its question.
func answers(answer, query []byte) bool {
	if len(answer) < headerLen || answer[2]&(flagQR>>8) == 0 || !bytes.Equal(answer[:2], query[:2]) {
		return false
	}
	q, err := parseQuery(query)
	if err != nil || binary.BigEndian.Uint16(answer[4:]) == 0 {
		return err == nil && answer[3]&0xf != 0
	}
	return len(answer) >= q.end && sameQuestion(answer[headerLen:q.end], query[headerLen:q.end])
}
