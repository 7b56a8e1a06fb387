package dnsintercept

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// perFlow bounds the queries of one flow at the upstream.
	perFlow = 128
	// maxQuery is the longest query that we read. It is several times what a
	// question with all the options of EDNS takes; a longer one over UDP is
	// cut, and refused as malformed, and over TCP ends the connection.
	maxQuery = 4096
	// udpIdle is how long a UDP flow is kept that asks nothing. It is short:
	// most resolvers use a port for one name only, and a flow that goes on
	// later is simply a new one.
	udpIdle = time.Second
	// tcpIdle is the same for a TCP connection (RFC 7766, section 6.2.3: a few
	// seconds). A message that has begun has no more time than that either.
	tcpIdle = 10 * time.Second
	// writeTimeout is for a client that does not read.
	writeTimeout = 5 * time.Second
)

// flow is one client's connection while it is served.
type flow struct {
	i      *Interceptor
	conn   net.Conn
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{} // a token for each query at the upstream
	wg     sync.WaitGroup
	// send writes an answer. q is the query if it came from the upstream.
	send func(answer []byte, q *query)
}

// serve runs loop on a flow, waits for the answers under way, and closes conn.
func (i *Interceptor) serve(ctx context.Context, conn net.Conn, loop func(*flow)) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	f := &flow{i: i, conn: conn, ctx: ctx, cancel: cancel, slots: make(chan struct{}, perFlow)}
	defer f.wg.Wait()
	loop(f)
}

// serveUDP answers the datagrams of conn until it is idle or ctx ends.
func (i *Interceptor) serveUDP(ctx context.Context, conn net.Conn) {
	i.serve(ctx, conn, func(f *flow) {
		f.send = f.sendDatagram
		buf := make([]byte, maxQuery)
		for {
			conn.SetReadDeadline(time.Now().Add(udpIdle))
			n, err := conn.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) && len(f.slots) > 0 {
				continue
			}
			if err != nil {
				f.ended(err)
				return
			}
			f.datagram(buf[:n])
		}
	})
}

func (f *flow) datagram(msg []byte) {
	q, reply := f.i.direct(msg)
	switch {
	case reply != nil:
		f.send(reply, nil)
	case q == nil:
	case f.begin():
		q.msg = bytes.Clone(msg) // the buffer is used again
		f.forward(q)
	default:
		f.send(f.i.servfail(q), nil)
	}
}

// begin takes a query's tokens if there are any.
func (f *flow) begin() bool {
	select {
	case f.slots <- struct{}{}:
	default:
		return false
	}
	select {
	case f.i.queries <- struct{}{}:
		return true
	default:
		<-f.slots
		return false
	}
}

// wait takes a query's tokens as soon as there are any. It is false when ctx
// ended first.
func (f *flow) wait() bool {
	select {
	case f.slots <- struct{}{}:
	case <-f.ctx.Done():
		return false
	}
	select {
	case f.i.queries <- struct{}{}:
		return true
	case <-f.ctx.Done():
		<-f.slots
		return false
	}
}

// forward answers q from the upstream, in the background, and returns the
// tokens.
func (f *flow) forward(q *query) {
	f.wg.Go(func() {
		defer func() { <-f.i.queries; <-f.slots }()
		answer := f.i.forward(f.ctx, q)
		if f.ctx.Err() == nil {
			f.send(answer, q)
		}
	})
}

// ended calls the queries under way off, unless the client only has no more to
// ask.
func (f *flow) ended(err error) {
	if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
		f.cancel()
	}
}

// sendDatagram cuts what came from the upstream; our own answers are short.
func (f *flow) sendDatagram(answer []byte, q *query) {
	if q != nil {
		answer = q.truncated(answer)
	}
	f.conn.Write(answer)
}

// serveTCP answers the messages of conn, in whatever order their answers
// become known (RFC 7766, section 6.2.1.1), until it ends or is idle.
func (i *Interceptor) serveTCP(ctx context.Context, conn net.Conn) {
	i.serve(ctx, conn, func(f *flow) {
		turn := make(chan struct{}, 1) // to write a whole frame
		f.send = func(answer []byte, _ *query) {
			select {
			case turn <- struct{}{}:
				f.sendFrame(answer)
				<-turn
			case <-f.ctx.Done():
			}
		}
		for {
			conn.SetReadDeadline(time.Now().Add(tcpIdle))
			msg, err := readFrame(conn, maxQuery)
			if err != nil {
				f.ended(err)
				return
			}
			if !f.frame(msg) {
				return
			}
		}
	})
}

// frame answers one message, or returns false if the connection is of no more
// use.
func (f *flow) frame(msg []byte) bool {
	q, reply := f.i.direct(msg)
	switch {
	case reply != nil:
		f.send(reply, nil)
	case q == nil || !f.wait():
		return false
	default:
		f.forward(q)
	}
	return true
}

// sendFrame writes one message with its length before it. A client that does
// not take it loses the connection, or the next message would begin in the
// middle of this one.
func (f *flow) sendFrame(answer []byte) {
	frame := make([]byte, 0, 2+len(answer))
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(answer)))
	frame = append(frame, answer...)
	f.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := f.conn.Write(frame); err != nil {
		f.cancel()
	}
}
