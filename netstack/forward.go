package netstack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

// ForwardOptions are the limits of Forward. The zero value is fit for use.
type ForwardOptions struct {
	// DialTimeout bounds how long a program may wait for its connection: 20 s.
	DialTimeout time.Duration
	// EarlyPorts are the TCP ports whose clients speak first, as those of HTTP
	// do: there a connection is accepted at once and dialled together with
	// the program's first bytes, which saves a round trip. A refusal then
	// comes as a reset of the connection. It takes an EarlyDialer.
	EarlyPorts []uint16
	// EarlyWait bounds how long the first bytes are waited for, in case it is
	// the server that speaks first after all: 100 ms.
	EarlyWait time.Duration
}

// Forward returns the handler that dials each flow's destination by d, then
// accepts the flow or rejects it with the dialer's error, and joins the two.
//
// Connections from d should be splice.Conns, else half-close is lost, and
// splice.Aborters, else a reset may look like an orderly end. For datagrams
// they must keep message boundaries; one that is an io.WriterTo, with one
// Write for each message, holds no buffer while it is idle. A Write that fails
// with syscall.EMSGSIZE loses its datagram only, and if the connection has a
// method MaxDatagram() int, which gives the longest that it takes, or 0 if it
// does not know, the program is told to send smaller ones.
func Forward(d Dialer, opts ForwardOptions) Handler {
	opts.DialTimeout = cmp.Or(opts.DialTimeout, 20*time.Second)
	opts.EarlyWait = cmp.Or(opts.EarlyWait, 100*time.Millisecond)
	opts.EarlyPorts = slices.Clone(opts.EarlyPorts)
	early, _ := d.(EarlyDialer)
	return &forwarder{dialer: d, early: early, opts: opts}
}

type forwarder struct {
	dialer Dialer
	early  EarlyDialer // or nil
	opts   ForwardOptions
}

func (f *forwarder) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, f.opts.DialTimeout)
	defer cancel()
	return f.dialer.DialContext(ctx, network, address)
}

func (f *forwarder) HandleTCP(ctx context.Context, req *TCPRequest) {
	if f.early != nil && slices.Contains(f.opts.EarlyPorts, req.Destination().Port()) {
		f.acceptFirst(req)
		return
	}
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
	join(conn, remote)
}

// acceptFirst accepts a connection, then dials with its first bytes.
func (f *forwarder) acceptFirst(req *TCPRequest) {
	conn, err := req.accept()
	if err != nil {
		return
	}
	first, err := f.firstBytes(conn)
	var remote net.Conn
	if err == nil {
		// The program may go while the link waits for a session.
		ctx, cancel := context.WithTimeout(conn.lost, f.opts.DialTimeout)
		remote, err = f.early.DialEarly(ctx, "tcp", req.Destination().String(), first)
		cancel()
	}
	if err != nil {
		conn.stack.opts.Log.Debug("netstack: connection reset", "destination", req.Destination(), "err", err)
		conn.Abort(err)
		return
	}
	join(conn, remote)
}

// maxFirstBytes is what DialEarly gets at most.
const maxFirstBytes = 16 << 10

// firstBytes waits until the program has sent something, which it returns, has
// ended its half, or has waited for long enough.
func (f *forwarder) firstBytes(conn *tcpConn) ([]byte, error) {
	conn.SetReadDeadline(time.Now().Add(f.opts.EarlyWait))
	err := conn.awaitReadable()
	conn.SetReadDeadline(time.Time{})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, nil
	case err != nil:
		return nil, err
	}
	buf := copyBuffers.Get().(*[copyBufferSize]byte)
	defer copyBuffers.Put(buf)
	n, _, err := conn.readNow(buf[:maxFirstBytes])
	if err == io.EOF { // it is the other side's to see
		err = nil
	}
	return bytes.Clone(buf[:n]), err
}

// join carries an accepted connection until it has ended.
func join(conn *tcpConn, remote net.Conn) {
	// Join finds out about a lost connection when it next reads or writes it.
	// While it waits for the other side only, nobody would.
	stop := context.AfterFunc(conn.lost, func() {
		if !conn.isClosed() {
			splice.Abort(remote, context.Cause(conn.lost))
		}
	})
	defer stop()
	if _, err := splice.Join(conn, remote); err != nil {
		conn.stack.opts.Log.Debug("netstack: connection broken", "destination", destination(conn.id), "err", err)
	}
}

// datagramFlow is what is carried of a UDPConn or PingConn.
type datagramFlow interface {
	net.Conn
	next() ([]byte, error)
	Reject(error)
	tooBig(limit int)
}

func (f *forwarder) HandleUDP(ctx context.Context, conn *UDPConn) {
	f.carry(ctx, conn, "udp", conn.Destination().String())
}

func (f *forwarder) HandlePing(ctx context.Context, conn *PingConn) {
	f.carry(ctx, conn, "ping", conn.Destination().String())
}

// carry dials and moves datagrams both ways until either side ends.
func (f *forwarder) carry(ctx context.Context, conn datagramFlow, network, address string) {
	remote, err := f.dial(ctx, network, address)
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
func fromProgram(remote net.Conn, conn datagramFlow) error {
	for {
		datagram, err := conn.next()
		if err != nil {
			return err
		}
		_, err = remote.Write(datagram)
		switch {
		case err == nil:
		case !errors.Is(err, syscall.EMSGSIZE):
			return err
		default:
			if limit := maxDatagramOf(remote); limit > 0 {
				conn.tooBig(limit)
			}
		}
	}
}

func maxDatagramOf(c net.Conn) int {
	if l, ok := c.(interface{ MaxDatagram() int }); ok {
		return l.MaxDatagram()
	}
	return 0
}

func toProgram(conn datagramFlow, remote net.Conn) error {
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
