package splice

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPair returns the two ends of a TCP connection over loopback.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, b = c.(*net.TCPConn), (<-accepted).(*net.TCPConn)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

type result struct {
	Stats
	err error
}

// joined returns the outer ends of two TCP connections whose inner ends are
// joined, and where Join's result arrives.
func joined(t *testing.T) (left, right *net.TCPConn, done chan result) {
	left, a := tcpPair(t)
	b, right := tcpPair(t)
	done = make(chan result, 1)
	go func() {
		s, err := Join(a, b)
		done <- result{s, err}
	}()
	return left, right, done
}

func TestJoinCarriesBothWaysWithHalfClose(t *testing.T) {
	left, right, done := joined(t)
	request, answer := make([]byte, 3<<20), make([]byte, 5<<20)
	rand.Read(request)
	rand.Read(answer)

	go func() {
		left.Write(request)
		left.CloseWrite()
	}()
	got, err := io.ReadAll(right)
	if err != nil || !bytes.Equal(got, request) {
		t.Fatalf("request: %d bytes of %d, %v", len(got), len(request), err)
	}
	// left has sent its FIN; the answer must still pass.
	go func() {
		right.Write(answer)
		right.Close()
	}()
	got, err = io.ReadAll(left)
	if err != nil || !bytes.Equal(got, answer) {
		t.Fatalf("answer: %d bytes of %d, %v", len(got), len(answer), err)
	}
	want := result{Stats{int64(len(request)), int64(len(answer))}, nil}
	if r := <-done; r != want {
		t.Errorf("Join = %+v, want %+v", r, want)
	}
}

func TestResetIsPassedOn(t *testing.T) {
	left, right, done := joined(t)
	if _, err := left.Write([]byte("half of a mess")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(right, make([]byte, 14)); err != nil {
		t.Fatal(err)
	}
	left.SetLinger(0)
	left.Close()
	if _, err := right.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("other side reads %v, want a reset", err)
	}
	if r := <-done; !errors.Is(r.err, syscall.ECONNRESET) {
		t.Errorf("Join returns %v, want a reset", r.err)
	}
}

// scripted is a connection that is not a kernel socket: it reads data, then
// err, and records how it was ended.
type scripted struct {
	net.Conn
	data    io.Reader
	err     error
	written bytes.Buffer
	ended   chan string
}

func newScripted(data string, err error) *scripted {
	return &scripted{data: bytes.NewReader([]byte(data)), err: err, ended: make(chan string, 8)}
}

func (s *scripted) Read(p []byte) (int, error) {
	n, err := s.data.Read(p)
	if err == io.EOF {
		err = s.err
	}
	return n, err
}
func (s *scripted) Write(p []byte) (int, error) { return s.written.Write(p) }
func (s *scripted) CloseWrite() error           { s.ended <- "fin"; return nil }
func (s *scripted) Abort(error)                 { s.ended <- "abort" }
func (s *scripted) Close() error                { s.ended <- "close"; return nil }

func TestOrderlyEndIsAFinNotAReset(t *testing.T) {
	a, b := newScripted("to b", io.EOF), newScripted("to a", io.EOF)
	if _, err := Join(a, b); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*scripted{"to a": a, "to b": b} {
		if got := c.written.String(); got != name {
			t.Errorf("wrote %q, want %q", got, name)
		}
		if first := <-c.ended; first != "fin" {
			t.Errorf("ended by %s first, want fin", first)
		}
	}
}

func TestErrorAbortsBothSides(t *testing.T) {
	broken := errors.New("carrier lost")
	a, b := newScripted("some", broken), newScripted("", io.EOF)
	if _, err := Join(a, b); !errors.Is(err, broken) {
		t.Fatalf("Join = %v, want %v", err, broken)
	}
	for name, c := range map[string]*scripted{"a": a, "b": b} {
		aborted := false
		for len(c.ended) > 0 {
			aborted = <-c.ended == "abort" || aborted
		}
		if !aborted {
			t.Errorf("%s was not aborted", name)
		}
	}
}

// quiet is a connection that can half-close. Reads get what comes out of data
// until that is closed.
type quiet struct {
	net.Conn
	data    chan string
	aborted chan error
	once    sync.Once
	end     chan struct{}
}

func newQuiet() *quiet {
	return &quiet{data: make(chan string), aborted: make(chan error, 10), end: make(chan struct{})}
}

func (q *quiet) Read(p []byte) (int, error) {
	select {
	case s, ok := <-q.data:
		if !ok {
			return 0, io.EOF
		}
		return copy(p, s), nil
	case <-q.end:
		return 0, net.ErrClosed
	}
}
func (q *quiet) Write(p []byte) (int, error) { return len(p), nil }
func (q *quiet) CloseWrite() error           { return nil }
func (q *quiet) Abort(err error)             { q.aborted <- err; q.Close() }
func (q *quiet) Close() error                { q.once.Do(func() { close(q.end) }); return nil }

// Only a connection that is half closed may not be silent for long, whichever
// half it is.
func TestSilenceEndsAHalfClosedConnection(t *testing.T) {
	for name, sides := range map[string]func(a, b *quiet) (ends, stays *quiet){
		"a": func(a, b *quiet) (*quiet, *quiet) { return a, b },
		"b": func(a, b *quiet) (*quiet, *quiet) { return b, a },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newQuiet(), newQuiet()
				done := make(chan result, 1)
				go func() {
					s, err := Join(a, b)
					done <- result{s, err}
				}()
				time.Sleep(1000 * time.Hour) // open, it may
				ends, stays := sides(a, b)
				close(ends.data)
				began := time.Now()
				for range 10 {
					time.Sleep(halfIdle - time.Second)
					stays.data <- "still here"
				}
				if r := <-done; !errors.Is(r.err, syscall.ETIMEDOUT) || r.AToB+r.BToA != 100 {
					t.Errorf("ended with %+v, want a timeout after 100 bytes", r)
				}
				if silent := time.Since(began) - 10*(halfIdle-time.Second); silent < halfIdle || silent > 2*halfIdle {
					t.Errorf("ended after %v of silence", silent)
				}
				for _, c := range []*quiet{a, b} {
					if err := <-c.aborted; !errors.Is(err, syscall.ETIMEDOUT) {
						t.Errorf("aborted with %v", err)
					}
				}
			})
		})
	}
}

func TestIdleFlowsHoldNoBuffers(t *testing.T) {
	const flows = 100
	var ends []*net.TCPConn
	var dones []chan result
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range flows {
		left, right, done := joined(t)
		ends, dones = append(ends, left, right), append(dones, done)
		// One exchange proves that the flow is up and its loops wait again.
		for _, c := range [][2]*net.TCPConn{{left, right}, {right, left}} {
			c[0].Write([]byte("x"))
			if _, err := io.ReadFull(c[1], make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	runtime.GC()
	runtime.GC() // the second empties what the pool kept through the first
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > flows*bufferSize/4 {
		t.Errorf("%d idle flows hold %d bytes: buffers are kept while idle", flows, grown)
	}
	for _, c := range ends {
		c.Close()
	}
	for _, done := range dones {
		<-done
	}
}
