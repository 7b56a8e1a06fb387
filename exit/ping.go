package exit

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

const (
	// maxPings bounds the flows of echoes open at a time, a socket for each.
	maxPings = 256
	// pingIdle ends a flow of echoes in which none passes.
	pingIdle = 30 * time.Second
)

// servePing carries a flow of echoes: each datagram is the sequence number (2
// bytes, big endian) of an ICMP echo and its payload. The exit's own name is
// answered by the exit itself, all else by who has the address.
func (s *Server) servePing(ctx context.Context, req Request) {
	select {
	case s.pings <- struct{}{}:
		defer func() { <-s.pings }()
	default:
		s.reject(req, refuse(ReasonBusy, "the exit has too many pings under way: try again later"))
		return
	}
	d, err := parseHost(req.Address())
	if err == nil && d.exit != nil && *d.exit != s.siteOf(req).key {
		err = refuse(ReasonOtherExit, "this is another exit's name: ping that exit itself")
	}
	var out net.Conn
	if err == nil && d.exit == nil {
		out, err = s.reachOut(ctx, wishOf(req, d), d)
	}
	if err != nil {
		s.rejectAt(ctx, req, err)
		return
	}
	s.join(ctx, req, out, func(in net.Conn) (splice.Stats, error) {
		s.pingFlows.Add(1)
		idle := patience{pingIdle, pingIdle}
		if out == nil {
			return mirrorDatagrams(in, idle)
		}
		return relayDatagrams(in, out, idle)
	})
}

// openPing opens a socket for echoes to one of addrs, which the policy judges
// once more.
func (s *Server) openPing(g *gate, q wish, addrs []netip.Addr) (net.Conn, error) {
	var failed error
	for _, a := range interleave(addrs) {
		if err := g.check(q, a); err != nil {
			return nil, err
		}
		conn, err := s.pingSocket(a)
		if err == nil {
			return conn, nil
		}
		failed = tellingError(failed, err)
	}
	switch {
	case errors.Is(failed, errors.ErrUnsupported):
		return nil, refuse(ReasonNetwork, "this exit's system has no way to ping")
	case errors.Is(failed, os.ErrPermission):
		s.pingDenied.Do(func() {
			s.log.Warn("exit: this process may not ping for others: allow its group in net.ipv4.ping_group_range, or give it CAP_NET_RAW", "err", failed)
		})
		return nil, refuse(ReasonNoPing, "this exit may not ping")
	}
	return nil, failed
}

const echoHeader = 8 // bytes: type, code, checksum, identifier, sequence

// echoConn is a socket for ICMP echoes to one address as a flow: what is written
// and read begins with the sequence number.
type echoConn struct {
	net.Conn
	format echoFormat
}

// echoFormat is how a socket's messages look.
type echoFormat struct {
	v6    bool
	raw   bool   // the kernel leaves identifiers to us, and other people's replies
	ident uint16 // for raw
}

var _ io.WriterTo = (*echoConn)(nil)

// Write sends one echo request.
func (c *echoConn) Write(p []byte) (int, error) {
	if len(p) < 2 {
		return len(p), nil // nothing that could be sent; the peer's fault
	}
	buf := datagramBuffers.Get().(*[maxDatagram]byte)
	defer datagramBuffers.Put(buf)
	m, ok := c.format.appendRequest(buf[:0], p)
	if !ok {
		return len(p), nil
	}
	if _, err := c.Conn.Write(m); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteTo writes each reply to w.
func (c *echoConn) WriteTo(w io.Writer) (int64, error) {
	return 0, copySocket(replyWriter{c.format, w}, c.Conn)
}

// replyWriter takes a socket's messages and passes the replies on.
type replyWriter struct {
	format echoFormat
	to     io.Writer
}

func (w replyWriter) Write(m []byte) (int, error) {
	if reply, ok := w.format.parseReply(m); ok {
		if _, err := w.to.Write(reply); err != nil {
			return 0, err
		}
	}
	return len(m), nil
}

// appendRequest appends the echo request (RFC 792, RFC 4443) for p, a sequence
// number and payload. It is false when that is too long for one.
func (f echoFormat) appendRequest(b, p []byte) ([]byte, bool) {
	const maxMessage = 65535 - 20
	if len(p)-2+echoHeader > maxMessage {
		return b, false
	}
	kind := byte(8)
	if f.v6 {
		kind = 128
	}
	start := len(b)
	b = append(b, kind, 0, 0, 0, byte(f.ident>>8), byte(f.ident))
	b = append(b, p...)
	if f.raw && !f.v6 { // the kernel makes all other sums
		sum := ^sum16(b[start:])
		b[start+2], b[start+3] = byte(sum>>8), byte(sum)
	}
	return b, true
}

// parseReply returns the sequence number and payload of a reply, borrowed from
// m. It is false for anything else that a socket brings.
func (f echoFormat) parseReply(m []byte) ([]byte, bool) {
	if f.raw && !f.v6 { // with the IP header
		if len(m) < 20 || m[0]>>4 != 4 {
			return nil, false
		}
		if size := int(m[0]&15) * 4; size >= 20 && size <= len(m) {
			m = m[size:]
		} else {
			return nil, false
		}
	}
	kind := byte(0)
	if f.v6 {
		kind = 129
	}
	if len(m) < echoHeader || m[0] != kind || m[1] != 0 {
		return nil, false
	}
	if f.raw && (byte(f.ident>>8) != m[4] || byte(f.ident) != m[5]) {
		return nil, false
	}
	return m[6:], true
}

// sum16 is the internet checksum's sum (RFC 1071).
func sum16(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
