package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/test/bench/tunbench"
)

const (
	rounds     = 3    // of each transfer; the median counts
	events     = 6000 // of the largest size in a round of raw_relay
	idleFlows  = 1000
	settleTime = 2 * time.Second // before memory is read
	streamPort = "9000"
	exitKey    = "/run/exit.key" // in the exit
)

// bench is one run.
type bench struct {
	*world.World
	self            string
	exitName        string // npub
	relay, exit, up *netlab.Process
}

func measure(ctx context.Context, binary, only string) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	switch only {
	case "tun":
		return tunbench.Run(ctx, figure)
	case "goodput":
		return goodput(ctx)
	case "relay":
		return measureRelay(ctx, binary)
	case "flood":
		return measureFlood(ctx, binary)
	case "sessions":
		return measureSessions(ctx, binary)
	case "":
		if err := errors.Join(tunbench.Run(ctx, figure), goodput(ctx), measureRelay(ctx, binary), measureFlood(ctx, binary), measureSessions(ctx, binary)); err != nil {
			return err
		}
	}
	w, err := world.New(binary)
	if err != nil {
		return err
	}
	b := &bench{World: w, self: self}
	defer func() {
		if err != nil {
			b.showLogs()
		}
		err = errors.Join(err, w.Close())
	}()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	return b.measure(ctx, only)
}

// prepare starts what all measurements share.
func (b *bench) prepare(ctx context.Context) (err error) {
	if b.exitName, err = b.Keygen(ctx, b.Exit, exitKey); err != nil {
		return err
	}
	if b.relay, err = b.StartRelay(ctx, world.Options{}); err != nil {
		return err
	}
	server, err := b.start(b.Internet, "serve", world.WebIP+":"+streamPort)
	if err != nil {
		return err
	}
	_, err = server.WaitLine(ctx, isLine("serving"))
	return err
}

