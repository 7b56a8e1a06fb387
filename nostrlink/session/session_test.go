package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/nws-vpn/nws-vpn/internal/splice"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const delay = 50 * time.Millisecond

// bubble runs a test of two joined sessions in fake time.
func bubble(t *testing.T, f func(t *testing.T, p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newPair(t, delay, Config{})) })
}

// answer accepts one request in the background and hands it to f.
func (p *pair) answer(t *testing.T, f func(req *Request)) {
	p.wg.Go(func() {
		req, err := p.listener.Accept(context.Background())
		if err != nil {
			t.Error(err)
			return
		}
		f(req)
	})
}

func TestHalfClose(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a, b := p.dial(t, "tcp")
		want := patternBytes(1, 0, 3<<20)
		p.wg.Go(func() { // reads all, then answers with all of it
			got, err := io.ReadAll(b)
			if err != nil {
				t.Error(err)
			}
			b.Write(got)
			b.Close()
		})
		if _, err := a.Write(want); err != nil {
			t.Fatal(err)
		}
		if err := a.(splice.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after CloseWrite: %v", err)
		}
		got, err := io.ReadAll(a)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("read back %d bytes, %v; want %d", len(got), err, len(want))
		}
		a.Close()
		p.expectNoStreams(t)
	})
}

// expectNoStreams waits until both ends know that every stream has ended.
func (p *pair) expectNoStreams(t *testing.T) {
	t.Helper()
	time.Sleep(10 * time.Second)
	for _, s := range []*Session{p.dialer, p.listener} {
		if st := s.Stats(); st.Streams != 0 || st.SendBuffered != 0 || st.Unread != 0 {
			t.Errorf("left behind: %d streams, %d bytes unsent, %d unread", st.Streams, st.SendBuffered, st.Unread)
		}
	}
}

func TestJoin(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a, b := p.dial(t, "tcp")
		c, d := net.Pipe()
		p.wg.Go(func() { splice.Join(b, d) })
		p.wg.Go(func() { io.Copy(c, c); c.Close() })
		want := patternBytes(2, 0, 1<<20)
		p.wg.Go(func() { a.(*Stream).ReadFrom(bytes.NewReader(want)) })
		got := make([]byte, len(want))
		if _, err := io.ReadFull(a, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("echo through Join: %v", err)
		}
		a.Close()
		p.expectNoStreams(t)
	})
}

func TestDialRefused(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		for _, test := range []struct {
			err  error
			want error
		}{
			{syscall.ECONNREFUSED, syscall.ECONNREFUSED},
			{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, syscall.EHOSTUNREACH},
			{&wire.Error{Code: wire.CodeDenied, Text: "private address"}, syscall.EACCES},
			{context.DeadlineExceeded, syscall.ETIMEDOUT},
			{nil, syscall.ECONNREFUSED},
		} {
			p.answer(t, func(req *Request) {
				if req.Network() != "tcp" || req.Address() != "nowhere:1" {
					t.Errorf("request for %s %s", req.Network(), req.Address())
				}
				req.Reject(test.err)
				req.Reject(test.err)
				if _, err := req.Accept(); err == nil {
					t.Error("accepted after Reject")
				}
			})
			start := time.Now()
			_, err := p.dialer.DialContext(t.Context(), "tcp", "nowhere:1")
			var we *wire.Error
			if !errors.Is(err, test.want) || !errors.As(err, &we) {
				t.Errorf("dial refused with %v: %v, want %v", test.err, err, test.want)
			}
			if took := time.Since(start); took > 3*delay {
				t.Errorf("refusal took %v", took)
			}
		}
		p.expectNoStreams(t)
	})
}

func TestDialCancel(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		requests := make(chan *Request, 1)
		p.answer(t, func(req *Request) { requests <- req })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := p.dialer.DialContext(ctx, "tcp", "slow:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := (<-requests).Accept(); err == nil {
			t.Error("accepted what the dialer gave up")
		}
		p.expectNoStreams(t)
	})
}

// A dial that is given up before it left does not reach the other end.
func TestDialCancelAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := p.dialer.DialContext(ctx, "tcp", "slow:1"); !errors.Is(err, context.Canceled) {
			t.Errorf("dial: %v", err)
		}
		p.expectNoStreams(t)
	})
}

