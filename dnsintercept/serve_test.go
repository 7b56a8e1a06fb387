package dnsintercept

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// client is an application's end of a flow that is being served.
type client struct {
	net.Conn
	t    *testing.T
	done chan struct{} // closed when the flow has been served
}

// connect has loop serve a new flow. A pipe keeps datagrams apart as long as
// they are read into a buffer that holds them.
func connect(t *testing.T, loop func(context.Context, net.Conn)) client {
	here, there := net.Pipe()
	c := client{here, t, make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(c.done)
		loop(ctx, there)
	}()
	t.Cleanup(func() {
		cancel()
		<-c.done
		here.Close()
	})
	return c
}

// recv returns the next datagram.
func (c client) recv() dnsmessage.Message {
	c.t.Helper()
	buf := make([]byte, maxMsg)
	n, err := c.Read(buf)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	return unpack(c.t, buf[:n])
}

// recvFrame returns the next message of a stream.
func (c client) recvFrame() dnsmessage.Message {
	c.t.Helper()
	msg, err := readFrame(c, maxMsg)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	return unpack(c.t, msg)
}

func (c client) send(msg []byte) {
	c.t.Helper()
	if _, err := c.Write(msg); err != nil {
		c.t.Fatal(err)
	}
}

// ended reports whether the flow has been served to its end.
func (c client) ended() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// stalled is an Upstream that answers only when it is told to.
type stalled struct {
	waiting atomic.Int64
	most    atomic.Int64
	free    chan struct{}
}

func (s *stalled) Exchange(ctx context.Context, query []byte) ([]byte, error) {
	if n := s.waiting.Add(1); n > s.most.Load() {
		s.most.Store(n)
	}
	defer s.waiting.Add(-1)
	query = bytes.Clone(query)
	select {
	case <-s.free:
		return answerTo(query, 1), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func echo(_ context.Context, query []byte) ([]byte, error) { return answerTo(query, 220, 220), nil }

func TestUDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInterceptor(t, upstreamFunc(echo), Options{})
		c := connect(t, i.serveUDP)
		for n, tt := range []struct {
			a       ask
			answers int
			tc      bool
		}{
			{ask{host: "blog.nostr", kind: dnsmessage.TypeA}, 1, false},
			{ask{host: "example.com", kind: dnsmessage.TypeTXT}, 2, false},
			{ask{host: "nowhere.nostr", kind: dnsmessage.TypeA}, 0, false},
			{ask{host: "a-name-that-makes-the-answer-too-long-for-the-client.example.com", kind: dnsmessage.TypeTXT}, 0, true},
			{ask{host: "a-name-that-makes-the-answer-too-long-for-the-client.example.com", kind: dnsmessage.TypeTXT, size: 1232}, 2, false},
		} {
			tt.a.id = uint16(n)
			c.send(tt.a.pack(t))
			if m := c.recv(); len(m.Answers) != tt.answers || m.Truncated != tt.tc || m.ID != tt.a.id {
				t.Errorf("%+v: %+v", tt.a, m)
			}
			c.send([]byte("not a query")) // gets no answer, and does no harm
		}
		if c.ended() {
			t.Error("the flow ended at once")
		}
		time.Sleep(udpIdle)
		if !c.ended() {
			t.Error("an idle flow was kept")
		}
	})
}

func TestUDPQueryThatIsTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A datagram that the buffer cuts is malformed, whatever comes first.
		msg := ask{host: "example.com", kind: dnsmessage.TypeA}.pack(t)
		msg[11] = 1
		msg = append(msg, 0, 0, 10, 0, 1, 0, 0, 0, 0, 0xff, 0xff)
		cut := append(msg, make([]byte, maxQuery-len(msg))...)
		c := connect(t, newInterceptor(t, noUpstream(t), Options{}).serveUDP)
		c.send(cut)
		if m := c.recv(); m.RCode != dnsmessage.RCodeFormatError {
			t.Errorf("%+v", m.Header)
		}
	})
}

func TestUDPUpstreamFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := upstreamFunc(func(context.Context, []byte) ([]byte, error) { return nil, errUpstream })
		for _, tt := range []struct {
			up   Upstream
			took time.Duration
		}{{down, 0}, {&stalled{}, defaultTimeout}} {
			c := connect(t, newInterceptor(t, tt.up, Options{}).serveUDP)
			start := time.Now()
			c.send(ask{host: "example.com", kind: dnsmessage.TypeA}.pack(t))
			if m := c.recv(); m.RCode != dnsmessage.RCodeServerFailure {
				t.Errorf("%v", m.RCode)
			}
			if took := time.Since(start); took != tt.took {
				t.Errorf("SERVFAIL after %v, want %v", took, tt.took)
			}
		}
	})
}

func TestUDPIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct{ opt, flows, want int }{{3, 2, 3}, {0, 1, perFlow}} {
			up := &stalled{free: make(chan struct{})}
			i := newInterceptor(t, up, Options{Queries: tt.opt})
			clients := make([]client, tt.flows)
			for n := range clients {
				clients[n] = connect(t, i.serveUDP)
			}
			for n := range tt.want {
				clients[n%tt.flows].send(numbered(t, n))
			}
			synctest.Wait()
			for _, c := range clients {
				c.send(numbered(t, 1000))
				if m := c.recv(); m.RCode != dnsmessage.RCodeServerFailure || m.Questions[0].Name.String() != "host-1000.example." {
					t.Errorf("one too many: %v", m)
				}
				c.send(ask{host: "blog.nostr", kind: dnsmessage.TypeA}.pack(t))
				if m := c.recv(); len(m.Answers) != 1 {
					t.Errorf("ours meanwhile: %v", m.RCode)
				}
			}
			close(up.free)
			for n := range tt.want {
				if m := clients[n%tt.flows].recv(); len(m.Answers) != 1 {
					t.Errorf("answer %d: %v", n, m.RCode)
				}
			}
			synctest.Wait()
			if up.most.Load() != int64(tt.want) || len(i.queries) != 0 {
				t.Errorf("%d queries at a time, %d tokens left", up.most.Load(), len(i.queries))
			}
			time.Sleep(udpIdle)
			for _, c := range clients {
				if !c.ended() {
					t.Error("a flow is kept, as if it had queries under way")
				}
			}
		}
	})
}

func TestFlowEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &stalled{}
		i := newInterceptor(t, up, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		var clients []client
		for _, loop := range []func(context.Context, net.Conn){i.serveUDP, i.serveTCP} {
			clients = append(clients, connect(t, func(_ context.Context, conn net.Conn) { loop(ctx, conn) }))
		}
		clients[0].send(numbered(t, 1))
		sendFrame(t, clients[1], numbered(t, 1))
		synctest.Wait()
		if n := up.waiting.Load(); n != 2 {
			t.Fatalf("%d queries under way", n)
		}
		cancel()
		for n, c := range clients {
			if !c.ended() || up.waiting.Load() != 0 {
				t.Errorf("flow %d goes on, %d queries too", n, up.waiting.Load())
			}
		}
	})
}

// leak check 40: pipelines over TCP
func TestTCPPipelines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		up := upstreamFunc(func(ctx context.Context, query []byte) ([]byte, error) {
			answer := answerTo(query, 200, 200, 200, 200)
			if q, _ := parseQuery(query); q.host == "host-0.example" {
				<-release
			}
			return answer, nil
		})
		c := connect(t, newInterceptor(t, up, Options{}).serveTCP)
		go sendFrame(t, c, numbered(t, 0), numbered(t, 1), ask{host: "blog.nostr", kind: dnsmessage.TypeA}.pack(t))
		got := make(map[string]int)
		for range 2 {
			m := c.recvFrame()
			got[m.Questions[0].Name.String()] = len(m.Answers)
		}
		if got["host-1.example."] != 4 || got["blog.nostr."] != 1 {
			t.Errorf("before the first query's: %v", got)
		}
		close(release)
		if m := c.recvFrame(); m.Questions[0].Name.String() != "host-0.example." || m.Truncated {
			t.Errorf("last: %v", m.Questions)
		}
		// One byte at a time.
		msg := ask{host: "blog.nostr", kind: dnsmessage.TypeAAAA}.pack(t)
		for _, b := range append([]byte{0, byte(len(msg))}, msg...) {
			c.send([]byte{b})
		}
		if m := c.recvFrame(); len(m.Answers) != 1 {
			t.Errorf("sent in pieces: %v", m)
		}
		time.Sleep(tcpIdle - time.Second)
		if c.ended() {
			t.Error("ended before its time")
		}
		time.Sleep(time.Second)
		if !c.ended() {
			t.Error("an idle connection was kept")
		}
	})
}

func TestTCPWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &stalled{free: make(chan struct{})}
		i := newInterceptor(t, up, Options{Timeout: time.Hour})
		c := connect(t, i.serveTCP)
		const n = perFlow + 20
		go func() {
			for k := range n {
				sendFrame(t, c, numbered(t, k))
			}
		}()
		synctest.Wait()
		if got := up.waiting.Load(); got != perFlow {
			t.Errorf("%d queries at a time", got)
		}
		close(up.free)
		for range n {
			if m := c.recvFrame(); len(m.Answers) != 1 {
				t.Errorf("%v", m.RCode)
			}
		}
		if up.most.Load() != perFlow {
			t.Errorf("%d queries at a time", up.most.Load())
		}
	})
}

func TestTCPClosesOnNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInterceptor(t, noUpstream(t), Options{})
		response := ask{host: "blog.nostr", kind: dnsmessage.TypeA}.pack(t)
		response[2] |= 0x80
		for _, b := range [][]byte{{0, 0}, {0, 3, 1, 2, 3}, {0xff, 0xff}, append([]byte{0, byte(len(response))}, response...)} {
			c := connect(t, i.serveTCP)
			c.send(b)
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || !c.ended() {
				t.Errorf("%x: %v", b, err)
			}
		}
		// FORMERR does not end the connection: the framing was right.
		c := connect(t, i.serveTCP)
		sendFrame(t, c, make([]byte, headerLen))
		if m := c.recvFrame(); m.RCode != dnsmessage.RCodeFormatError {
			t.Errorf("%v", m.RCode)
		}
		sendFrame(t, c, ask{host: "blog.nostr", kind: dnsmessage.TypeA}.pack(t))
		if m := c.recvFrame(); len(m.Answers) != 1 {
			t.Errorf("%v", m.RCode)
		}
		// Half a message does, in time.
		c.send([]byte{0, 100, 1, 2, 3})
		time.Sleep(tcpIdle)
		if !c.ended() {
			t.Error("half a message keeps the connection")
		}
	})
}

func TestTCPAnswersAfterTheLastQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &stalled{free: make(chan struct{})}
		conn := &halfClosed{eof: make(chan struct{})}
		conn.in.Write([]byte{0, byte(len(numbered(t, 1)))})
		conn.in.Write(numbered(t, 1))
		done := make(chan struct{})
		go func() {
			defer close(done)
			newInterceptor(t, up, Options{}).serveTCP(t.Context(), conn)
		}()
		synctest.Wait() // the question and the end of the stream are read
		close(up.free)
		<-done
		msg, err := readFrame(&conn.out, maxMsg)
		if err != nil || len(unpack(t, msg).Answers) != 1 {
			t.Errorf("answer %x, %v", msg, err)
		}
	})
}

// halfClosed is a connection whose client has sent in, and no more.
type halfClosed struct {
	net.Conn
	in, out bytes.Buffer
	eof     chan struct{}
}

func (h *halfClosed) Read(b []byte) (int, error)       { return h.in.Read(b) }
func (h *halfClosed) Write(b []byte) (int, error)      { return h.out.Write(b) }
func (h *halfClosed) Close() error                     { return nil }
func (h *halfClosed) SetReadDeadline(time.Time) error  { return nil }
func (h *halfClosed) SetWriteDeadline(time.Time) error { return nil }

func TestTCPClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInterceptor(t, upstreamFunc(echo), Options{})
		c := connect(t, i.serveTCP)
		for n := range 10 {
			sendFrame(t, c, numbered(t, n))
		}
		time.Sleep(writeTimeout + time.Nanosecond)
		if !c.ended() {
			t.Error("the connection is still served")
		}
		if _, err := c.Write([]byte{0}); !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, os.ErrClosed) {
			t.Errorf("write: %v", err)
		}
	})
}