func (b *bench) measure(ctx context.Context, only string) error {
	plain := tunnel{relays: []string{world.RelayURL}}
	none := tunnel{}
	known := false
	for _, part := range []struct {
		name    string
		tunnel  tunnel // to be connected for it
		measure func(context.Context) error
	}{
		{"memory", plain, b.measureMemory},
		{"latency", plain, b.measureLatency},
		{"raw", none, func(ctx context.Context) error { return b.measureTransfers(ctx, rawKinds) }},
		{"transfer", plain, func(ctx context.Context) error { return b.measureTransfers(ctx, allKinds) }},
		{"spread", none, b.measureSpread},
		{"page", none, b.measurePage},
		{"direct", none, b.measureDirect},
	} {
		if only != part.name && (only != "" || part.name == "raw") { // raw is within transfer
			continue
		}
		known = true
		err := b.connect(ctx, part.tunnel)
		if err == nil {
			err = part.measure(ctx)
		}
		if err == nil {
			err = b.disconnect(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if !known {
		return fmt.Errorf("no part %q", only)
	}
	return nil
}

// tunnel is an exit and a client, over some relays; without any there is none.
type tunnel struct {
	relays []string
	up     []string // arguments of the client
	exit   []string // and of the exit
}

// connect starts the exit and the client.
func (b *bench) connect(ctx context.Context, t tunnel) (err error) {
	if len(t.relays) == 0 {
		return nil
	}
	var relays []string
	for _, url := range t.relays {
		relays = append(relays, "--relay", url)
	}
	b.exit, err = b.StartNobody(world.Options{Args: slices.Concat(relays, t.exit)}, "exit", "--key", exitKey,
		"--allow-private", "203.0.113.0/24", "--dns", world.DNSIP)
	if err != nil {
		return err
	}
	if _, err := b.exit.WaitLine(ctx, beginsWith("ready")); err != nil {
		return err
	}
	b.up, err = b.Start(b.Client, world.Options{Args: slices.Concat(relays, t.up)}, "up", "--exit", b.exitName, "--state-dir", world.StateDir)
	if err != nil {
		return err
	}
	_, err = b.up.WaitLine(ctx, beginsWith("connected"))
	return err
}

// disconnect ends both, if there are any.
func (b *bench) disconnect(ctx context.Context) error {
	if b.up == nil {
		return nil
	}
	if err := b.Down(ctx); err != nil {
		return err
	}
	if err := b.exit.Signal(unix.SIGTERM); err != nil {
		return err
	}
	err := errors.Join(b.up.Wait(ctx), b.exit.Wait(ctx))
	b.up, b.exit = nil, nil
	return err
}

func isLine(want string) func(string) bool {
	return func(line string) bool { return line == want }
}

func beginsWith(want string) func(string) bool {
	return func(line string) bool { return strings.HasPrefix(line, want) }
}

func (b *bench) start(h *netlab.Host, args ...string) (*netlab.Process, error) {
	return h.Start(netlab.CommandOptions{}, b.self, append([]string{"generator"}, args...)...)
}

// result runs a generator to its end and reads the two numbers of its last line.
func (b *bench) result(ctx context.Context, h *netlab.Host, args ...string) (x, y float64, err error) {
	res, err := h.Run(ctx, netlab.CommandOptions{}, b.self, append([]string{"generator"}, args...)...)
	if err != nil {
		return 0, 0, err
	}
	if res.Code != 0 {
		return 0, 0, fmt.Errorf("%s: %s", args[0], res.Output)
	}
	return twoNumbers(res.Stdout)
}

func twoNumbers(output string) (x, y float64, err error) {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	if _, err := fmt.Sscan(lines[len(lines)-1], &x, &y); err != nil {
		return 0, 0, fmt.Errorf("result %q: %w", lines[len(lines)-1], err)
	}
	return x, y, nil
}

// packets is how many the client's session has sent and received, each of which
// is an event.
func (b *bench) packets(ctx context.Context) (float64, error) {
	var status struct {
		Session struct {
			Sent     float64 `json:"packets_sent"`
			Received float64 `json:"packets_received"`
		} `json:"session"`
	}
	if err := b.status(ctx, &status); err != nil {
		return 0, err
	}
	return status.Session.Sent + status.Session.Received, nil
}

// status asks the client how it is.
func (b *bench) status(ctx context.Context, into any) error {
	res, err := b.Run(ctx, b.Client, "status", "--json", "--state-dir", world.StateDir)
	if err == nil {
		err = json.Unmarshal([]byte(res.Stdout), into)
	}
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	return nil
}

func (b *bench) measureMemory(ctx context.Context) error {
	idle, _, err := b.memory(ctx)
	if err != nil {
		return err
	}
	figure("idle_rss_mb", idle, "MB")
	holder, err := b.start(b.Client, "hold", world.WebIP+":"+streamPort, fmt.Sprint(idleFlows))
	if err != nil {
		return err
	}
	defer func() {
		holder.Kill()
		<-holder.Done()
	}()
	if _, err := holder.WaitLine(ctx, isLine(fmt.Sprint("held ", idleFlows))); err != nil {
		return err
	}
	client, exit, err := b.memory(ctx)
	if err != nil {
		return err
	}
	figure("flows_1000_rss_mb", client, "MB")
	figure("flows_1000_exit_rss_mb", exit, "MB")
	return nil
}

// memory waits until things are quiet, then reads the memory of client and exit.
func (b *bench) memory(ctx context.Context) (client, exit float64, err error) {
	select {
	case <-time.After(settleTime):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	if client, err = residentMB(b.up.PID()); err != nil {
		return 0, 0, err
	}
	exit, err = residentMB(b.exit.PID())
	return client, exit, err
}

func (b *bench) measureLatency(ctx context.Context) error {
	p50, p95, err := b.result(ctx, b.Client, "latency", world.WebIP+":"+world.PortWeb)
	if err != nil {
		return err
	}
	figure("ttfb_ms_p50", p50, "ms")
	figure("ttfb_ms_p95", p95, "ms")
	return nil
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}

func (b *bench) showLogs() {
	for name, p := range map[string]*netlab.Process{"relay": b.relay, "exit": b.exit, "up": b.up} {
		if p != nil {
			fmt.Fprintf(os.Stderr, "nws-vpn %s printed:\n%s\n", name, p.Output())
		}
	}
}

// rawRound has one publisher and one subscriber at the relay. live says to seal
// and open on the way.
func (b *bench) rawRound(ctx context.Context, live bool) (megabytes, seconds float64, err error) {
	var seal, open []string
	if live {
		seal, open = []string{"seal"}, []string{"open"}
	}
	// Not in the client, whose programs reach the relay through the tunnel only.
	subscriber, err := b.start(b.Internet, append([]string{"subscribe", world.RelayURL, fmt.Sprint(events)}, open...)...)
	if err != nil {
		return 0, 0, err
	}
	defer subscriber.Kill()
	line, err := subscriber.WaitLine(ctx, beginsWith("subscribed"))
	if err != nil {
		return 0, 0, err
	}
	key := strings.Fields(line)[1]
	publisher, err := b.start(b.Exit, append([]string{"publish", world.RelayURL, key, fmt.Sprint(events)}, seal...)...)
	if err != nil {
		return 0, 0, err
	}
	defer func() {
		_ = publisher.Signal(unix.SIGTERM)
		<-publisher.Done()
	}()
	select {
	case <-subscriber.Done():
	case <-publisher.Done():
		return 0, 0, errors.New(publisher.Output())
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	if err := subscriber.Wait(ctx); err != nil {
		return 0, 0, errors.New(subscriber.Output())
	}
	n, seconds, err := twoNumbers(subscriber.Output())
	return (n - 1) * envelope.MaxPlaintext / 1e6, seconds, err
}