func TestDialWrong(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		if _, err := p.dialer.DialContext(t.Context(), "sctp", "x:1"); err == nil {
			t.Error("dialed sctp")
		}
		if _, err := p.dialer.DialContext(t.Context(), "tcp", string(make([]byte, wire.MaxDest+1))); err == nil {
			t.Error("dialed a destination that is too long")
		}
		if _, err := p.listener.DialContext(t.Context(), "tcp", "x:1"); err == nil {
			t.Error("the listener dialed")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.listener.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("accept: %v", err)
		}
	})
}

func TestMaxStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, delay, Config{Local: Limits{MaxStreams: 3}, Peer: Limits{MaxStreams: 3}})
		var open []net.Conn
		for range 3 {
			a, _ := p.dial(t, "tcp")
			open = append(open, a)
		}
		_, err := p.dialer.DialContext(t.Context(), "tcp", "x:1")
		if wire.CodeOf(err) != wire.CodeBusy {
			t.Errorf("dial beyond the limit: %v", err)
		}
		open[0].(*Stream).Abort(nil)
		time.Sleep(time.Second)
		p.dial(t, "tcp")
	})
}

func TestDeadlines(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a, b := p.dial(t, "tcp")
		a.SetReadDeadline(time.Now().Add(time.Second))
		start := time.Now()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("read took %v", took)
		}
		a.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := a.Write(make([]byte, 64<<20)) // nobody reads
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n > 10<<20 {
			t.Errorf("write: %d, %v", n, err)
		}
		// A deadline moved while waiting counts.
		time.AfterFunc(time.Second, func() { a.SetReadDeadline(time.Now()) })
		a.SetReadDeadline(time.Time{})
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		// And one taken back is forgotten.
		a.SetDeadline(time.Time{})
		b.Write([]byte("x"))
		if _, err := a.Read(make([]byte, 1)); err != nil {
			t.Errorf("read: %v", err)
		}
	})
}

func TestCloseUnblocks(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a, b := p.dial(t, "tcp")
		errs := make(chan error, 2)
		p.wg.Go(func() { _, err := a.Read(make([]byte, 1)); errs <- err })
		p.wg.Go(func() { _, err := a.Write(make([]byte, 64<<20)); errs <- err })
		synctest.Wait()
		a.Close()
		for range 2 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
		// What was written before still arrives; what we write finds no reader.
		n, err := io.Copy(io.Discard, b)
		if err != nil || n == 0 {
			t.Errorf("other end read %d, %v", n, err)
		}
		if _, err := b.Write([]byte("x")); err == nil {
			time.Sleep(time.Second)
			_, err = b.Write([]byte("x"))
			if err == nil {
				t.Error("wrote to a stream that is closed")
			}
		}
		b.Close()
		p.expectNoStreams(t)
	})
}

func TestAbort(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a, b := p.dial(t, "tcp")
		a.Write([]byte("before"))
		time.Sleep(time.Second)
		a.(splice.Aborter).Abort(syscall.ETIMEDOUT)
		time.Sleep(time.Second)
		got, err := io.ReadAll(b)
		if string(got) != "before" || !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("write: %v", err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after Abort: %v", err)
		}
		p.expectNoStreams(t)
	})
}

func TestSessionClose(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a, b := p.dial(t, "tcp")
		errs := make(chan error, 2)
		p.wg.Go(func() { _, err := a.Read(make([]byte, 1)); errs <- err })
		p.wg.Go(func() { _, err := p.dialer.DialContext(context.Background(), "tcp", "unanswered:1"); errs <- err })
		synctest.Wait()
		start := time.Now()
		p.dialer.Close()
		p.dialer.Close()
		if took := time.Since(start); took > goodbyeTime {
			t.Errorf("Close took %v", took)
		}
		for range 2 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
		<-p.listener.Done()
		if err := p.listener.Err(); wire.CodeOf(err) != wire.CodeGoingAway {
			t.Errorf("other end: %v", err)
		}
		if _, err := b.Read(make([]byte, 1)); wire.CodeOf(err) != wire.CodeGoingAway {
			t.Errorf("read at the other end: %v", err)
		}
		if _, err := p.listener.Accept(t.Context()); err == nil {
			t.Error("accepted from a session that is over")
		}
		if _, err := p.dialer.DialContext(t.Context(), "tcp", "x:1"); err == nil {
			t.Error("dialed through a session that is over")
		}
		late := newPipe(0)
		<-p.dialer.Attach(late).Done()
		if late.Send(nil) == nil {
			t.Error("a carrier attached to a session that is over stays open")
		}
	})
}

