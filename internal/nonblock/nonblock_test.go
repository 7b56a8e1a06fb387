package nonblock

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns two ends of a TCP connection, one of them wrapped.
func pair(t *testing.T) (*Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near := NewConn(c)
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// pipe is a connection that is no kernel socket.
func pipe(t *testing.T) (*Conn, net.Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return NewConn(a), b
}

var kinds = []struct {
	name string
	make func(*testing.T) (*Conn, net.Conn)
}{{"socket", pair}, {"pipe", pipe}}

func TestWhatIsWrittenIsRead(t *testing.T) {
	// More than a socket's buffers take, in parts of all sizes, empty ones
	// among them.
	data := make([]byte, 16<<20)
	rand.Read(data)
	var parts net.Buffers
	for rest, size := data, 0; len(rest) > 0; size = (size*7 + 1) % 100_000 {
		n := min(size, len(rest))
		parts = append(parts, rest[:n])
		rest = rest[n:]
	}
	for _, kind := range kinds {
		for name, write := range map[string]func(*Conn) error{
			"Write":        func(c *Conn) error { _, err := c.Write(data); return err },
			"WriteBuffers": func(c *Conn) error { return c.WriteBuffers(append(net.Buffers(nil), parts...)) },
		} {
			t.Run(kind.name+"/"+name, func(t *testing.T) {
				near, far := kind.make(t)
				sent := make(chan error, 1)
				go func() { sent <- errors.Join(write(near), near.Close()) }()
				got, err := io.ReadAll(far)
				if err := errors.Join(err, <-sent); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, data) {
					t.Errorf("%d bytes came, %d were sent, or they differ", len(got), len(data))
				}
			})
		}
		t.Run(kind.name+"/Read", func(t *testing.T) {
			near, far := kind.make(t)
			go func() {
				far.Write(data)
				far.Close()
			}()
			if got, err := io.ReadAll(near); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes of %d came, %v", len(got), len(data), err)
			}
		})
	}
}

func TestErrorsAreThoseOfNet(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			near, _ := kind.make(t)
			near.SetDeadline(time.Now().Add(-time.Second))
			if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read past the deadline: %v", err)
			}
			if err := near.WriteBuffers(net.Buffers{{1}}); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write past the deadline: %v", err)
			}
			near.SetDeadline(time.Time{})
			read := make(chan error, 1)
			go func() {
				_, err := near.Read(make([]byte, 1))
				read <- err
			}()
			near.Close()
			for _, err := range []error{<-read, near.WriteBuffers(net.Buffers{{1}})} {
				if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("after Close: %v", err)
				}
			}
		})
	}
}
