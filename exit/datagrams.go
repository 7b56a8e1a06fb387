package exit

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

// maxDatagram is the longest payload of UDP, and one more byte.
const maxDatagram = 1 << 16

var datagramBuffers = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// patience says how long a flow of datagrams lives in which none passes.
type patience struct {
	answered   time.Duration // when the destination has answered
	unanswered time.Duration // as long as it has not
}

// relayDatagrams copies datagrams from in to out, the destination's socket,
// and back, until either ends or none has passed for as long as idle says. It
// closes both before it returns. An ICMP error at out reaches in's other end as
// a reset with the code that fits.
//
// Each side is best an io.WriterTo with one Write for each datagram: then it
// needs no buffer while it waits.
func relayDatagrams(in, out net.Conn, idle patience) (splice.Stats, error) {
	f := newDatagramFlow(in, out, idle)
	var stats splice.Stats
	var wait sync.WaitGroup
	wait.Go(func() {
		w := &flowWriter{flow: f, dst: in, answers: true}
		f.copy(w, out)
		stats.BToA = w.n
	})
	w := &flowWriter{flow: f, dst: out}
	f.copy(w, in)
	wait.Wait()
	stats.AToB = w.n
	return stats, f.err
}

// mirrorDatagrams sends every datagram of in back, until in ends or none has
// passed for idle. It closes in before it returns.
func mirrorDatagrams(in net.Conn, idle patience) (splice.Stats, error) {
	f := newDatagramFlow(in, nil, idle)
	w := &flowWriter{flow: f, dst: in, answers: true}
	f.copy(w, in)
	return splice.Stats{AToB: w.n, BToA: w.n}, f.err
}

// datagramFlow is what the two directions of a flow share.
type datagramFlow struct {
	in, out  net.Conn // out may be nil
	idle     patience
	began    time.Time
	last     atomic.Int64 // when the last datagram passed, since began
	answered atomic.Bool
	timer    *time.Timer
	armed    chan struct{} // closed once timer is set

	once sync.Once
	err  error
}

func newDatagramFlow(in, out net.Conn, idle patience) *datagramFlow {
	f := &datagramFlow{in: in, out: out, idle: idle, began: time.Now(), armed: make(chan struct{})}
	f.timer = time.AfterFunc(min(idle.unanswered, idle.answered), f.checkIdle)
	close(f.armed)
	return f
}

// checkIdle ends the flow if it has been idle, else looks again later.
func (f *datagramFlow) checkIdle() {
	<-f.armed
	limit := f.idle.unanswered
	if f.answered.Load() {
		limit = f.idle.answered
	}
	if quiet := time.Since(f.began) - time.Duration(f.last.Load()); quiet < limit {
		f.timer.Reset(limit - quiet)
		return
	}
	f.end(nil)
}

// end closes both sides; in's other end learns of err, if there is one.
func (f *datagramFlow) end(err error) {
	f.once.Do(func() {
		f.err = err
		f.timer.Stop()
		if err == nil {
			f.in.Close()
		} else {
			splice.Abort(f.in, refuseDial("the destination", err))
		}
		if f.out != nil {
			f.out.Close()
		}
	})
}

// copy moves datagrams from src to dst until one of them ends, then ends the
// flow.
func (f *datagramFlow) copy(dst *flowWriter, src net.Conn) {
	err := writeDatagrams(dst, src)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		err = nil
	}
	f.end(err)
}

// writeDatagrams writes each datagram of src to dst by one Write. It holds no
// buffer while it waits, where src can be waited for without one.
func writeDatagrams(dst io.Writer, src net.Conn) error {
	if w, ok := src.(io.WriterTo); ok {
		_, err := w.WriteTo(dst)
		return err
	}
	return copySocket(dst, src)
}

// copyBuffered holds a buffer while it waits.
func copyBuffered(dst io.Writer, src net.Conn) error {
	buf := datagramBuffers.Get().(*[maxDatagram]byte)
	defer datagramBuffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if err != nil {
			return err
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// flowWriter is one direction of a flow: it counts, and passes over datagrams
// that get lost.
type flowWriter struct {
	flow    *datagramFlow
	dst     net.Conn
	answers bool  // this is the direction of the answers
	n       int64 // bytes that dst took
}

func (w *flowWriter) Write(p []byte) (int, error) {
	n, err := w.dst.Write(p)
	switch {
	case err == nil:
		w.n += int64(n)
		w.flow.last.Store(int64(time.Since(w.flow.began)))
		if w.answers && !w.flow.answered.Load() {
			w.flow.answered.Store(true)
		}
	case !isDropped(err):
		return n, err
	}
	return len(p), nil
}

// isDropped reports whether err cost one datagram and not the flow: it was too
// long, or the kernel had no room for it or a filter no love.
func isDropped(err error) bool {
	return errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EPERM)
}

// carryDatagrams serves an accepted flow to a destination port.
func (s *Server) carryDatagrams(in, out net.Conn, port uint16) (splice.Stats, error) {
	idle := patience{answered: s.udpIdle, unanswered: min(s.udpIdle, unansweredIdle)}
	if port == dnsPort {
		idle = patience{min(s.udpIdle, dnsIdle), min(s.udpIdle, dnsIdle)}
	}
	s.udpFlows.Add(1)
	return relayDatagrams(in, out, idle)
}

const (
	// unansweredIdle is less than the 2 minutes of RFC 4787, REQ-5, but twice
	// what Linux gives such flows: nobody expects anything on them by then,
	// and they are most of those that a program makes in search of peers.
	unansweredIdle = time.Minute
	// dnsIdle is for port 53, where REQ-5a allows less: a resolver takes a
	// fresh port for each query, and gives up within seconds.
	dnsIdle = 20 * time.Second
)
