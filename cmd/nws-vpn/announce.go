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
	"github.com/nws-vpn/nws-vpn/platform"
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
		},
	}
	if e.Admission != config.AdmitAll {
		a.Admission = e.Admission // the words are the same
	}
	a.Policy.IPv4, a.Policy.IPv6 = reachable()
	trial := a
	trial.Expires = time.Now().Add(time.Minute)
	_, _, err := announce.Append(nil, key, time.Now(), trial)
	return a, err
}

// reachable says of which families this machine reaches the internet.
func reachable() (ipv4, ipv6 bool) {
	return reaches("udp4", "192.0.2.1:9"), reaches("udp6", "[2001:db8::1]:9")
}

// reaches reports whether this machine has a route to an address of a family,
// and an address to be answered at. Nothing is sent.
func reaches(network, address string) bool {
	c, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	defer c.Close()
	from, ok := c.LocalAddr().(*net.UDPAddr)
	return ok && from.IP.IsGlobalUnicast()
}

// announcer says what an exit tells of itself, as it is at the moment.
type announcer struct {
	news chan struct{} // gets a value when that has changed

	mu    sync.Mutex
	about announce.Announcement
}

func newAnnouncer(about announce.Announcement) *announcer {
	return &announcer{news: make(chan struct{}, 1), about: about}
}

func (a *announcer) say() announce.Announcement {
	a.look()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.about
}

// look finds out what this machine reaches, and reports whether that is news.
func (a *announcer) look() bool {
	ipv4, ipv6 := reachable()
	a.mu.Lock()
	defer a.mu.Unlock()
	p := &a.about.Policy
	if p.IPv4 == ipv4 && p.IPv6 == ipv6 {
		return false
	}
	p.IPv4, p.IPv6 = ipv4, ipv6
	return true
}

// watch sends to news when this machine reaches more or less than before, until
// ctx ends.
func (a *announcer) watch(ctx context.Context, news chan<- struct{}, log *slog.Logger) {
	err := platform.Watch(ctx, func() {
		if a.look() {
			select {
			case news <- struct{}{}:
			default:
			}
		}
	})
	if err != nil && ctx.Err() == nil { // the next announcement will tell
		log.Debug("changes of the network are not noticed", "err", err)
	}
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

// change has another policy and contact announced from now on.
func (a *announcer) change(to announce.Announcement) {
	a.mu.Lock()
	ipv4, ipv6 := a.about.Policy.IPv4, a.about.Policy.IPv6
	a.about = to
	a.about.Policy.IPv4, a.about.Policy.IPv6 = ipv4, ipv6
	a.mu.Unlock()
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// announceFrom announces an exit once ready is closed. The returned function
// ends that, for a cause as nostrlink.Listener's Announce knows it, and waits.
func announceFrom(ready <-chan struct{}, l *nostrlink.Listener, a *announcer, log *slog.Logger) (stop func(cause error)) {
	ctx, cancel := context.WithCancelCause(context.Background())
	news := a.news
	var announcing sync.WaitGroup
	announcing.Go(func() { a.watch(ctx, news, log) })
	announcing.Go(func() {
		select {
		case <-ready:
		case <-ctx.Done():
			return
		}
		log.Info("announcing this exit: everybody can find it")
		if err := l.Announce(ctx, a.say, news); err != nil && ctx.Err() == nil {
			log.Warn("this exit is not announced", "err", err)
		}
	})
	return func(cause error) {
		cancel(cause)
		announcing.Wait()
	}
}