// A carrier that never takes the last packet does not keep Close from
// returning.
func TestCloseStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		c := newPipe(0)
		c.hold = make(chan struct{})
		s.Attach(c)
		dialed := make(chan error)
		go func() {
			_, err := s.DialContext(context.Background(), "tcp", "x:1")
			dialed <- err
		}()
		synctest.Wait()
		start := time.Now()
		s.Close()
		if took := time.Since(start); took != goodbyeTime {
			t.Errorf("Close took %v", took)
		}
		if err := <-dialed; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestPeerSilent(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a, _ := p.dial(t, "tcp")
		time.Sleep(5 * time.Minute) // an idle session lives
		if err := p.dialer.Err(); err != nil {
			t.Fatal(err)
		}
		idle := p.dialer.Stats()
		if n := idle.PacketsSent; n > 50 {
			t.Errorf("%d packets in five idle minutes", n)
		}
		p.pipes[0].deaf.Store(true)
		a.Write([]byte("x"))
		start := time.Now()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, ErrPeerSilent) {
			t.Errorf("read: %v", err)
		}
		if took := time.Since(start); took != DefaultDeadAfter {
			t.Errorf("noticed after %v", took)
		}
		<-p.dialer.Done()
	})
}

// The listener notices a dialer that vanished without a word.
func TestDialerGone(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		_, b := p.dial(t, "tcp")
		p.pipes[0].deaf.Store(true)
		start := time.Now()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, ErrPeerSilent) {
			t.Errorf("read: %v", err)
		}
		if took := time.Since(start); took > 75*time.Second {
			t.Errorf("noticed after %v", took)
		}
	})
}

func TestDatagrams(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a, b := p.dial(t, "udp")
		for _, size := range []int{0, 1, 1400, 10000} {
			want := patternBytes(3, 0, size)
			if _, err := a.Write(want); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 65536)
			n, err := b.Read(got)
			if err != nil || !bytes.Equal(got[:n], want) {
				t.Errorf("datagram of %d bytes: got %d, %v", size, n, err)
			}
		}
		if _, err := a.Write(make([]byte, 65000)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("too large: %v", err)
		}
		for range 3000 { // nobody reads: the oldest go, memory is bounded
			b.Write(make([]byte, 1400))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if st := p.dialer.Stats(); st.DatagramsDropped == 0 {
			t.Errorf("nothing dropped: %+v", st)
		}
		b.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := b.Read(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		b.Close()
		time.Sleep(time.Second)
		for {
			if _, err := a.Read(make([]byte, 1)); err != nil {
				break
			}
		}
		if _, err := a.Write([]byte("x")); err == nil {
			t.Error("wrote to a flow that is closed")
		}
		p.expectNoStreams(t)
	})
}

// A carrier may fail or be taken away in the middle of a transfer.
func TestDetach(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		more := [2]*pipe{newPipe(delay), newPipe(delay)}
		x, y := p.dialer.Attach(more[0]), p.listener.Attach(more[1])
		p.wg.Go(func() { more[0].deliver(y) })
		p.wg.Go(func() { more[1].deliver(x) })
		a, b := p.dial(t, "tcp")
		want := patternBytes(4, 0, 8<<20)
		p.wg.Go(func() { a.Write(want); a.(*Stream).CloseWrite() })
		var got []byte
		buf := make([]byte, 100000)
		for {
			n, err := b.Read(buf)
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case len(got) > 1<<20 && len(p.dialer.Stats().Paths) == 2:
				x.Detach()
				x.Detach()
				<-x.Done()
			case len(got) > 2<<20 && len(p.listener.Stats().Paths) == 2:
				more[1].Close() // Send fails
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("read %d bytes, want %d", len(got), len(want))
		}
	})
}

