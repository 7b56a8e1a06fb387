package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
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
		if took := time.Since(start); took > 3*time.Minute {
			t.Errorf("noticed after %v", took)
		}
	})
}
