package dnsintercept

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

// dialer is what both netstack.Dialer and net.Dialer are.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// nameDialer puts names in the place of fake addresses.
type nameDialer struct {
	i    *Interceptor
	next dialer
}

// DialContext dials address, or the name that it stands for. The address is
// not given to another name while the connection is open.
func (d *nameDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !d.i.pool.Contains(ap.Addr()) {
		return d.next.DialContext(ctx, network, address)
	}
	host, release, ok := d.i.pool.Acquire(ap.Addr())
	if !ok {
		return nil, fmt.Errorf("dnsintercept: no name has the address %s: %w", ap.Addr(), syscall.ECONNREFUSED)
	}
	n, err := d.i.names.Lookup(host)
	if err != nil { // a petname that the configuration has no more
		release()
		return nil, fmt.Errorf("dnsintercept: %w: %w", err, syscall.ECONNREFUSED)
	}
	conn, err := d.next.DialContext(ctx, network, net.JoinHostPort(n.Host(), strconv.Itoa(int(ap.Port()))))
	if err != nil {
		release()
		return nil, err
	}
	return held(conn, release), nil
}

type closeWriter interface{ CloseWrite() error }

// held calls release when conn is closed. The result can half-close and write
// itself to somebody if conn can.
func held(conn net.Conn, release func()) net.Conn {
	h := &heldConn{conn, release}
	half, isHalf := conn.(closeWriter)
	from, isFrom := conn.(io.WriterTo)
	switch {
	case isHalf && isFrom:
		return struct {
			*heldConn
			closeWriter
			io.WriterTo
		}{h, half, from}
	case isHalf:
		return struct {
			*heldConn
			closeWriter
		}{h, half}
	case isFrom:
		return struct {
			*heldConn
			io.WriterTo
		}{h, from}
	}
	return h
}

type heldConn struct {
	net.Conn
	release func()
}

func (h *heldConn) Close() error {
	defer h.release()
	return h.Conn.Close()
}

// Abort resets the connection if it can be.
func (h *heldConn) Abort(err error) {
	defer h.release()
	splice.Abort(h.Conn, err)
}
