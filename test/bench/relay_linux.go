package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fiatjaf/khatru"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

const (
	relayEvents   = 4000            // of the largest size, in a round
	relayClients  = 500             // of which
	relaySlow     = 5               // read slowly, or not at all
	relayLoadTime = 4 * time.Second // of a round with so many
	relayLoadSize = 8192            // bytes of plaintext then
)

// measureRelay measures relays alone, on loopback: what forwarding costs them,
// and what slow readers cost others.
func measureRelay(ctx context.Context, binary string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, m := range []struct {
		name    string
		vouched bool
		command []string
	}{
		{"relay_cpu_s_per_gb", true, []string{binary, "relay", "--listen", "127.0.0.1:0"}},
		{"relay_cpu_s_per_gb_verified", false, []string{binary, "relay", "--listen", "127.0.0.1:0"}},
		{"relay_cpu_s_per_gb_khatru", false, []string{self, "generator", "khatru"}},
	} {
		var values []float64
		for range rounds {
			v, err := relayCPU(ctx, m.command, m.vouched)
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			values = append(values, v)
		}
		figure(m.name, median(values), "s/GB")
	}
	var ratios, rates []float64
	for range rounds {
		all, some, err := relaysUnderLoad(ctx, binary)
		if err != nil {
			return err
		}
		ratios, rates = append(ratios, some/all), append(rates, all)
	}
	figure("relay_500_clients", median(rates), "MB/s")
	figure("relay_500_slow_ratio", median(ratios), "")
	return nil
}

// serveKhatru is a relay of other people's on loopback, until it is ended.
func serveKhatru(ctx context.Context, _ []string) error {
	handler := khatru.NewRelay()
	handler.Log = log.New(io.Discard, "", 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	fmt.Printf("relay listening ws://%s\n", l.Addr())
	if err := http.Serve(l, handler); ctx.Err() == nil {
		return err
	}
	return nil // the parent is done
}

// startLoopback starts a relay and returns its URL.
func startLoopback(ctx context.Context, command []string) (url string, pid int, stop func(), err error) {
	line, pid, stop, err := startUntil(ctx, command, "")
	return strings.TrimPrefix(line, "relay listening "), pid, stop, err
}

// startUntil starts a program and returns the first line of its output that begins
// with prefix.
func startUntil(ctx context.Context, command []string, prefix string) (line string, pid int, stop func(), err error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if line = lines.Text(); strings.HasPrefix(line, prefix) {
			go io.Copy(io.Discard, out)
			return line, cmd.Process.Pid, stop, nil
		}
	}
	stop()
	return "", 0, nil, fmt.Errorf("%s ended before it was ready", command[0])
}

// relayCPU sends the largest events from one publisher to one subscriber and
// returns the relay's processor seconds for 10⁹ bytes of plaintext.
func relayCPU(ctx context.Context, command []string, vouched bool) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	url, pid, stop, err := startLoopback(ctx, command)
	if err != nil {
		return 0, err
	}
	defer stop()
	author, to, events, err := relayLoadOf(300, envelope.MaxPlaintext)
	if err != nil {
		return 0, err
	}
	subscriber, err := relay.Dial(ctx, url, relay.Options{})
	if err != nil {
		return 0, err
	}
	defer subscriber.Close()
	arrived := make(chan struct{}, relayEvents)
	if err := subscriber.Subscribe(ctx, "bench", recipientOf(to), func([]byte) { arrived <- struct{}{} }); err != nil {
		return 0, err
	}
	publisher, err := relay.Dial(ctx, url, relay.Options{})
	if err != nil {
		return 0, err
	}
	defer publisher.Close()
	if vouched {
		if err := prove(ctx, publisher, author); err != nil {
			return 0, err
		}
	}
	before, err := processorSeconds(pid)
	if err != nil {
		return 0, err
	}
	for n := range relayEvents {
		e := events[n%len(events)]
		if err := publisher.Publish(ctx, e.raw, e.id, nil); err != nil {
			return 0, err
		}
	}
	for n := range relayEvents {
		select {
		case <-arrived:
		case <-ctx.Done():
			return 0, fmt.Errorf("only %d of %d events came", n, relayEvents)
		}
	}
	after, err := processorSeconds(pid)
	return (after - before) / (relayEvents * envelope.MaxPlaintext / 1e9), err
}

// prove authenticates with the author's key. The challenge has come when the
// relay has answered anything.
func prove(ctx context.Context, c *relay.Conn, author envelope.SecretKey) error {
	none := 0
	if err := c.Subscribe(ctx, "challenge", []relay.Filter{{Limit: &none, Kinds: []int{1}}}, func([]byte) {}); err != nil {
		return err
	}
	return c.Authenticate(ctx, func(_ context.Context, url, challenge string) ([]byte, [32]byte, error) {
		return envelope.Sign(nil, author, envelope.Template{
			Kind: 22242, CreatedAt: time.Now(), Tags: [][]string{{"relay", url}, {"challenge", challenge}},
		})
	})
}

type relayEvent struct {
	raw []byte
	id  [32]byte
}

