package main

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/exit"
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
			Ports: openPorts(exitPolicy(e).TCPPorts()),
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

// openPorts are the ports that an announcement names; nil when all are open, or
// when they are too scattered to say.
func openPorts(open []exit.PortRange) []announce.PortRange {
	const most = 64 // ranges
	if len(open) > most || len(open) == 1 && open[0] == (exit.PortRange{First: 1, Last: 65535}) {
		return nil
	}
	var named []announce.PortRange
	for _, r := range open {
		named = append(named, announce.PortRange(r))
	}
	return named
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
