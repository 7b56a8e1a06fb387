package dnsintercept

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// server is the far end of a StreamUpstream.
type server struct {
	mu    sync.Mutex
	err   error      // dials fail with it
	stall bool       // dials take until their context ends
	conns []net.Conn // the server's ends
}

func (s *server) dial(ctx context.Context) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stall {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if s.err != nil {
		return nil, s.err
	}
	here, there := net.Pipe()
	s.conns = append(s.conns, there)
	return here, nil
}

// conn waits for the n-th connection.
func (s *server) conn(n int) net.Conn {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[n]
}

// result is what an Exchange in the background came to.
type result struct {
	done   bool
	answer []byte
	err    error
}

// inBackground starts an exchange. Its result is there after synctest.Wait.
func inBackground(ctx context.Context, up Upstream, query []byte) *result {
	r := new(result)
	go func() {
		r.answer, r.err = up.Exchange(ctx, query)
		r.done = true
	}()
	return r
}

// pass lets fake time go by, and all that is due happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func numbered(t testing.TB, n int) []byte {
	return ask{host: fmt.Sprintf("host-%d.example", n), kind: dnsmessage.TypeTXT, id: 4711}.pack(t)
}

func TestUpstreamAnswersInAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		u := NewStreamUpstream(s.dial)
		defer u.Close()
		results := make([]*result, 200)
		for n := range results {
			results[n] = inBackground(t.Context(), u, numbered(t, n))
		}
		conn := s.conn(0)
		queries := make([][]byte, len(results))
		ids := make(map[uint16]bool)
		for n := range queries {
			msg, err := readFrame(conn, maxMsg)
			if err != nil {
				t.Fatal(err)
			}
			queries[n] = msg
			ids[binary.BigEndian.Uint16(msg)] = true
		}
		if len(ids) != len(queries) {
			t.Errorf("%d IDs for %d queries in flight", len(ids), len(queries))
		}
		slices.Reverse(queries)
		for _, query := range queries {
			sendFrame(t, conn, answerTo(query, 1), answerTo(query, 2)) // the second is nobody's
		}
		synctest.Wait()
		for n, r := range results {
			if r.err != nil || !r.done {
				t.Fatalf("query %d: %v", n, r.err)
			}
			m := unpack(t, r.answer)
			if m.Questions[0].Name.String() != fmt.Sprintf("host-%d.example.", n) || len(m.Answers[0].Body.(*dnsmessage.TXTResource).TXT[0]) != 1 {
				t.Errorf("query %d: answer %v", n, m)
			}
		}
		if len(s.conns) != 1 {
			t.Errorf("%d connections", len(s.conns))
		}
	})
}

func TestUpstreamSendsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		u := NewStreamUpstream(s.dial)
		defer u.Close()
		r := inBackground(t.Context(), u, numbered(t, 1))
		if _, err := readFrame(s.conn(0), maxMsg); err != nil {
			t.Fatal(err)
		}
		s.conn(0).Close() // with the query on its way
		conn := s.conn(1)
		msg, err := readFrame(conn, maxMsg)
		if err != nil {
			t.Fatal(err)
		}
		sendFrame(t, conn, answerTo(msg, 1))
		synctest.Wait()
		if !r.done || r.err != nil {
			t.Errorf("sent again: %v", r.err)
		}
		// But not for ever.
		r = inBackground(t.Context(), u, numbered(t, 2))
		readFrame(conn, maxMsg)
		conn.Close()
		readFrame(s.conn(2), maxMsg)
		s.conn(2).Close()
		synctest.Wait()
		if !r.done || !errors.Is(r.err, errLinkLost) {
			t.Errorf("lost twice: %v", r.err)
		}
	})
}

func TestUpstreamCannotDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{err: errors.New("no exit")}
		u := NewStreamUpstream(s.dial)
		defer u.Close()
		start := time.Now()
		if _, err := u.Exchange(t.Context(), numbered(t, 1)); !errors.Is(err, s.err) {
			t.Errorf("dial refused: %v", err)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("took %v", d)
		}
		s.err, s.stall = nil, true
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := u.Exchange(ctx, numbered(t, 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial stalls: %v", err)
		}
		if _, err := u.Exchange(t.Context(), numbered(t, 1)); err == nil || time.Since(start) != dialTimeout {
			t.Errorf("dial stalls: %v after %v", err, time.Since(start))
		}
		s.stall = false
		r := inBackground(t.Context(), u, numbered(t, 1))
		conn := s.conn(0)
		msg, _ := readFrame(conn, maxMsg)
		sendFrame(t, conn, answerTo(msg, 1))
		synctest.Wait()
		if !r.done || r.err != nil {
			t.Errorf("dial works again: %v", r.err)
		}
	})
}

func TestUpstreamLeavesASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		u := NewStreamUpstream(s.dial)
		defer u.Close()
		ask := func(n int) *result {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			t.Cleanup(cancel)
			return inBackground(ctx, u, numbered(t, n))
		}
		// A server that answers others is merely slow with this one.
		slow, other := ask(1), ask(2)
		conn := s.conn(0)
		for range 2 {
			msg, err := readFrame(conn, maxMsg)
			if err != nil {
				t.Fatal(err)
			}
			if q, _ := parseQuery(msg); q.host == "host-2.example" {
				sendFrame(t, conn, answerTo(msg, 1))
			}
		}
		pass(2 * time.Second)
		if !slow.done || !errors.Is(slow.err, context.DeadlineExceeded) || other.err != nil {
			t.Errorf("slow server: %v and %v", slow.err, other.err)
		}
		// One that is called off says nothing about the server.
		ctx, cancel := context.WithCancel(t.Context())
		r := inBackground(ctx, u, numbered(t, 3))
		if _, err := readFrame(conn, maxMsg); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if !r.done || !errors.Is(r.err, context.Canceled) {
			t.Errorf("called off: %v", r.err)
		}
		// One on which nothing comes at all is left.
		r = ask(4)
		if _, err := readFrame(conn, maxMsg); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if !r.done || !errors.Is(r.err, context.DeadlineExceeded) {
			t.Errorf("silent server: %v", r.err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection is still there: %v", err)
		}
		r = ask(5)
		conn = s.conn(1)
		msg, _ := readFrame(conn, maxMsg)
		sendFrame(t, conn, answerTo(msg, 1))
		synctest.Wait()
		if !r.done || r.err != nil {
			t.Errorf("the next connection: %v", r.err)
		}
	})
}

func TestUpstreamIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		u := NewStreamUpstream(s.dial)
		results := make([]*result, maxPending+1)
		for n := range results {
			results[n] = inBackground(t.Context(), u, numbered(t, n))
		}
		synctest.Wait() // the server reads nothing
		var refused int
		for _, r := range results {
			if r.done {
				refused++
				if !errors.Is(r.err, errTooMany) {
					t.Errorf("refused with %v", r.err)
				}
			}
		}
		if refused != 1 {
			t.Errorf("%d of %d refused", refused, len(results))
		}
		u.Close()
		synctest.Wait()
		for n, r := range results {
			if !r.done || r.err == nil {
				t.Fatalf("query %d outlived Close", n)
			}
		}
		if _, err := u.Exchange(t.Context(), numbered(t, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		u.Close()
	})
}

func TestUpstreamBadInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		u := NewStreamUpstream(s.dial)
		defer u.Close()
		for _, query := range [][]byte{nil, make([]byte, 11), make([]byte, maxMsg+1)} {
			if _, err := u.Exchange(t.Context(), query); err == nil {
				t.Errorf("a query of %d bytes was sent", len(query))
			}
		}
		r := inBackground(t.Context(), u, numbered(t, 1))
		for n := range 2 {
			conn := s.conn(n)
			readFrame(conn, maxMsg)
			sendFrame(t, conn, make([]byte, headerLen-1))
		}
		synctest.Wait()
		if !r.done || !errors.Is(r.err, errLinkLost) {
			t.Errorf("no DNS message: %v", r.err)
		}
	})
}