// relayLoadOf makes n events of an author for one recipient.
func relayLoadOf(n, size int) (author envelope.SecretKey, to envelope.PublicKey, events []relayEvent, err error) {
	author, err = envelope.GenerateSecretKey()
	if err != nil {
		return
	}
	recipient, err := envelope.GenerateSecretKey()
	if err != nil {
		return
	}
	to = recipient.Public()
	events, err = eventsFor(author, to, n, size)
	return
}

func eventsFor(author envelope.SecretKey, to envelope.PublicKey, n, size int) (events []relayEvent, err error) {
	key, err := envelope.Conversation(author, to)
	if err != nil {
		return nil, err
	}
	sealer := envelope.NewSealer(author, to, key)
	for range n {
		raw, id, err := sealer.Seal(nil, make([]byte, size), time.Now())
		if err != nil {
			return nil, err
		}
		events = append(events, relayEvent{raw, id})
	}
	return events, nil
}

func recipientOf(to envelope.PublicKey) []relay.Filter {
	none := 0
	return []relay.Filter{{Kinds: []int{envelope.KindNWS}, Tags: map[string][]string{"p": {to.Hex()}}, Limit: &none}}
}

// relaysUnderLoad has two relays at the same time, so that whatever else the
// machine does touches both, each with a publisher that serves many clients, as
// an exit does. At the second some read slowly or not at all. It returns the MB/s
// of the others, and of as many at the first.
func relaysUnderLoad(ctx context.Context, binary string) (all, some float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var loads [2]*relayLoad
	for i, slow := range []int{0, relaySlow} {
		l := &relayLoad{over: make(chan struct{})}
		defer l.close()
		if err := l.prepare(ctx, binary, slow); err != nil {
			return 0, 0, err
		}
		loads[i] = l
	}
	var running sync.WaitGroup
	until := time.Now().Add(relayLoadTime)
	for _, l := range loads {
		running.Go(func() { l.err = l.publish(ctx, until) })
	}
	running.Wait()
	rate := func(l *relayLoad) float64 {
		return float64(l.received.Load()*relayLoadSize) / 1e6 / relayLoadTime.Seconds()
	}
	return rate(loads[0]), rate(loads[1]), errors.Join(loads[0].err, loads[1].err)
}

// relayLoad is a relay, its publisher and its clients.
type relayLoad struct {
	publisher *relay.Conn
	events    []relayEvent // one for each client
	received  atomic.Int64
	over      chan struct{} // closed when readers need not be slow any more
	closers   []func()
	err       error
}

func (l *relayLoad) close() {
	close(l.over)
	for _, c := range l.closers {
		c()
	}
}

func (l *relayLoad) prepare(ctx context.Context, binary string, slow int) error {
	url, _, stop, err := startLoopback(ctx, []string{binary, "relay", "--listen", "127.0.0.1:0"})
	if err != nil {
		return err
	}
	l.closers = append(l.closers, stop) // first, so that the clients need no farewell
	author, err := envelope.GenerateSecretKey()
	if err != nil {
		return err
	}
	if l.publisher, err = relay.Dial(ctx, url, relay.Options{}); err != nil {
		return err
	}
	l.closers = append(l.closers, func() { l.publisher.Close() })
	if err := prove(ctx, l.publisher, author); err != nil {
		return err
	}
	for n := range relayClients {
		c, e, err := relayClient(ctx, url, author, l.reader(n, slow))
		if err != nil {
			return err
		}
		l.closers = append(l.closers, func() { c.Close() })
		l.events = append(l.events, e)
	}
	return nil
}

func (l *relayLoad) publish(ctx context.Context, until time.Time) error {
	for n := 0; time.Now().Before(until); n++ {
		e := l.events[n%len(l.events)]
		if err := l.publisher.Publish(ctx, e.raw, e.id, nil); err != nil {
			return err
		}
	}
	return nil
}

// reader is how client n reads: of the first ones, if they are slow, every other
// not at all.
func (l *relayLoad) reader(n, slow int) func([]byte) {
	switch {
	case n < slow && n%2 == 0:
		return func([]byte) { <-l.over }
	case n < slow:
		return func([]byte) {
			select {
			case <-l.over:
			case <-time.After(time.Second / 4):
			}
		}
	case n < relaySlow:
		return func([]byte) {}
	}
	return func([]byte) { l.received.Add(1) }
}

// relayClient connects a client with a key of its own, which it proves, and
// returns an event for it.
func relayClient(ctx context.Context, url string, author envelope.SecretKey, read func([]byte)) (*relay.Conn, relayEvent, error) {
	secret, err := envelope.GenerateSecretKey()
	if err != nil {
		return nil, relayEvent{}, err
	}
	events, err := eventsFor(author, secret.Public(), 1, relayLoadSize)
	if err != nil {
		return nil, relayEvent{}, err
	}
	c, err := relay.Dial(ctx, url, relay.Options{})
	if err != nil {
		return nil, relayEvent{}, err
	}
	err = prove(ctx, c, secret)
	if err == nil {
		err = c.Subscribe(ctx, "bench", recipientOf(secret.Public()), read)
	}
	if err != nil {
		return nil, relayEvent{}, errors.Join(err, c.Close())
	}
	return c, events[0], nil
}
