// Command bench measures nws-vpn on one machine and prints one line per figure:
// name, value, unit. The names are stable. Everything runs in network
// namespaces as the real processes do, with load generators that are processes
// of their own; only the first three figures are of the TUN and the netstack
// alone.
//
//	tun_to_stack, stack_to_tun   an app's TCP stream to and from the netstack
//	new_conns_per_s              small requests, a new connection each, likewise
//	raw_relay                    payload of the largest events, one publisher to one subscriber
//	relay_download, relay_upload one TCP stream through everything
//	relay_ratio                  relay_download / raw_relay
//	ttfb_ms_p50, ttfb_ms_p95     first byte of a small page on a new connection
//	idle_rss_mb                  memory of the client, connected and idle
//	flows_1000_rss_mb            the same with 1,000 open idle TCP flows
//	cpu_*                        processor seconds per GB of payload, by process
//
// Megabytes are millions of bytes. A busy machine shows: compare runs that were
// made one after another.
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
	only := flags.String("only", "", "one part: tun, raw, memory, latency or transfer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return measure(ctx, *binary, *only)
}

// figure prints one.
func figure(name string, value float64, unit string) {
	fmt.Printf("%-22s %10.4g %s\n", name, value, unit)
}
