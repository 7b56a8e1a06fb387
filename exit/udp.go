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

// relayDatagrams copies datagrams from in to out, a connected UDP socket, and
// back, until either ends or none has passed for idle. It closes both before
// it returns. An ICMP error at out reaches in's other end as a reset with the
// code that fits.
func relayDatagrams(in, out net.Conn, idle time.Duration) (splice.Stats, error) {
	f := datagramFlow{in: in, out: out, idle: idle, began: time.Now(), armed: make(chan struct{})}
	f.timer = time.AfterFunc(idle, f.checkIdle)
	close(f.armed)
	var stats splice.Stats
	var wait sync.WaitGroup
	wait.Go(func() { stats.BToA = f.copy(in, out) })
	stats.AToB = f.copy(out, in)
	wait.Wait()
	return stats, f.err
}

// datagramFlow is what the two directions of a flow share.
type datagramFlow struct {
	in, out net.Conn
	idle    time.Duration
	began   time.Time
	last    atomic.Int64 // when the last datagram passed, since began
	timer   *time.Timer
	armed   chan struct{} // closed once timer is set

	once sync.Once
	err  error
}

// checkIdle ends the flow if it has been idle, else looks again later.
func (f *datagramFlow) checkIdle() {
	<-f.armed
	if quiet := time.Since(f.began) - time.Duration(f.last.Load()); quiet < f.idle {
		f.timer.Reset(f.idle - quiet)
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
		f.out.Close()
	})
}

// copy moves datagrams from src to dst until one of them ends, then ends the
// flow. It returns how many bytes dst took.
func (f *datagramFlow) copy(dst, src net.Conn) (n int64) {
	for {
		m, err := moveDatagram(dst, src)
		switch {
		case err == nil:
			n += int64(m)
			f.last.Store(int64(time.Since(f.began)))
		case isDropped(err):
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrClosed):
			f.end(nil)
			return n
		default:
			f.end(err)
			return n
		}
	}
}

// isDropped reports whether err cost one datagram and not the flow: it was too
// long, or the kernel had no room for it or a filter no love.
func isDropped(err error) bool {
	return errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EPERM)
}

// moveBuffered moves one datagram, holding a buffer while it waits.
func moveBuffered(dst, src net.Conn) (int, error) {
	buf := datagramBuffers.Get().(*[maxDatagram]byte)
	defer datagramBuffers.Put(buf)
	n, err := src.Read(buf[:])
	if err != nil {
		return 0, err
	}
	return dst.Write(buf[:n])
}
