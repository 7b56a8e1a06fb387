package tunbench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

// median measures a few times.
func median(ctx context.Context, rounds int, measure func(context.Context) (float64, error)) (float64, error) {
	var values []float64
	for range rounds {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		v, err := measure(ctx)
		if err != nil {
			return 0, err
		}
		values = append(values, v)
	}
	slices.Sort(values)
	return values[len(values)/2], nil
}

// connect opens a blocking socket on the calling thread, for what nothing here
// takes ten seconds of unless it has stalled.
func connect(to netip.AddrPort) (int, error) {
	fd, err := netlab.Connect(to, netip.AddrPort{})
	if err != nil {
		return -1, fmt.Errorf("connect to %s: %w", to, err)
	}
	return fd, nil
}

// upload measures what reaches the handler, not what the kernel has buffered.
func (b *bench) upload(ctx context.Context) (rate float64, err error) {
	before, begin := b.stack.Stats().FromPrograms, time.Now()
	err = b.inPrograms(1, func() error {
		_, err := b.move(ctx, sinkAddr, unix.Write)
		return err
	})
	return float64(b.stack.Stats().FromPrograms-before) / 1e6 / time.Since(begin).Seconds(), err
}

// download measures what reaches the program.
func (b *bench) download(ctx context.Context) (rate float64, err error) {
	begin, total := time.Now(), 0
	err = b.inPrograms(1, func() (err error) {
		total, err = b.move(ctx, sourceAddr, unix.Read)
		return err
	})
	return float64(total) / 1e6 / time.Since(begin).Seconds(), err
}

// move calls read or write on a new connection for a while.
func (b *bench) move(ctx context.Context, to netip.AddrPort, call func(int, []byte) (int, error)) (total int, err error) {
	fd, err := connect(to)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 256<<10)
	for end := time.Now().Add(b.period); time.Now().Before(end) && ctx.Err() == nil; {
		n, err := call(fd, buf)
		if err != nil && err != unix.EINTR {
			return total, err
		}
		total += max(n, 0)
	}
	return total, ctx.Err()
}

// requests counts complete HTTP requests. One that stalls is an error.
func (b *bench) requests(ctx context.Context) (rate float64, err error) {
	const workers = 16
	var done atomic.Int64
	begin := time.Now()
	err = b.inPrograms(workers, func() error {
		buf := make([]byte, 16<<10)
		for time.Since(begin) < b.period && ctx.Err() == nil {
			if err := request(buf); err != nil {
				return err
			}
			done.Add(1)
		}
		return ctx.Err()
	})
	return float64(done.Load()) / time.Since(begin).Seconds(), err
}

func writeAll(fd int, text string) error {
	for len(text) > 0 {
		n, err := unix.Write(fd, []byte(text))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

func request(buf []byte) error {
	fd, err := connect(webAddr)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := writeAll(fd, httpRequest); err != nil {
		return err
	}
	for got := 0; ; {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0 && got == len(httpAnswer):
			return nil
		case n == 0:
			return fmt.Errorf("answer of %d bytes, want %d", got, len(httpAnswer))
		}
		got += n
	}
}

// idleFlows measures what this process's memory grows by per idle connection.
func (b *bench) idleFlows(ctx context.Context) (float64, error) {
	const flows = 1000
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	before, err := residentKB()
	if err != nil {
		return 0, err
	}
	err = b.inPrograms(1, func() error {
		for range flows {
			fd, err := connect(idleAddr)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
			if err := writeAll(fd, "hello"); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return 0, err
	}
	after, err := residentKB()
	return (after - before) / flows, err
}

// residentKB is the process's resident memory once the garbage is gone.
func residentKB() (float64, error) {
	runtime.GC()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	pages, err := strconv.Atoi(fields[1])
	return float64(pages*os.Getpagesize()) / 1e3, err
}
