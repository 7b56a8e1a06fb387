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

// earlyDialer is netstack.EarlyDialer without the rest.
type earlyDialer interface {
	DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error)
}

// nameDialer puts names in the place of fake addresses.
type nameDialer struct {
	i    *Interceptor
	next dialer
}

// DialContext dials address, or the name that it stands for. The address is
// not given to another name while the connection is open.
func (d *nameDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return d.i.dialName(network, address, func(address string, outside bool) (net.Conn, error) {
		if outside {
			return d.i.split.Dialer.DialContext(ctx, network, address)
		}
		return d.next.DialContext(ctx, network, address)
	})
}

// earlyNameDialer is a nameDialer whose next one dials early, too.
type earlyNameDialer struct {
	nameDialer
	early earlyDialer
}

// DialEarly does what DialContext does, with the connection's first bytes.
func (d *earlyNameDialer) DialEarly(ctx context.Context, network, address string, first []byte) (net.Conn, error) {
	return d.i.dialName(network, address, func(address string, outside bool) (net.Conn, error) {
		if !outside {
			return d.early.DialEarly(ctx, network, address, first)
		}
		conn, err := d.i.split.Dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if _, err := conn.Write(first); err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	})
}

// dialName dials address, or the name that it stands for and then keeps.
func (i *Interceptor) dialName(network, address string, dial func(address string, outside bool) (net.Conn, error)) (net.Conn, error) {
	addr, port, ok := parseAddress(network, address)
	if !ok || !i.pool.Contains(addr) {
		return dial(address, false)
	}
	nobody := syscall.ECONNREFUSED
	if network == "ping" { // which knows no port that could refuse
		nobody = syscall.EHOSTUNREACH
	}
	host, release, ok := i.pool.Acquire(addr)
	if !ok {
		return nil, fmt.Errorf("dnsintercept: no name has the address %s: %w", addr, nobody)
	}
	target, outside, err := i.target(host)
	if err != nil { // a petname that the configuration has no more
		release()
		return nil, fmt.Errorf("dnsintercept: %w: %w", err, nobody)
	}
	if address = target; network != "ping" {
		address = net.JoinHostPort(address, strconv.Itoa(int(port)))
	}
	conn, err := dial(address, outside)
	if err != nil {
		release()
		return nil, err
	}
	return held(conn, release), nil
}

// parseAddress reads an IP address and its port, which a ping has not.
func parseAddress(network, address string) (addr netip.Addr, port uint16, ok bool) {
	if network == "ping" {
		addr, err := netip.ParseAddr(address)
		return addr, 0, err == nil
	}
	ap, err := netip.ParseAddrPort(address)
	return ap.Addr(), ap.Port(), err == nil
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

// MaxDatagram is the longest datagram that the connection takes, 0 if that is
// not known.
func (h *heldConn) MaxDatagram() int {
	if l, ok := h.Conn.(interface{ MaxDatagram() int }); ok {
		return l.MaxDatagram()
	}
	return 0
}

// Abort resets the connection if it can be.
func (h *heldConn) Abort(err error) {
	defer h.release()
	splice.Abort(h.Conn, err)
}
