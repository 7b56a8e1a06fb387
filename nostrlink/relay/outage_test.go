package relay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relaytest"
)

// heard is a log at info level, as lines "after: what".
type heard struct {
	slog.Handler
	begun time.Time

	mu    sync.Mutex
	lines []string
}

func newHeard() *heard {
	return &heard{Handler: slog.NewTextHandler(new(bytes.Buffer), nil), begun: time.Now()}
}

func (h *heard) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, fmt.Sprintf("%v: %s", r.Time.Sub(h.begun).Truncate(time.Minute), r.Message))
	return nil
}

// take returns the lines since the last time.
func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	lines := h.lines
	h.lines = nil
	return lines
}

func count(lines []string, what string) (n int) {
	for _, l := range lines {
		if strings.HasSuffix(l, what) {
			n++
		}
	}
	return n
}

// TestLogOfAnOutage: whoever reads the log hears when a relay goes and when it is
// back, and of a long outage now and then.
func TestLogOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newHeard()
		r, _ := served(t, relaytest.Behaviour{}, relay.ClientOptions{Options: relay.Options{Log: slog.New(log)}})
		time.Sleep(time.Minute)
		r.Set(relaytest.Behaviour{Status: 503})
		r.Cut()
		time.Sleep(3 * time.Hour)
		r.Set(relaytest.Behaviour{})
		time.Sleep(time.Hour)
		synctest.Wait()
		want := []struct {
			at   time.Duration // at the next attempt after that
			what string
		}{
			{0, "relay connected"},
			{time.Minute, "relay not connected"},                  // the connection was cut,
			{time.Minute, "relay not connected"},                  // and the relay says 503
			{2 * time.Minute, "relay not connected"},              // a minute later,
			{12 * time.Minute, "relay not connected"},             // ten,
			{time.Hour + 12*time.Minute, "relay not connected"},   // an hour,
			{2*time.Hour + 12*time.Minute, "relay not connected"}, // and so on
			{3*time.Hour + time.Minute, "relay connected"},
		}
		got := log.take()
		fits := func(line string, n int) bool {
			text, what, _ := strings.Cut(line, ": ")
			at, err := time.ParseDuration(text)
			return err == nil && what == want[n].what && at >= want[n].at && at <= want[n].at+3*time.Minute
		}
		for n, line := range got {
			if len(got) != len(want) || !fits(line, n) {
				t.Fatalf("line %d of the log:\n%s", n, strings.Join(got, "\n"))
			}
		}
	})
}

// TestLogOfAnUnsteadyRelay: one that takes and drops us is away as long as it does.
func TestLogOfAnUnsteadyRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newHeard()
		r, _ := served(t, relaytest.Behaviour{}, relay.ClientOptions{Options: relay.Options{Log: slog.New(log)}})
		for range 600 {
			time.Sleep(time.Second)
			r.Cut()
		}
		synctest.Wait()
		lines := log.take()
		if up, down := count(lines, "relay connected"), count(lines, "relay not connected"); up != 1 || down < 1 || down > 3 {
			t.Errorf("in ten minutes %d lines that it is connected, %d that it is not", up, down)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if lines := log.take(); len(lines) != 1 || count(lines, "relay connected") != 1 {
			t.Errorf("when it has settled: %q", lines)
		}
	})
}

// TestLogOfManyReasons: neither the port of our end nor what a relay makes up has a
// line for each attempt.
func TestLogOfManyReasons(t *testing.T) {
	for name, reason := range map[string]func(n int) string{
		"port":    func(n int) string { return fmt.Sprintf("read tcp 192.0.2.1:%d->192.0.2.2:443: reset", n) },
		"made up": func(n int) string { return strings.Repeat("x", n) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, attempts := newHeard(), 0
				c, err := relay.NewClient("ws://relay.test", relay.ClientOptions{Options: relay.Options{
					Log: slog.New(log),
					DialContext: func(context.Context, string, string) (net.Conn, error) {
						attempts++
						return nil, errors.New(reason(attempts))
					},
				}})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if err := c.Serve(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				if n := len(log.take()); attempts < 100 || n < 3 || n > 12 {
					t.Errorf("%d lines for %d attempts", n, attempts)
				}
			})
		})
	}
}
