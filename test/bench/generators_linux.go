package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A generator is a process of its own in one of the hosts. It prints lines of
// words; its last line is its result.
func generate(ctx context.Context, name string, args []string) error {
	generators := map[string]func(context.Context, []string) error{
		"khatru": serveKhatru, "publish": publish, "subscribe": subscribe, "serve": serve,
		"download": download, "upload": upload, "hold": hold, "latency": latency, "page": page, "flood": flood,
		"sessions": sessions,
	}
	g := generators[name]
	if g == nil {
		return fmt.Errorf("no generator %q", name)
	}
	return g(ctx, args)
}

// What a connection to serve is for: its first byte.
const (
	wantDownload = 'd' // bytes without end
	wantUpload   = 'u' // read to the end, then answer how many came
	wantHold     = 'h' // send the byte back, then wait for the end
)

// transferTime is how long a stream is measured, after its first byte.
const transferTime = 5 * time.Second

// serve is the server of the streams; its argument is the address.
func serve(ctx context.Context, args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	fmt.Println("serving")
	for {
		c, err := l.Accept()
		if err != nil {
			return nil // the parent is done
		}
		go serveStream(c)
	}
}

func serveStream(c net.Conn) {
	defer c.Close()
	var want [1]byte
	if _, err := io.ReadFull(c, want[:]); err != nil {
		return
	}
	switch want[0] {
	case wantDownload:
		buf := make([]byte, 256<<10)
		for {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	case wantUpload:
		n, err := io.CopyBuffer(io.Discard, onlyReader{c}, make([]byte, 256<<10))
		if err == nil {
			_ = binary.Write(c, binary.BigEndian, n)
		}
	case wantHold:
		if _, err := c.Write(want[:]); err == nil {
			_, _ = io.ReadFull(c, want[:])
		}
	}
}

// onlyReader hides the kernel's own ways to copy, so that the bytes are read.
type onlyReader struct{ io.Reader }

func open(ctx context.Context, address string, want byte) (*net.TCPConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{want}); err != nil {
		c.Close()
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// download prints bytes and seconds of some streams from the server, counted
// for a while after all have begun. Arguments: address, number of streams, and
// seconds to pass before counting.
func download(ctx context.Context, args []string) error {
	streams, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	pause, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	var total atomic.Int64
	failed := make(chan error, streams)
	for range streams {
		c, err := open(ctx, args[0], wantDownload)
		if err != nil {
			return err
		}
		defer c.Close()
		buf := make([]byte, 256<<10)
		if _, err := io.ReadFull(c, buf[:1]); err != nil {
			return err
		}
		go func() {
			for {
				n, err := c.Read(buf)
				if total.Add(int64(n)); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	var before int64
	var start time.Time
	for _, wait := range []time.Duration{time.Duration(pause) * time.Second, transferTime} {
		before, start = total.Load(), time.Now()
		select {
		case <-time.After(wait):
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	fmt.Println(total.Load()-before, time.Since(start).Seconds())
	return nil
}

// upload prints bytes and seconds of one stream to the server, until it has
// answered that all came.
func upload(ctx context.Context, args []string) error {
	c, err := open(ctx, args[0], wantUpload)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 256<<10)
	var total int64
	start := time.Now()
	for time.Since(start) < transferTime {
		n, err := c.Write(buf)
		if err != nil {
			return err
		}
		total += int64(n)
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	var got int64
	if err := binary.Read(c, binary.BigEndian, &got); err != nil {
		return err
	}
	if got != total {
		return fmt.Errorf("%d bytes sent, %d came", total, got)
	}
	fmt.Println(total, time.Since(start).Seconds())
	return nil
}

// hold opens a number of connections, uses each once, prints that they are
// there and keeps them until it is told to end.
func hold(ctx context.Context, args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	conns := make([]net.Conn, n)
	errs := make(chan error, n)
	var workers sync.WaitGroup
	next := make(chan int)
	for range 16 {
		workers.Go(func() {
			for i := range next {
				c, err := open(ctx, args[0], wantHold)
				if err == nil {
					conns[i] = c
					_, err = io.ReadFull(c, make([]byte, 1))
				}
				errs <- err
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	for range n {
		if err := <-errs; err != nil {
			return err
		}
	}
	fmt.Println("held", n)
	<-ctx.Done()
	return nil
}

// latency makes small requests one after another, a new connection each, and
// prints the median and the 95th percentile of the time to the first byte, in
// milliseconds.
func latency(ctx context.Context, args []string) error {
	const requests, warmUp = 200, 10
	var times []float64
	for i := range requests + warmUp {
		took, err := firstByte(ctx, args[0])
		if err != nil {
			return err
		}
		if i >= warmUp {
			times = append(times, float64(took.Microseconds())/1e3)
		}
	}
	slices.Sort(times)
	fmt.Println(times[len(times)/2], times[len(times)*95/100])
	return nil
}

func firstByte(ctx context.Context, address string) (time.Duration, error) {
	start := time.Now()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return 0, err
	}
	took := time.Since(start)
	_, err = io.Copy(io.Discard, c)
	return took, err
}
