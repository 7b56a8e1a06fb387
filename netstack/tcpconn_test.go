package netstack

import (
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/net/nettest"

	"github.com/nws-vpn/nws-vpn/internal/await"
)

func TestIdleFlowsAreCheapAndLeaveNothing(t *testing.T) {
	const flows, most = 200, 24 << 10
	dialer, servers := loopback(t)
	w := newWorld(t, Forward(dialer, ForwardOptions{}), Options{})
	goroutines := runtime.NumGoroutine()
	before := heap()
	var apps []net.Conn
	var ends []*net.TCPConn
	for range flows {
		app := w.mustDial(t, server4)
		end := take(t, servers)
		exchange(t, app, end)
		apps, ends = append(apps, app), append(ends, end)
	}
	// Both ends of each flow are in this heap.
	if each := (heap() - before) / flows; each > most {
		t.Errorf("an idle flow holds %d bytes, want at most %d", each, most)
	}
	for i := range flows {
		apps[i].Close()
		ends[i].Close()
	}
	await.That(t, "all flows are gone", func() bool { return w.stack.Stats().TCPOpen == 0 })
	await.That(t, "all goroutines are gone", func() bool { return runtime.NumGoroutine() <= goroutines })
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // the second empties what pools kept through the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestConnIsANetConn(t *testing.T) {
	h, conns := accepting(t)
	w := newWorld(t, h, Options{})
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		app, err := w.dial(server4)
		if err != nil {
			return nil, nil, nil, err
		}
		c := take(t, conns)
		return c, app, func() { c.Close(); app.Close() }, nil
	})
}

func TestCloseEndsBlockedCalls(t *testing.T) {
	for name, end := range map[string]func(*tcpConn){
		"close": func(c *tcpConn) { c.Close() },
		"abort": func(c *tcpConn) { c.Abort(errTest) },
	} {
		t.Run(name, func(t *testing.T) {
			h, conns := accepting(t)
			w := newWorld(t, h, Options{})
			w.mustDial(t, server4)
			c := take(t, conns)
			errs := make(chan error, 3)
			go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
			go func() { _, err := c.WriteTo(io.Discard); errs <- err }()
			go func() { _, err := io.Copy(struct{ io.Writer }{c}, endless{}); errs <- err }()
			end(c)
			for range 3 {
				if err := take(t, errs); !errors.Is(err, net.ErrClosed) {
					t.Errorf("blocked call: %v, want closed", err)
				}
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write after: %v, want closed", err)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestErrorsOfALostConnection(t *testing.T) {
	h, conns := accepting(t)
	w := newWorld(t, h, Options{})
	w.mustDial(t, server4)
	c := take(t, conns)
	w.abort()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write: %v, want a reset", err)
	}
}
