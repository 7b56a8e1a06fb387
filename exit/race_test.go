package exit

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// attempt is what happens when an address is dialled.
type attempt struct {
	after time.Duration
	err   error
}

// dialled is one end of a pipe that says whether it was closed.
type dialled struct {
	net.Conn
	addr   netip.Addr
	closed bool
}

func (d *dialled) Close() error { d.closed = true; return nil }

func TestRace(t *testing.T) {
	a := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	const ms = time.Millisecond
	for _, tt := range []struct {
		what     string
		attempts [3]attempt
		winner   int // or -1
		errno    syscall.Errno
		started  int
		took     time.Duration
	}{
		{"first at once", [3]attempt{{after: 10 * ms}}, 0, 0, 1, 10 * ms},
		{"first fails at once", [3]attempt{{0, syscall.ENETUNREACH}, {after: 10 * ms}}, 1, 0, 2, 10 * ms},
		{"first hangs", [3]attempt{{after: time.Hour}, {after: 10 * ms}}, 1, 0, 2, 260 * ms},
		{"two hang", [3]attempt{{after: time.Hour}, {after: time.Hour}, {after: 10 * ms}}, 2, 0, 3, 510 * ms},
		{"slow first wins", [3]attempt{{after: 300 * ms}, {after: time.Hour}}, 0, 0, 2, 300 * ms},
		{"both at the same time", [3]attempt{{after: 260 * ms}, {after: 10 * ms}}, -2, 0, 2, 260 * ms},
		{"all refuse", [3]attempt{{0, syscall.ENETUNREACH}, {0, syscall.ECONNREFUSED}, {0, syscall.EHOSTUNREACH}}, -1, syscall.ECONNREFUSED, 3, 0},
		{"all hang", [3]attempt{{after: time.Hour}, {after: time.Hour}, {after: time.Hour}}, -1, 0, 3, 10 * time.Second},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				var mu sync.Mutex
				var conns []*dialled
				started := 0
				begin := time.Now()
				conn, err := race(ctx, a, attemptDelay, func(ctx context.Context, to netip.Addr) (net.Conn, error) {
					do := tt.attempts[slices.Index(a, to)]
					mu.Lock()
					started++
					mu.Unlock()
					select {
					case <-time.After(do.after):
					case <-ctx.Done():
						return nil, ctx.Err()
					}
					if do.err != nil {
						return nil, do.err
					}
					c := &dialled{addr: to}
					mu.Lock()
					defer mu.Unlock()
					conns = append(conns, c)
					return c, nil
				})
				if started != tt.started || time.Since(begin) != tt.took {
					t.Errorf("%d attempts in %v, want %d in %v", started, time.Since(begin), tt.started, tt.took)
				}
				if tt.winner == -1 {
					if err == nil || tt.errno != 0 && !errors.Is(err, tt.errno) {
						t.Errorf("error %v, want %v", err, tt.errno)
					}
					if refuseDial("x", err).Reason == ReasonFailed {
						t.Errorf("%v has no fitting reason", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if won := conn.(*dialled).addr; tt.winner >= 0 && won != a[tt.winner] {
					t.Errorf("%v won", won)
				}
				for _, c := range conns {
					if c.closed == (c == conn) {
						t.Errorf("%v: closed is %v", c.addr, c.closed)
					}
				}
			})
		})
	}
}

func TestInterleave(t *testing.T) {
	for _, tt := range []struct{ in, want []string }{
		{[]string{"192.0.2.1"}, []string{"192.0.2.1"}},
		{[]string{"2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"}, []string{"2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"}},
		{[]string{"192.0.2.1", "2001:db8::1", "192.0.2.2"}, []string{"192.0.2.1", "2001:db8::1", "192.0.2.2"}},
		{[]string{"::ffff:192.0.2.1", "192.0.2.2"}, []string{"192.0.2.1", "192.0.2.2"}},
		{
			[]string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5", "2001:db8::6", "192.0.2.1"},
			[]string{"2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5"},
		},
	} {
		var in []netip.Addr
		for _, a := range tt.in {
			in = append(in, netip.MustParseAddr(a))
		}
		var got []string
		for _, a := range interleave(in) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v, want %v", tt.in, got, tt.want)
		}
	}
}
