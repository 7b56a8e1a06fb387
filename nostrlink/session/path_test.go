package session

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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
