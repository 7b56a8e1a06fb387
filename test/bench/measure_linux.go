package main

import (
	"context"
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
)

// bench is one run.
type bench struct {
	*world.World
	self            string
	relay, exit, up *netlab.Process
	rawRelay        float64 // MB/s, for the ratio; zero when not measured
}

func measure(ctx context.Context, binary, only string) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	if only == "" || only == "tun" {
		if err := tunbench.Run(ctx, figure); err != nil || only == "tun" {
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
	if b.relay, err = w.StartRelay(ctx, world.Options{}); err != nil {
		return err
	}
	// The raw relay first, while nothing else uses it.
	if only == "" || only == "raw" {
		if err := b.measureRaw(ctx); err != nil || only == "raw" {
			return err
		}
	}
	return b.measureTunnel(ctx, only)
}

func (b *bench) measureTunnel(ctx context.Context, only string) error {
	if err := b.connect(ctx); err != nil {
		return err
	}
	known := false
	for _, part := range []struct {
		name    string
		measure func(context.Context) error
	}{{"memory", b.measureMemory}, {"latency", b.measureLatency}, {"transfer", b.measureTransfers}} {
		if only != "" && only != part.name {
			continue
		}
		known = true
		if err := part.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if !known {
		return fmt.Errorf("no part %q", only)
	}
	return b.Down(ctx)
}

// connect starts the exit, the client and the server of the streams.
func (b *bench) connect(ctx context.Context) error {
	const file = "/run/exit.key"
	key, err := b.Keygen(ctx, b.Exit, file)
	if err != nil {
		return err
	}
	if b.exit, err = b.StartExit(ctx, file, world.Options{}); err != nil {
		return err
	}
	if b.up, err = b.StartUp(ctx, key, world.Options{}); err != nil {
		return err
	}
	server, err := b.start(b.Internet, "serve", world.WebIP+":"+streamPort)
	if err != nil {
		return err
	}
	_, err = server.WaitLine(ctx, isLine("serving"))
	return err
}

func isLine(want string) func(string) bool {
	return func(line string) bool { return line == want }
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

// measureRaw has one publisher and one subscriber at the relay.
func (b *bench) measureRaw(ctx context.Context) error {
	var rates []float64
	before, err := processorSeconds(b.relay.PID())
	if err != nil {
		return err
	}
	for range rounds {
		rate, err := b.rawRound(ctx)
		if err != nil {
			return fmt.Errorf("raw relay: %w", err)
		}
		rates = append(rates, rate)
	}
	after, err := processorSeconds(b.relay.PID())
	if err != nil {
		return err
	}
	b.rawRelay = median(rates)
	figure("raw_relay", b.rawRelay, "MB/s")
	figure("cpu_relay_raw", (after-before)/(rounds*events*envelope.MaxPlaintext/1e9), "s/GB")
	return nil
}

func (b *bench) rawRound(ctx context.Context) (rate float64, err error) {
	secret, err := envelope.GenerateSecretKey()
	if err != nil {
		return 0, err
	}
	args := []string{world.RelayURL, secret.Public().Hex(), fmt.Sprint(events)}
	subscriber, err := b.start(b.Client, append([]string{"subscribe"}, args...)...)
	if err != nil {
		return 0, err
	}
	defer subscriber.Kill()
	if _, err := subscriber.WaitLine(ctx, isLine("subscribed")); err != nil {
		return 0, err
	}
	publisher, err := b.start(b.Exit, append([]string{"publish"}, args...)...)
	if err != nil {
		return 0, err
	}
	defer func() {
		_ = publisher.Signal(unix.SIGTERM)
		<-publisher.Done()
	}()
	select {
	case <-subscriber.Done():
	case <-publisher.Done():
		return 0, errors.New(publisher.Output())
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := subscriber.Wait(ctx); err != nil {
		return 0, errors.New(subscriber.Output())
	}
	n, seconds, err := twoNumbers(subscriber.Output())
	return (n - 1) * envelope.MaxPlaintext / 1e6 / seconds, err
}

func (b *bench) measureMemory(ctx context.Context) error {
	idle, err := b.clientMemory(ctx)
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
	full, err := b.clientMemory(ctx)
	if err != nil {
		return err
	}
	figure("flows_1000_rss_mb", full, "MB")
	return nil
}

// clientMemory waits until things are quiet, then reads the client's memory.
func (b *bench) clientMemory(ctx context.Context) (mb float64, err error) {
	select {
	case <-time.After(settleTime):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return residentMB(b.up.PID())
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

func (b *bench) measureTransfers(ctx context.Context) error {
	down, err := b.measureTransfer(ctx, "download")
	if err != nil {
		return err
	}
	if _, err := b.measureTransfer(ctx, "upload"); err != nil {
		return err
	}
	if b.rawRelay > 0 {
		figure("relay_ratio", down/b.rawRelay, "")
	}
	return nil
}

// measureTransfer makes some rounds in one direction and prints the rate and
// what each process used for it.
func (b *bench) measureTransfer(ctx context.Context, direction string) (rate float64, err error) {
	var rates []float64
	var gigabytes float64
	before, err := b.cpu()
	if err != nil {
		return 0, err
	}
	for range rounds {
		n, seconds, err := b.result(ctx, b.Client, direction, world.WebIP+":"+streamPort)
		if err != nil {
			return 0, err
		}
		rates = append(rates, n/1e6/seconds)
		gigabytes += n / 1e9
	}
	after, err := b.cpu()
	if err != nil {
		return 0, err
	}
	rate = median(rates)
	figure("relay_"+direction, rate, "MB/s")
	for i, name := range []string{"entry", "relay", "exit"} {
		figure("cpu_"+name+"_"+direction, (after[i]-before[i])/gigabytes, "s/GB")
	}
	return rate, nil
}

// cpu are the processor seconds used so far by entry, relay and exit.
func (b *bench) cpu() (seconds [3]float64, err error) {
	for i, p := range []*netlab.Process{b.up, b.relay, b.exit} {
		if seconds[i], err = processorSeconds(p.PID()); err != nil {
			return seconds, err
		}
	}
	return seconds, nil
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func (b *bench) showLogs() {
	for name, p := range map[string]*netlab.Process{"relay": b.relay, "exit": b.exit, "up": b.up} {
		if p != nil {
			fmt.Fprintf(os.Stderr, "nws-vpn %s printed:\n%s\n", name, p.Output())
		}
	}
}