// TestConcurrent carries many streams at once over two bad carriers while both
// ends write, read, half-close and ask for figures.
func TestConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, delay, Config{})
		more := [2]*pipe{newPipe(delay), newPipe(3 * delay)}
		for i, x := range []*pipe{p.pipes[0], p.pipes[1], more[0], more[1]} {
			x.chaos = rand.New(rand.NewPCG(uint64(i), 0))
		}
		x, y := p.dialer.Attach(more[0]), p.listener.Attach(more[1])
		p.wg.Go(func() { more[0].deliver(y) })
		p.wg.Go(func() { more[1].deliver(x) })
		p.wg.Go(func() { // echoes
			for {
				req, err := p.listener.Accept(context.Background())
				if err != nil {
					return
				}
				p.wg.Go(func() {
					c, err := req.Accept()
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := c.(*Stream).WriteTo(c); err != nil {
						t.Error(err)
					}
					c.Close()
				})
			}
		})
		var clients sync.WaitGroup
		for i := range 40 {
			clients.Go(func() {
				c, err := p.dialer.DialContext(t.Context(), "tcp", "echo:7")
				if err != nil {
					t.Error(err)
					return
				}
				want := patternBytes(byte(i), 0, 300000)
				clients.Go(func() {
					c.Write(want)
					c.(*Stream).CloseWrite()
				})
				got, err := io.ReadAll(c)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("stream %d: %d bytes came back, %v", i, len(got), err)
				}
				p.dialer.Stats()
				c.Close()
			})
		}
		clients.Wait()
		p.expectNoStreams(t)
		if st := p.dialer.Stats(); st.Rejected.Replay == 0 || st.RTT < 2*delay {
			t.Errorf("%d packets came twice, round trip %v", st.Rejected.Replay, st.RTT)
		}
	})
}

// A session without a carrier waits for one.
func TestNoCarrier(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a, b := p.dial(t, "tcp")
		p.paths[0].Detach()
		p.paths[1].Detach()
		a.Write([]byte("hello"))
		time.Sleep(20 * time.Second)
		more := [2]*pipe{newPipe(delay), newPipe(delay)}
		x, y := p.dialer.Attach(more[0]), p.listener.Attach(more[1])
		p.wg.Go(func() { more[0].deliver(y) })
		p.wg.Go(func() { more[1].deliver(x) })
		got := make([]byte, 5)
		if _, err := io.ReadFull(b, got); err != nil {
			t.Error(err)
		}
	})
}

// Small writes wait for company only while the first hop is busy.
func TestCoalesce(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		p.pipes[0].own.Store(p.paths[0]) // tells what it took
		a, b := p.dial(t, "tcp")
		time.Sleep(time.Second)
		buf := make([]byte, 1000)

		start := time.Now()
		a.Write([]byte("x"))
		b.Read(buf)
		if took := time.Since(start); took != delay {
			t.Errorf("a lone write took %v, the carrier takes %v", took, delay)
		}
		time.Sleep(time.Second)

		before := p.dialer.Stats().PacketsSent
		for range 500 {
			a.Write([]byte("x"))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if n := p.dialer.Stats().PacketsSent - before; n > 30 {
			t.Errorf("500 small writes in half a second made %d packets", n)
		}
	})
}

// TestIdleStreams holds the promise that a stream nobody uses costs little.
func TestIdleStreams(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		const n = 1000
		before := heapBytes()
		goroutines := runtime.NumGoroutine()
		var ends []net.Conn
		buf := make([]byte, 10)
		for range n {
			a, b := p.dial(t, "tcp")
			a.Write(buf) // they have been in use
			io.ReadFull(b, buf)
			ends = append(ends, a, b)
		}
		time.Sleep(time.Minute)
		if each := (heapBytes() - before) / (2 * n); each > 3<<10 {
			t.Errorf("an idle stream takes %d bytes at each end", each)
		} else {
			t.Logf("%d bytes at each end", each)
		}
		if more := runtime.NumGoroutine() - goroutines; more > 0 {
			t.Errorf("%d goroutines more than without streams", more)
		}
		for _, c := range ends {
			c.Close()
		}
		p.expectNoStreams(t)
	})
}

func heapBytes() int64 {
	runtime.GC()
	runtime.GC() // what was in a pool goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
