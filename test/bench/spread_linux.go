package main

import (
	"context"
	"fmt"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// relayLimit is what each client may publish a second, in bytes of events: far
// less than a processor takes.
const relayLimit = 8_000_000

// measureSpread downloads over relays that bound what a client may publish.
func (b *bench) measureSpread(ctx context.Context) error {
	var urls []string
	for _, port := range []string{"7781", "7782"} {
		address := world.RelayIP + ":" + port
		p, err := b.Start(b.Relay, world.Options{}, "relay", "--listen", address, "--bytes-per-second", fmt.Sprint(relayLimit))
		if err != nil {
			return err
		}
		defer func() {
			p.Kill()
			<-p.Done()
		}()
		if _, err := p.WaitLine(ctx, beginsWith("relay listening")); err != nil {
			return err
		}
		urls = append(urls, "ws://"+address)
	}
	one, err := b.limitedRate(ctx, tunnel{relays: urls[:1]})
	if err != nil {
		return err
	}
	two, err := b.limitedRate(ctx, tunnel{relays: urls, up: []string{"--spread", "stripe"}})
	if err != nil {
		return err
	}
	figure("one_relay", one, "MB/s")
	figure("two_relays", two, "MB/s")
	figure("two_relays_ratio", two/(2*one), "")
	return nil
}

func (b *bench) limitedRate(ctx context.Context, t tunnel) (rate float64, err error) {
	if err := b.connect(ctx, t); err != nil {
		return 0, err
	}
	// What the relays let through at first is more than they do in the long run.
	n, seconds, err := b.result(ctx, b.Client, "download", world.WebIP+":"+streamPort, "1", "5")
	if err != nil {
		return 0, err
	}
	return n / 1e6 / seconds, b.disconnect(ctx)
}
