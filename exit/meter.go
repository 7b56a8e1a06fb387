package exit

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

// booked is a request with the account that it is booked to and the name that it
// came to.
type booked struct {
	Request
	account *account
	site    *site
}

func (b *booked) Client() ([32]byte, bool) { return b.account.key, b.account.proven }

// meter is a client's flow: it counts what passes and has it wait for the
// client's limits, and ends the flow when its time is over.
type meter struct {
	net.Conn // the client's end
	account  *account

	ctx    context.Context
	cancel context.CancelFunc
	began  time.Time
	last   atomic.Int64 // when something passed, since began
	once   sync.Once
	timers []*time.Timer
	ready  chan struct{} // closed once timers are set
}

// newMeter puts a meter on a flow of network; ctx ends its waiting.
func newMeter(ctx context.Context, c *account, network string, in net.Conn) *meter {
	m := &meter{Conn: in, account: c, began: time.Now(), ready: make(chan struct{})}
	m.ctx, m.cancel = context.WithCancel(ctx)
	c.of.mu.Lock()
	idle, life := c.of.limits.FlowIdle, c.of.limits.FlowLife
	c.of.mu.Unlock()
	if life > 0 {
		m.timers = append(m.timers, time.AfterFunc(life, func() {
			m.Abort(refuse(ReasonLimit, "this exit ends a flow after %v", life))
		}))
	}
	if idle > 0 && network == "tcp" {
		var watch *time.Timer
		watch = time.AfterFunc(idle, func() {
			<-m.ready
			if quiet := time.Since(m.began) - time.Duration(m.last.Load()); quiet < idle {
				watch.Reset(idle - quiet)
				return
			}
			m.Abort(refuse(ReasonLimit, "this exit ends a flow in which nothing passes for %v", idle))
		})
		m.timers = append(m.timers, watch)
	}
	close(m.ready)
	return m
}

// pass books n bytes before they go on.
func (m *meter) pass(n int) error {
	if len(m.timers) > 0 {
		m.last.Store(int64(time.Since(m.began)))
	}
	if !m.account.of.limited.Load() {
		m.account.spent.Add(int64(n))
		return nil
	}
	return m.account.take(m.ctx, n)
}

// Read reads what the client sends.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	if n > 0 {
		m.account.sent.Add(int64(n))
		if perr := m.pass(n); perr != nil {
			return 0, perr
		}
	}
	return n, err
}

// Write sends to the client.
func (m *meter) Write(p []byte) (done int, err error) {
	for first := true; first || done < len(p); first = false {
		part := p[done:min(len(p), done+mostQuantum)]
		if err := m.pass(len(part)); err != nil {
			return done, err
		}
		n, err := m.Conn.Write(part)
		m.account.received.Add(int64(n))
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// WriteTo implements io.WriterTo with the client's own, which holds no buffer
// while it waits.
func (m *meter) WriteTo(w io.Writer) (int64, error) {
	if from, ok := m.Conn.(io.WriterTo); ok {
		return from.WriteTo(meterSink{w, m})
	}
	buf := datagramBuffers.Get().(*[maxDatagram]byte)
	defer datagramBuffers.Put(buf)
	for total := int64(0); ; {
		n, err := m.Read(buf[:])
		if err == nil || n > 0 { // an empty datagram is one
			n, werr := w.Write(buf[:n])
			if total += int64(n); werr != nil {
				return total, werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// meterSink takes what the client sends.
type meterSink struct {
	w io.Writer
	m *meter
}

func (s meterSink) Write(p []byte) (int, error) {
	s.m.account.sent.Add(int64(len(p)))
	if err := s.m.pass(len(p)); err != nil {
		return 0, err
	}
	return s.w.Write(p)
}

// CloseWrite implements splice.Conn.
func (m *meter) CloseWrite() error {
	if c, ok := m.Conn.(splice.Conn); ok {
		return c.CloseWrite()
	}
	return m.Close()
}

// Close ends the flow and its waiting.
func (m *meter) Close() error {
	m.end()
	return m.Conn.Close()
}

// Abort implements splice.Aborter.
func (m *meter) Abort(err error) {
	m.end()
	splice.Abort(m.Conn, err)
}

func (m *meter) end() {
	<-m.ready
	m.once.Do(func() {
		m.cancel()
		for _, t := range m.timers {
			t.Stop()
		}
	})
}
