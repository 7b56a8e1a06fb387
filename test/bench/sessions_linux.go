package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

const (
	manySessions  = 2000
	flowsEach     = 3  // of a session, open all the time
	hubSessions   = 50 // share connections to the relay
	manyRequests  = 4000
	requestsPause = 5 * time.Millisecond // on average, between any two
	requestSize   = 200                  // bytes, and as many come back
	starving      = 30 * time.Second     // without an answer
)

// measureSessions measures an exit with many sessions, on loopback: its memory,
// and how evenly they are served.
func measureSessions(ctx context.Context, binary string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	url, _, stop, err := startLoopback(ctx, []string{binary, "relay", "--listen", "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer stop()
	dir, err := os.MkdirTemp("", "nws-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	npub, pid, end, err := startLoopbackExit(ctx, binary, dir, url)
	if err != nil {
		return err
	}
	defer end()
	out, err := exec.CommandContext(ctx, self, "generator", "sessions", url, npub).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return fmt.Errorf("sessions: %s", failed.Stderr)
	}
	if err != nil {
		return err
	}
	p50, p99, err := twoNumbers(string(out))
	if err != nil {
		return err
	}
	peak, err := peakMB(pid)
	if err != nil {
		return err
	}
	figure("sessions_2000_exit_mb", peak, "MB")
	figure("sessions_p50_ms", p50, "ms")
	figure("sessions_p99_ratio", p99/p50, "")
	return nil
}

// startLoopbackExit starts an exit with room for all, and returns its npub.
func startLoopbackExit(ctx context.Context, binary, dir, relay string) (npub string, pid int, stop func(), err error) {
	key, config := filepath.Join(dir, "key"), filepath.Join(dir, "nws.toml")
	made, err := exec.CommandContext(ctx, binary, "keygen", key).Output()
	if err != nil {
		return "", 0, nil, fmt.Errorf("keygen: %w", err)
	}
	text := fmt.Sprintf("[exit]\nmax_sessions = %d\nmax_flows = %d\nallow_private = [\"127.0.0.0/8\"]\npolicy = \"open\"\n", manySessions+100, manySessions*flowsEach+1000)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", 0, nil, err
	}
	_, pid, stop, err = startUntil(ctx, []string{binary, "exit", "--config", config, "--key", key, "--relay", relay, "--allow-root"}, "ready")
	return strings.TrimSpace(string(made)), pid, stop, err
}

// peakMB is the most resident memory that a process has had.
func peakMB(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, fmt.Errorf("process %d has no VmHWM", pid)
	}
	kb, err := strconv.ParseFloat(fields[0], 64)
	return kb * 1024 / 1e6, err
}

// sessions is many clients with throw-away keys: its arguments are the relay and
// the exit. It prints the median and the 99th percentile of the time of a small
// request, in milliseconds, and fails if one is not answered.
func sessions(ctx context.Context, args []string) error {
	key, err := envelope.ParsePublicKey(args[1])
	if err != nil {
		return err
	}
	target, err := serveEcho(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	crowd := make([][]net.Conn, manySessions)
	failed := make(chan error, manySessions)
	places := make(chan struct{}, 32) // that connect at a time
	var hub *nostrlink.Hub
	for i := range crowd {
		if i%hubSessions == 0 {
			hub = nostrlink.NewHub(nostrlink.HubOptions{})
		}
		link := hub.NewLink(key, args[:1], nostrlink.LinkOptions{Mode: nostrlink.SessionOnly})
		go func() {
			places <- struct{}{}
			serving.Go(func() { link.Serve(ctx) })
			var err error
			crowd[i], err = flowsOf(ctx, link, target)
			<-places
			failed <- err
		}()
	}
	for range crowd {
		if err := <-failed; err != nil {
			return err
		}
	}
	times, err := askAll(ctx, crowd)
	if err != nil {
		return err
	}
	slices.Sort(times)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	fmt.Println(ms(times[len(times)/2]), ms(times[len(times)*99/100]))
	return nil
}

// serveEcho returns what it gets, until ctx ends.
func serveEcho(ctx context.Context) (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	return l.Addr().String(), nil
}

// flowsOf opens the flows of one session.
func flowsOf(ctx context.Context, link *nostrlink.Link, target string) (flows []net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for link.Connect(ctx) != nil { // the exit may be busy
		if ctx.Err() != nil {
			return nil, fmt.Errorf("a session: %w", link.Status().Failure)
		}
		time.Sleep(100 * time.Millisecond)
	}
	for range flowsEach {
		flow, err := link.DialContext(ctx, "tcp", target)
		if err != nil {
			return nil, fmt.Errorf("a flow: %w", err)
		}
		flows = append(flows, flow)
	}
	return flows, nil
}

// askAll makes small requests on all flows in turn, each at its time, however long
// others take, and returns how long each took.
func askAll(ctx context.Context, crowd [][]net.Conn) ([]time.Duration, error) {
	type answer struct {
		took time.Duration
		err  error
	}
	answers := make(chan answer, manyRequests)
	order := rand.Perm(manySessions)
	for n := range manyRequests {
		flow := crowd[order[n%manySessions]][n/manySessions%flowsEach]
		go func() {
			begun := time.Now()
			err := askOnce(flow)
			answers <- answer{time.Since(begun), err}
		}()
		select {
		case <-time.After(time.Duration(rand.Int64N(int64(2 * requestsPause)))):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var times []time.Duration
	starved := 0
	for range manyRequests {
		a := <-answers
		if a.err != nil {
			starved++
		}
		times = append(times, a.took)
	}
	if starved > 0 {
		return nil, fmt.Errorf("%d of %d requests were not answered", starved, manyRequests)
	}
	return times, nil
}

func askOnce(flow net.Conn) error {
	request := make([]byte, requestSize)
	if err := flow.SetDeadline(time.Now().Add(starving)); err != nil {
		return err
	}
	if _, err := flow.Write(request); err != nil {
		return err
	}
	_, err := io.ReadFull(flow, request)
	return err
}
