package main

import (
	"context"
	"slices"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// kind is a way to move much at once.
type kind struct {
	name  string
	ratio string // the figure that compares it with the first kind, or ""
	cpu   string // "": no figures about processors
	move  func(*bench, context.Context) (megabytes, seconds float64, err error)
}

var rawKinds = []kind{
	{"raw_relay", "", "raw", func(b *bench, ctx context.Context) (float64, float64, error) { return b.rawRound(ctx, false) }},
	{"sealed_relay", "sealed_ratio", "sealed", func(b *bench, ctx context.Context) (float64, float64, error) { return b.rawRound(ctx, true) }},
}

var allKinds = append(slices.Clip(rawKinds),
	kind{"relay_download", "relay_ratio", "download", stream("download", "1", "0")},
	kind{"relay_download_8", "relay_ratio_8", "", stream("download", "8", "0")},
	kind{"relay_upload", "", "upload", stream("upload")})

// stream runs a generator that moves bytes through the tunnel.
func stream(name string, args ...string) func(*bench, context.Context) (float64, float64, error) {
	return func(b *bench, ctx context.Context) (megabytes, seconds float64, err error) {
		n, seconds, err := b.result(ctx, b.Client, append([]string{name, world.WebIP + ":" + streamPort}, args...)...)
		return n / 1e6, seconds, err
	}
}

// sample is one round of one kind.
type sample struct {
	megabytes, rate float64
	cpu             [3]float64 // seconds of entry, relay and exit
	packets         float64
}

// measureTransfers makes some rounds of each kind, in turn, so that what a busy
// machine does to one it does to the others, and prints medians.
func (b *bench) measureTransfers(ctx context.Context, kinds []kind) error {
	samples := make([][]sample, len(kinds))
	for range rounds {
		for i, k := range kinds {
			s, err := b.sample(ctx, k)
			if err != nil {
				return err
			}
			samples[i] = append(samples[i], s)
		}
	}
	for i, k := range kinds {
		figure(k.name, middle(samples[i], func(s sample) float64 { return s.rate }), "MB/s")
		b.reportCPU(k, samples[i])
		if k.name == "relay_download" {
			figure("events_per_mb", middle(samples[i], func(s sample) float64 { return s.packets / s.megabytes }), "1/MB")
		}
	}
	for i, k := range kinds {
		if k.ratio != "" {
			var ratios []float64
			for round, s := range samples[i] {
				ratios = append(ratios, s.rate/samples[0][round].rate)
			}
			figure(k.ratio, median(ratios), "")
		}
	}
	return nil
}

func (b *bench) reportCPU(k kind, samples []sample) {
	if k.cpu == "" {
		return
	}
	for i, name := range []string{"entry", "relay", "exit"} {
		perGB := middle(samples, func(s sample) float64 { return s.cpu[i] / s.megabytes * 1e3 })
		switch {
		case k.cpu == "download" || k.cpu == "upload":
			figure("cpu_"+name+"_"+k.cpu, perGB, "s/GB")
			figure("cpu_s_per_gb_"+name+"_"+k.cpu, perGB, "s/GB")
		case name == "relay":
			figure("cpu_relay_"+k.cpu, perGB, "s/GB")
		}
	}
}

func middle(samples []sample, of func(sample) float64) float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, of(s))
	}
	return median(values)
}

func (b *bench) sample(ctx context.Context, k kind) (s sample, err error) {
	before, packets, err := b.usage(ctx)
	if err != nil {
		return s, err
	}
	var seconds float64
	if s.megabytes, seconds, err = k.move(b, ctx); err != nil {
		return s, err
	}
	after, packetsAfter, err := b.usage(ctx)
	s.rate = s.megabytes / seconds
	s.packets = packetsAfter - packets
	for i := range after {
		s.cpu[i] = after[i] - before[i]
	}
	return s, err
}

// usage is the processor seconds used so far by entry, relay and exit, and the
// session's packets.
func (b *bench) usage(ctx context.Context) (seconds [3]float64, packets float64, err error) {
	for i, p := range []*netlab.Process{b.up, b.relay, b.exit} {
		if p == nil {
			continue
		}
		if seconds[i], err = processorSeconds(p.PID()); err != nil {
			return seconds, 0, err
		}
	}
	if b.up != nil {
		packets, err = b.packets(ctx)
	}
	return seconds, packets, err
}
