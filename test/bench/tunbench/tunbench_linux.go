package tunbench

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/netstack"
	"github.com/nws-vpn/nws-vpn/tun"
)

const (
	device = "bench0"
	mtu    = 1500
)

// Each port is a service of the handler.
var (
	sinkAddr   = netip.MustParseAddrPort("198.51.100.1:9")
	sourceAddr = netip.MustParseAddrPort("198.51.100.1:19")
	webAddr    = netip.MustParseAddrPort("198.51.100.1:80")
	idleAddr   = netip.MustParseAddrPort("198.51.100.1:7")
)

// Run takes all measurements, one after the other, and reports each by name:
// the median of a few rounds. It takes about half a minute.
//
//	tun_to_stack       MB/s  one program's TCP stream to a handler
//	stack_to_tun       MB/s  a handler's TCP stream to one program
//	new_conns_per_s    1/s   small HTTP requests, a new connection each, 16 threads
//	stack_flow_idle_kb kB    memory per open idle connection through Forward
func Run(ctx context.Context, report func(name string, value float64, unit string)) error {
	return run(ctx, 3, 2*time.Second, report)
}

func run(ctx context.Context, rounds int, period time.Duration, report func(name string, value float64, unit string)) error {
	b, err := start(period)
	if err != nil {
		return fmt.Errorf("tunbench: %w", err)
	}
	defer b.close()
	for _, m := range []struct {
		name, unit string
		measure    func(context.Context) (float64, error)
	}{
		{"tun_to_stack", "MB/s", b.upload},
		{"stack_to_tun", "MB/s", b.download},
		{"new_conns_per_s", "1/s", b.requests},
	} {
		value, err := median(ctx, rounds, m.measure)
		if err != nil {
			return fmt.Errorf("tunbench: %s: %w", m.name, err)
		}
		report(m.name, value, m.unit)
	}
	kb, err := b.idleFlows(ctx)
	if err != nil {
		return fmt.Errorf("tunbench: idle flows: %w", err)
	}
	report("stack_flow_idle_kb", kb, "kB")
	return nil
}

// bench is a namespace whose default route is a device served by a stack.
type bench struct {
	period time.Duration // of each measurement
	lab    *netlab.Lab
	host   *netlab.Host
	stack  *netstack.Stack
}

func start(period time.Duration) (b *bench, err error) {
	b = &bench{period: period, lab: netlab.New()}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.host, err = b.lab.Host("programs"); err != nil {
		return b, err
	}
	var dev tun.Device
	if err = b.host.Do(func() (err error) { dev, err = tun.Open(device, mtu); return err }); err != nil {
		return b, err
	}
	if err = b.host.LeadInto(device, "10.0.0.1/24"); err != nil {
		dev.Close()
		return b, err
	}
	if b.stack, err = netstack.New(dev, netstack.Forward(services{}, netstack.ForwardOptions{}), netstack.Options{}); err != nil {
		dev.Close()
	}
	return b, err
}

func (b *bench) close() {
	if b.stack != nil {
		b.stack.Close()
	}
	b.lab.Close()
}

// inPrograms runs f on n threads of the namespace and returns the first error.
func (b *bench) inPrograms(n int, f func() error) error {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	for range n {
		wg.Go(func() {
			if err := b.host.Do(f); err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	wg.Wait()
	return first
}
