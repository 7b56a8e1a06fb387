package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// checkpoint is a reader that stops after its first bytes until it is released.
type checkpoint struct {
	io.Reader
	left     int64         // before it stops
	reached  chan struct{} // closed when it stops
	released <-chan struct{}
}

func (c *checkpoint) Read(b []byte) (int, error) {
	if c.left <= 0 {
		select {
		case <-c.reached:
		default:
			close(c.reached)
			<-c.released
		}
	} else {
		b = b[:min(int64(len(b)), c.left)]
	}
	n, err := c.Reader.Read(b)
	c.left -= int64(n)
	return n, err
}

// transfers downloads and uploads size bytes at the same time. When a part of
// both is done it calls disturb. In the meantime it fetches small pages, and
// afterwards it asks the resolver. Everything must arrive as it was sent.
func (tun *tunnel) transfers(size int64, disturb func()) {
	tun.t.Helper()
	released := make(chan struct{})
	up := &checkpoint{Reader: world.Content(size), left: size / 4, reached: make(chan struct{}), released: released}
	down := &checkpoint{left: size / 4, reached: make(chan struct{}), released: released}
	base := "http://" + net.JoinHostPort(world.WebIP, world.PortWeb)
	ctx, cancel := context.WithCancel(tun.ctx)
	defer cancel()
	var big, small sync.WaitGroup
	big.Go(func() {
		if err := tun.uploadFrom(ctx, base+"/upload", size, up); err != nil {
			tun.t.Errorf("upload: %v", err)
			cancel()
		}
	})
	big.Go(func() {
		err := tun.downloadVia(ctx, fmt.Sprintf("%s/file?size=%d", base, size), size, func(r io.Reader) io.Reader {
			down.Reader = r
			return down
		})
		if err != nil {
			tun.t.Errorf("download: %v", err)
			cancel()
		}
	})
	for _, c := range []*checkpoint{up, down} {
		select {
		case <-c.reached:
		case <-ctx.Done():
		}
	}
	if ctx.Err() == nil {
		disturb()
	}
	close(released)
	over := make(chan struct{})
	for range 2 {
		small.Go(func() { tun.pages(over) })
	}
	big.Wait()
	close(over)
	small.Wait()
	if got := tun.run("dig", "+short", "+time=20", "+tries=2", world.WebName); got != world.WebIP {
		tun.t.Errorf("dig says %q", got)
	}
}

// pages fetches small pages one after the other, one at least, until over is
// closed.
func (tun *tunnel) pages(over <-chan struct{}) {
	for {
		if got, err := tun.get("http://" + world.WebIP + "/"); err != nil || got != "hello from the web" {
			tun.t.Errorf("a small page: %q, %v", got, err)
			return
		}
		select {
		case <-over:
			return
		default:
		}
	}
}

// transferSize is what the tests of transfers send in each direction: more than
// all windows and buffers on the way together hold.
func transferSize() int64 {
	if raceEnabled {
		return 4_000_000
	}
	return 24_000_000
}

func TestTransfersOverRelays(t *testing.T) {
	overRelays(t, func(t *testing.T, kind string) {
		tun := newTunnel(t)
		relay := tun.startRelayOf(kind, world.RelayPort)
		tun.startExit()
		tun.startUp()
		for _, c := range []struct {
			name    string
			disturb func(tun *tunnel)
		}{
			{"undisturbed", func(*tunnel) {}},
			{"relay restarts", func(tun *tunnel) {
				tun.kill(relay)
				relay = tun.startRelayOf(kind, world.RelayPort)
			}},
			{"relay pauses", func(tun *tunnel) { tun.pause(relay) }},
		} {
			t.Run(c.name, func(t *testing.T) {
				tun := tun.with(t)
				tun.transfers(transferSize(), func() { c.disturb(tun) })
			})
		}
	})
}

// secondPort is where the second relay listens, on the host of the first.
const secondPort = "7778"

// TestTransfersOverTwoRelays: when either of two relays dies in mid-transfer the
// other takes over; when both die, everything waits until one is back.
func TestTransfersOverTwoRelays(t *testing.T) {
	both := []string{"--relay", "ws://" + net.JoinHostPort(world.RelayIP, secondPort)}
	overRelays(t, func(t *testing.T, kind string) {
		tun := newTunnel(t)
		relays := map[string]*netlab.Process{}
		start := func(tun *tunnel, port string) { relays[port] = tun.startRelayOf(kind, port) }
		start(tun, world.RelayPort)
		start(tun, secondPort)
		tun.startExit(both...)
		tun.startUp(both...)
		for _, c := range []struct {
			name    string
			disturb func(tun *tunnel)
		}{
			{"the first dies", func(tun *tunnel) { tun.kill(relays[world.RelayPort]) }},
			{"the first is back, the second dies", func(tun *tunnel) {
				start(tun, world.RelayPort)
				tun.kill(relays[secondPort])
			}},
			{"none is left, the second is back", func(tun *tunnel) {
				tun.kill(relays[world.RelayPort])
				start(tun, secondPort)
			}},
		} {
			t.Run(c.name, func(t *testing.T) {
				tun := tun.with(t)
				tun.transfers(transferSize(), func() { c.disturb(tun) })
			})
		}
	})
}

// pause stops a process now and lets it go on after some seconds, during the
// test.
func (tun *tunnel) pause(p *netlab.Process) {
	tun.t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		tun.t.Fatal(err)
	}
	timer := time.AfterFunc(3*time.Second, func() { _ = p.Signal(syscall.SIGCONT) })
	tun.t.Cleanup(func() { timer.Stop() })
}
