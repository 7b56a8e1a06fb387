package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var errCarrierClosed = errors.New("carrier closed")

// pipe is a carrier in memory: a bounded queue of copies, delivered in order
// after delay by a goroutine of its own.
type pipe struct {
	delay time.Duration
	max   int
	queue chan *[]byte
	pool  sync.Pool
	stop  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup       // of late packets
	deaf  atomic.Bool          // loses everything
	hold  chan struct{}        // or nil; Send waits until it is closed
	own   atomic.Pointer[Path] // told what was accepted, if not nil
	taken uint64               // packets delivered
	chaos *rand.Rand           // or nil; drops, repeats and reorders
}

func newPipe(delay time.Duration) *pipe {
	return &pipe{
		delay: delay, max: 40960, queue: make(chan *[]byte, 16), stop: make(chan struct{}),
		pool: sync.Pool{New: func() any { b := make([]byte, 0, 40960); return &b }},
	}
}

func (p *pipe) Send(packet []byte) error {
	if p.hold != nil {
		select {
		case <-p.hold:
		case <-p.stop:
			return errCarrierClosed
		}
	}
	b := p.pool.Get().(*[]byte)
	*b = append((*b)[:0], packet...)
	select {
	case <-p.stop:
		return errCarrierClosed
	default:
	}
	select {
	case p.queue <- b:
		return nil
	case <-p.stop:
		return errCarrierClosed
	}
}

func (p *pipe) MaxPacket() int { return p.max }
func (p *pipe) Close() error   { p.once.Do(func() { close(p.stop) }); return nil }

// deliver hands the packets to the other end's path until the pipe is closed.
func (p *pipe) deliver(to *Path) {
	defer p.wg.Wait()
	for {
		select {
		case b := <-p.queue:
			if p.delay > 0 {
				time.Sleep(p.delay)
			}
			if own := p.own.Load(); own != nil {
				own.Accepted(p.taken)
			}
			p.taken++
			switch {
			case p.deaf.Load():
			case p.chaos != nil:
				p.mistreat(to, bytes.Clone(*b))
			default:
				to.Receive(*b)
			}
			p.pool.Put(b)
		case <-p.stop:
			// What was sent before the end still arrives.
			for {
				select {
				case b := <-p.queue:
					to.Receive(*b)
				default:
					return
				}
			}
		}
	}
}

// mistreat does to a packet what a bad relay does.
func (p *pipe) mistreat(to *Path, packet []byte) {
	for range p.chaos.IntN(10) / 8 * 2 { // sometimes twice, on its own time
		late := time.Duration(p.chaos.IntN(300)) * time.Millisecond
		p.wg.Go(func() {
			time.Sleep(late)
			to.Receive(packet)
		})
	}
	if p.chaos.IntN(20) > 0 {
		to.Receive(packet)
	}
}

// pair is two sessions joined by one carrier each way.
type pair struct {
	dialer, listener *Session
	paths            [2]*Path
	pipes            [2]*pipe
	wg               sync.WaitGroup
}

func newPair(tb testing.TB, delay time.Duration, cfg Config) *pair {
	tb.Helper()
	p := &pair{pipes: [2]*pipe{newPipe(delay), newPipe(delay)}}
	a, b := cfg, cfg
	a.Role, b.Role = Dialer, Listener
	p.dialer, p.listener = New(a), New(b)
	p.paths[0], p.paths[1] = p.dialer.Attach(p.pipes[0]), p.listener.Attach(p.pipes[1])
	p.wg.Go(func() { p.pipes[0].deliver(p.paths[1]) })
	p.wg.Go(func() { p.pipes[1].deliver(p.paths[0]) })
	tb.Cleanup(p.close)
	return p
}

func (p *pair) close() {
	p.dialer.Close()
	p.listener.Close()
	p.pipes[0].Close()
	p.pipes[1].Close()
	p.wg.Wait()
}

// dial opens a stream and gives both of its ends.
func (p *pair) dial(tb testing.TB, network string) (a, b net.Conn) {
	tb.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		req, err := p.listener.Accept(context.Background())
		if err != nil {
			tb.Error(err)
			close(accepted)
			return
		}
		c, err := req.Accept()
		if err != nil {
			tb.Error(err)
		}
		accepted <- c
	}()
	a, err := p.dialer.DialContext(context.Background(), network, "example.org:80")
	if err != nil {
		tb.Fatal(err)
	}
	if network != "udp" {
		return a, <-accepted
	}
	a.Write(nil) // a flow begins with its first datagram
	b = <-accepted
	b.Read(nil)
	return a, b
}

func BenchmarkStream(b *testing.B) {
	for _, bench := range []struct {
		name string
		run  func(b *testing.B, from, to net.Conn)
	}{
		{"WriteTo", func(b *testing.B, from, to net.Conn) { to.(io.WriterTo).WriteTo(io.Discard) }},
		{"Read", func(b *testing.B, from, to net.Conn) {
			buf := make([]byte, 64<<10)
			for {
				if _, err := to.Read(buf); err != nil {
					return
				}
			}
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			p := newPair(b, 0, Config{})
			from, to := p.dial(b, "tcp")
			const piece = 64 << 10
			b.SetBytes(piece)
			b.ReportAllocs()
			var wg sync.WaitGroup
			wg.Go(func() { bench.run(b, from, to) })
			buf := make([]byte, piece)
			for b.Loop() {
				if _, err := from.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			from.(*Stream).CloseWrite()
			wg.Wait()
		})
	}
}

// BenchmarkManyStreams carries the same over a thousand streams at once.
func BenchmarkManyStreams(b *testing.B) {
	p := newPair(b, 0, Config{})
	const n, piece = 1000, 16 << 10
	b.SetBytes(n * piece)
	var from []net.Conn
	var wg sync.WaitGroup
	for range n {
		a, c := p.dial(b, "tcp")
		from = append(from, a)
		wg.Go(func() { c.(io.WriterTo).WriteTo(io.Discard) })
	}
	buf := make([]byte, piece)
	for b.Loop() {
		var writers sync.WaitGroup
		for _, c := range from {
			writers.Go(func() { c.Write(buf) })
		}
		writers.Wait()
	}
	for _, c := range from {
		c.(*Stream).CloseWrite()
	}
	wg.Wait()
}
