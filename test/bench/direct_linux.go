package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// measureDirect downloads over the relay and over a direct path, back to back.
func (b *bench) measureDirect(ctx context.Context) error {
	const settings = "/run/direct.toml"
	text := "[up]\npublic_address = \"" + world.ClientIP + ":9333\"\n"
	if err := b.Client.WriteFile(settings, []byte(text)); err != nil {
		return err
	}
	relays := []string{world.RelayURL}
	var ratios, rates []float64
	for range rounds {
		relayed, err := b.rateBy(ctx, "ws://", tunnel{relays: relays})
		if err != nil {
			return err
		}
		direct, err := b.rateBy(ctx, "tls://", tunnel{
			relays: relays, up: []string{"--config", settings}, exit: []string{"--allow-private", world.ClientIP + "/32"},
		})
		if err != nil {
			return err
		}
		rates, ratios = append(rates, direct), append(ratios, direct/relayed)
	}
	figure("direct_download", median(rates), "MB/s")
	figure("direct_ratio", median(ratios), "")
	return nil
}

// rateBy is the rate of a download once the path with that prefix carries it.
func (b *bench) rateBy(ctx context.Context, prefix string, t tunnel) (rate float64, err error) {
	if err := b.connect(ctx, t); err != nil {
		return 0, err
	}
	for by := ""; !strings.HasPrefix(by, prefix); {
		if by, err = b.active(ctx); err != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("no path by %s: %w", prefix, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
	n, seconds, err := b.result(ctx, b.Client, "download", world.WebIP+":"+streamPort, "1", "5")
	if err != nil {
		return 0, err
	}
	return n / 1e6 / seconds, b.disconnect(ctx)
}

// active is the path that carries what the client sends.
func (b *bench) active(ctx context.Context) (url string, err error) {
	var status struct {
		Relays []struct{ URL, Role string }
	}
	if err := b.status(ctx, &status); err != nil {
		return "", err
	}
	for _, r := range status.Relays {
		if r.Role == "active" {
			url = r.URL
		}
	}
	return url, nil
}
