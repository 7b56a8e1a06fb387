package main

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/nostrlink"
	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// announcement is what an exit says of itself. It fails when the configuration
// holds what no announcement can.
func announcement(e *config.Exit, key envelope.SecretKey) (announce.Announcement, error) {
	a := announce.Announcement{
		Instance: e.Instance,
		Software: "nws-vpn/" + buildVersion(),
		Contact:  e.Contact,
		Policy: announce.Policy{
			Ports: openPorts(e.ClosedPorts),
			IPv4:  reaches("udp4", "192.0.2.1:9"),
			IPv6:  reaches("udp6", "[2001:db8::1]:9"),
		},
	}
	trial := a
	trial.Expires = time.Now().Add(time.Minute)
	_, _, err := announce.Append(nil, key, time.Now(), trial)
	return a, err
}

// reaches reports whether this machine has a route to an address of a family.
// Nothing is sent.
func reaches(network, address string) bool {
	c, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// openPorts are the ranges between the closed ports; nil when none is closed,
// or when they are too scattered to say.
func openPorts(closed []uint16) []announce.PortRange {
	const most = 64 // ranges
	if len(closed) == 0 {
		return nil
	}
	var open []announce.PortRange
	first := 1
	for _, port := range slices.Sorted(slices.Values(closed)) {
		if first < int(port) {
			open = append(open, announce.PortRange{First: uint16(first), Last: port - 1})
		}
		first = int(port) + 1
	}
	if first <= 65535 {
		open = append(open, announce.PortRange{First: uint16(first), Last: 65535})
	}
	if len(open) > most {
		return nil
	}
	return open
}

// announceFrom announces an exit once ready is closed. The returned function
// takes the announcement back and waits until that is done.
func announceFrom(ready <-chan struct{}, l *nostrlink.Listener, about announce.Announcement, log *slog.Logger) (withdraw func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var announcing sync.WaitGroup
	announcing.Go(func() {
		select {
		case <-ready:
		case <-ctx.Done():
			return
		}
		log.Info("announcing this exit: everybody can find it")
		if err := l.Announce(ctx, about); err != nil && ctx.Err() == nil {
			log.Warn("this exit is not announced", "err", err)
		}
	})
	return func() {
		cancel()
		announcing.Wait()
	}
}
