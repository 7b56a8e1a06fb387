package netstack

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

// ForwardOptions are the limits of Forward. The zero value is fit for use.
type ForwardOptions struct {
	// DialTimeout bounds how long a program may wait for its connection: 20 s.
	DialTimeout time.Duration
}

// Forward returns the handler that dials each flow's destination by d, then
// accepts the flow or rejects it with the dialer's error, and joins the two.
//
// Connections from d should be splice.Conns, else half-close is lost, and
// splice.Aborters, else a reset may look like an orderly end. For datagrams
// they must keep message boundaries; one that is an io.WriterTo, with one
// Write for each message, holds no buffer while it is idle.
func Forward(d Dialer, opts ForwardOptions) Handler {
	opts.DialTimeout = cmp.Or(opts.DialTimeout, 20*time.Second)
	return &forwarder{dialer: d, opts: opts}
}

type forwarder struct {
	dialer Dialer
	opts   ForwardOptions
}

func (f *forwarder) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, f.opts.DialTimeout)
	defer cancel()
	return f.dialer.DialContext(ctx, network, address)
}

func (f *forwarder) HandleTCP(ctx context.Context, req *TCPRequest) {
	remote, err := f.dial(ctx, "tcp", req.Destination().String())
	if err != nil {
		req.Reject(err)
		return
	}
	conn, err := req.accept()
	if err != nil {
		splice.Abort(remote, err)
		return
	}
	// Join finds out about a lost connection when it next reads or writes it.
	// While it waits for the other side only, nobody would.
	stop := context.AfterFunc(conn.lost, func() {
		if !conn.isClosed() {
			splice.Abort(remote, context.Cause(conn.lost))
		}
	})
	defer stop()
	_, err = splice.Join(conn, remote)
	if err != nil {
		conn.stack.opts.Log.Debug("netstack: connection broken", "destination", req.Destination(), "err", err)
	}
}

func (f *forwarder) HandleUDP(ctx context.Context, conn *UDPConn) {
	remote, err := f.dial(ctx, "udp", conn.Destination().String())
	if err != nil {
		conn.Reject(err)
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		// The program learns of a refusal that comes as late as this, too.
		if err := toProgram(conn, remote); isRefusal(err) {
			conn.Reject(err)
		}
		conn.Close()
	}()
	if err := fromProgram(remote, conn); isRefusal(err) {
		conn.Reject(err)
	}
	remote.Close()
	<-back
}

// isRefusal reports whether err is the destination's answer rather than the
// flow's end.
func isRefusal(err error) bool {
	_, unreachable := unreachableFor(err)
	return unreachable || errors.Is(err, syscall.ECONNREFUSED)
}

// fromProgram sends on what the program sends. A datagram that the other side
// cannot carry is lost, as it would be on any link.
func fromProgram(remote net.Conn, conn *UDPConn) error {
	for {
		datagram, err := conn.next()
		if err != nil {
			return err
		}
		if _, err := remote.Write(datagram); err != nil && !errors.Is(err, syscall.EMSGSIZE) {
			return err
		}
	}
}

func toProgram(conn *UDPConn, remote net.Conn) error {
	if w, ok := remote.(io.WriterTo); ok {
		_, err := w.WriteTo(conn)
		return err
	}
	buf := make([]byte, maxDatagram)
	for {
		n, err := remote.Read(buf)
		if err != nil {
			return err
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return err
		}
	}
}
