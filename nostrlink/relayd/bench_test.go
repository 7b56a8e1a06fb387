package relayd_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/relayd"
)

// benchServe makes this test binary serve a relay until its standard input ends.
// Its value, unless "1", is a file for a CPU profile.
const benchServe = "RELAYD_TEST_SERVE"

func serveForBenchmark(profile string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := relayd.New(relayd.Options{})
	web := &http.Server{Handler: s}
	go web.Serve(l)
	if profile != "1" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Printf("ws://%s\n", l.Addr())
	io.Copy(io.Discard, os.Stdin)
	s.Close()
	return web.Close()
}

// BenchmarkRelayLatency sends one event of 1 KB at a time and waits until it has
// arrived.
func BenchmarkRelayLatency(b *testing.B) {
	url, stop := serveElsewhere(b)
	events, ids, to := sealedEvents(b, 1024)
	arrived := make(chan struct{}, 1)
	subscriber, publisher := dial(b, url, relay.Options{}), dial(b, url, relay.Options{})
	err := subscriber.Subscribe(context.Background(), "s", forKey(to), func([]byte) { arrived <- struct{}{} })
	if err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		i := n % len(events)
		if err := publisher.Publish(context.Background(), events[i], ids[i], nil); err != nil {
			b.Fatal(err)
		}
		<-arrived
	}
	publisher.Close()
	subscriber.Close()
	stop()
}

// BenchmarkRelay sends events from one publisher to one subscriber through a
// relay in a process of its own and reports what of them is plaintext, and the
// relay's CPU time. RELAYD_TEST_PROFILE names a file for the relay's profile.
func BenchmarkRelay(b *testing.B) {
	for _, size := range []int{1024, 16384, envelope.MaxPlaintext} {
		b.Run(fmt.Sprintf("plaintext=%d", size), func(b *testing.B) { benchmarkRelay(b, size) })
	}
}

// serveElsewhere starts a relay in a process of its own. stop ends it and
// returns its CPU time.
func serveElsewhere(b *testing.B) (url string, stop func() time.Duration) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	profile := os.Getenv("RELAYD_TEST_PROFILE")
	if profile == "" {
		profile = "1"
	}
	cmd.Env = append(os.Environ(), benchServe+"="+profile)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line), func() time.Duration {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
		return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
}

func benchmarkRelay(b *testing.B, size int) {
	url, stop := serveElsewhere(b)
	events, ids, to := sealedEvents(b, size)
	var arrived sync.WaitGroup
	subscriber, publisher := dial(b, url, relay.Options{}), dial(b, url, relay.Options{})
	err := subscriber.Subscribe(context.Background(), "s", forKey(to), func([]byte) { arrived.Done() })
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	for n := 0; b.Loop(); n++ {
		arrived.Add(1)
		i := n % len(events)
		err := publisher.Publish(context.Background(), events[i], ids[i], func(accepted bool, reason string) {
			if !accepted {
				b.Error(reason)
				arrived.Done()
			}
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	arrived.Wait()
	b.StopTimer()
	publisher.Close()
	subscriber.Close()
	cpu := stop()
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "relay-us/op")
	b.ReportMetric(cpu.Seconds()/float64(b.N)/float64(size)*1e9, "relay-s/GB")
}

// sealedEvents makes a few events, so that what the publisher does is only
// publishing.
func sealedEvents(b *testing.B, size int) (events [][]byte, ids [][32]byte, to string) {
	b.Helper()
	a, peer := newAuthor(b), newAuthor(b)
	key, err := envelope.Conversation(a.sk, peer.sk.Public())
	if err != nil {
		b.Fatal(err)
	}
	sealer := envelope.NewSealer(a.sk, peer.sk.Public(), key)
	for range 100 {
		e, id, err := sealer.Seal(nil, make([]byte, size), time.Now())
		if err != nil {
			b.Fatal(err)
		}
		events, ids = append(events, e), append(ids, id)
	}
	return events, ids, peer.hex()
}
