// Command bench measures nws-vpn on one machine and prints one line per figure:
// name, value, unit. The names are stable. Everything runs in network
// namespaces as the real processes do, with load generators that are processes
// of their own; only the first three figures are of the TUN and the netstack
// alone, the goodput figures of the session over simulated relays, and the relay_
// and sessions_ figures of processes on loopback.
//
//	tun_to_stack, stack_to_tun   an app's TCP stream to and from the netstack
//	new_conns_per_s              small requests, a new connection each, likewise
//	goodput_*                    a bulk stream over simulated relays (RTT 100 ms),
//	                             as a share of what they let through
//	relay_cpu_s_per_gb           the relay's processor seconds to forward the largest
//	                             events of a client that has proved its key, by payload;
//	                             _verified: of one that has not; _khatru: of that relay
//	relay_500_clients            payload from one publisher to 500 clients of the relay
//	relay_500_slow_ratio         the same while 5 of them read slowly or not at all, the
//	                             others' rate by what it is without
//	hello_flood_ratio            what a client that downloads 4 MiB/s from an exit gets of
//	                             it while 5,000 HELLOs a second of new keys come to the
//	                             exit, by what it gets without
//	sessions_2000_exit_mb        most memory of an exit with 2,000 sessions, three open
//	                             flows each, from clients in one process
//	sessions_p50_ms              a small request in one of them, 200 a second over all
//	sessions_p99_ratio           of that, the 99th percentile by the median; all are
//	                             answered
//	idle_rss_mb                  memory of the client, connected and idle
//	flows_1000_rss_mb            the same with 1,000 open idle TCP flows
//	flows_1000_exit_rss_mb       the same of the exit
//	ttfb_ms_p50, ttfb_ms_p95     first byte of a small page on a new connection
//	raw_relay                    payload of the largest events, signed beforehand, one
//	                             publisher to one subscriber
//	sealed_relay                 the same, sealed as it goes and opened as it comes
//	relay_download, relay_upload one TCP stream through everything
//	relay_download_8             eight at once
//	sealed_ratio, relay_ratio, relay_ratio_8
//	                             the downloads / raw_relay, run by run
//	events_per_mb                events both ways for a MB of relay_download
//	cpu_*                        processor seconds per GB of payload, by process
//	one_relay, two_relays        download over relays that bound what a client may
//	                             publish: one, and two with --spread stripe
//	two_relays_ratio             of these, by what two could be
//	pageload_ms                  30 requests over 6 connections through a relay whose
//	                             clients are 25 ms away, which makes a round trip 100 ms
//	pageload_ms_no_early         the same with early_ports = []
//	direct_download, direct_ratio
//	                             a download over a path without a relay, and that by
//	                             the same over the relay
//
// Megabytes are millions of bytes. A busy machine shows: compare runs that were
// made one after another. On two processors relay_ratio is bounded by
// sealed_ratio, which is what a relay and cryptography alone make possible.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 1 && args[0] == "generator" {
		return generate(ctx, args[1], args[2:])
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	binary := flags.String("binary", "./nws-vpn", "the program to measure")
	only := flags.String("only", "", "one part: tun, goodput, relay, flood, sessions, raw, memory, latency, transfer, spread, page or direct")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return measure(ctx, *binary, *only)
}

// figure prints one.
func figure(name string, value float64, unit string) {
	fmt.Printf("%-28s %10.4g %s\n", name, value, unit)
}
