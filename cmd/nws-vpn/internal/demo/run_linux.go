package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// patience bounds one step; a large transfer gets more.
const (
	patience     = 40 * time.Second
	longPatience = 3 * time.Minute
)

// Run runs the demo and returns an error when anything was not as it should
// be, or when ctx ended. Whatever happens, nothing of it is left on the machine.
func Run(ctx context.Context, o Options) (err error) {
	start := time.Now()
	d := &demo{report: newReport(o.Out)}
	if d.world, err = world.New(o.Binary); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, d.world.Close()) }()
	if d.tools, err = findTools(d.world.Client, o.Probe); err != nil {
		return err
	}
	d.introduce()
	defer d.closeTap()
	if d.before(ctx) && d.start(ctx) {
		d.use(ctx)
	}
	if ctx.Err() == nil && d.up != nil {
		d.after(ctx)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("demo: stopped: %w", context.Cause(ctx))
	}
	if len(d.failed) > 0 {
		d.showLogs()
	}
	return d.verdict(time.Since(start))
}

// demo is the state of one run; its parts are called one after another.
type demo struct {
	*report
	world *world.World
	tools *tools
	relay *relayView
	tap   *wireTap // or nil: the start failed

	snapshot string // of the client, before
	asked    int    // questions to the uplink's resolver, before
	exitKey  string // npub
	relays   [2]*netlab.Process
	busy     *busyRelay
	exit, up *netlab.Process
}

// The second relay's port, on the host of the first.
const secondPort = "7778"

var secondURL = "ws://" + world.RelayIP + ":" + secondPort

func (d *demo) introduce() {
	d.print("%s", d.paint(bold, "nws-vpn demo"))
	d.print(`
  Five hosts made of network namespaces; this machine's own network is not
  touched. They vanish when this ends.

    client                                            internet
    curl, dig, nc ──┐                             ┌── web  %s
    nws-vpn up      ├────────── relay-net ────────┤   DNS  %s
                    │                             │
    two relays ─────┘                             └── exit
    nws-vpn relay                                     nws-vpn exit`, world.WebIP, world.DNSIP)
	for _, name := range d.tools.missing {
		d.note("%s is not installed: a prober built into nws-vpn takes its place", name)
	}
}

// before proves that the judge would see a leak, and notes the client's state.
func (d *demo) before(ctx context.Context) bool {
	d.heading("Before: the VPN is off")
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	seen := d.step("the client reaches the web by its own network", func() (string, error) {
		tap, err := d.newTap()
		if err != nil {
			return "", err
		}
		_, err = d.tools.get(ctx, "http://"+world.WebIP+"/")
		counts, closeErr := tap.close()
		if err = errors.Join(err, closeErr); err != nil {
			return "", err
		}
		if counts.leak() == nil {
			return "", errors.New("the sniffer on its wire saw nothing: it could not judge")
		}
		return fmt.Sprintf("and a sniffer sees it: %d clear frames", counts.other), nil
	})
	return seen && d.step("its resolver knows nothing of "+world.WebName, func() (string, error) {
		if err := d.tools.unknown(ctx, world.WebName); err != nil {
			return "", err
		}
		return "NXDOMAIN", nil
	})
}

func (d *demo) newTap() (*wireTap, error) {
	return tapWire(d.world.Client, "eth0",
		netip.MustParseAddrPort(world.RelayIP+":"+world.RelayPort), netip.MustParseAddrPort(world.RelayIP+":"+secondPort))
}

// closeTap ends the tap when nobody has judged by it; a second end is harmless.
func (d *demo) closeTap() {
	if d.tap != nil {
		_, _ = d.tap.close()
	}
}

// start starts the programs.
func (d *demo) start(ctx context.Context) bool {
	d.heading("Start: four processes of nws-vpn")
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d.relay = newRelayView(world.WebIP, world.WebIP6, world.DNSIP, world.WebName, "beyond.example", world.ServiceText)
	d.busy = newBusyRelay()
	return d.step("nws-vpn relay, twice", func() (string, error) {
		for i, port := range []string{world.RelayPort, secondPort} {
			args := []string{"--log-events", "--listen", world.RelayIP + ":" + port}
			see := func(line string) { d.relay.add(line); d.busy.add(i, line) }
			var err error
			if d.relays[i], err = d.world.StartRelay(ctx, world.Options{Args: args, OnLine: see}); err != nil {
				return "", err
			}
		}
		return world.RelayURL + ", " + secondURL, nil
	}) && d.step("nws-vpn keygen, nws-vpn exit", func() (string, error) {
		if err := d.world.ServeHTTP(d.world.Exit, world.ServiceAddress, world.Handler(world.ServiceText)); err != nil {
			return "", err
		}
		var err error
		const file = "/run/exit.key"
		if d.exitKey, err = d.world.Keygen(ctx, d.world.Exit, file); err != nil {
			return "", err
		}
		d.exit, err = d.world.StartExit(ctx, file, world.Options{Args: []string{"--service", "80=" + world.ServiceAddress, "--relay", secondURL}})
		return shorten(d.exitKey, 30), err
	}) && d.step("nws-vpn up", func() (detail string, err error) {
		if d.snapshot, err = d.world.Client.Snapshot(); err != nil {
			return "", err
		}
		if d.tap, err = d.newTap(); err != nil {
			return "", err
		}
		d.asked = len(d.world.Uplink.Asked())
		d.up, err = d.world.StartUp(ctx, d.exitKey, world.Options{Args: []string{"--relay", secondURL}})
		return "connected", err
	})
}

// after ends the programs and judges.
func (d *demo) after(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d.heading("After: the machine as it was")
	d.step("nws-vpn down ends nws-vpn up", func() (string, error) {
		if err := d.world.Down(ctx); err != nil {
			return "", err
		}
		if err := d.up.Wait(ctx); err != nil {
			return "", fmt.Errorf("nws-vpn up: %w", err)
		}
		return "exit code 0", nil
	})
	d.step("resolv.conf, addresses, rules and routes are as before", func() (string, error) {
		now, err := d.world.Client.Snapshot()
		if err == nil && now != d.snapshot {
			err = fmt.Errorf("they differ:\n%s", difference(d.snapshot, now))
		}
		return "", err
	})
	d.judgeWire()
	d.judgeRelay(ctx)
}

func (d *demo) judgeWire() {
	d.heading("What passed on the client's wire, from up to down")
	d.step("nothing but TCP with the relays", func() (string, error) {
		counts, err := d.tap.close()
		if err = errors.Join(err, counts.leak()); err != nil {
			return "", err
		}
		if counts.relay == 0 {
			return "", errors.New("the relays were not seen either")
		}
		return fmt.Sprintf("%d frames, %s; %d ARP and NDP", counts.relay, megabytes(counts.relayBytes), counts.local), nil
	})
	d.step("its network's resolver was asked nothing", func() (string, error) {
		if asked := d.world.Uplink.Asked()[d.asked:]; len(asked) > 0 {
			return "", fmt.Errorf("it was asked %v", asked)
		}
		return "", nil
	})
}

// judgeRelay ends the relay that is left, so that its log is whole, and reads
// what both have logged.
func (d *demo) judgeRelay(ctx context.Context) {
	d.heading("What the relays saw")
	var ended error
	for i, p := range d.relays {
		if i == d.busy.killed {
			continue
		}
		_ = p.Signal(unix.SIGTERM)
		ended = errors.Join(ended, p.Wait(ctx))
	}
	rows := d.relay.rows()
	d.note("%-6s %-20s %-20s %9s %11s %9s", "kind", "author", "recipient", "events", "bytes", "largest")
	for i, t := range rows {
		if i == 8 {
			d.note("… and %d more pairs of keys", len(rows)-i)
			break
		}
		d.note("%-6d %-20s %-20s %9d %11s %9d", t.kind, pad(shorten(t.author, 16), 20), pad(shorten(t.recipient, 16), 20), t.events, megabytes(t.bytes), t.largest)
	}
	d.step("keys, kinds and sizes; no name, no address, no content", func() (string, error) {
		switch {
		case ended != nil:
			return "", fmt.Errorf("nws-vpn relay: %w", ended)
		case len(d.relay.telling) > 0:
			return "", fmt.Errorf("its log tells more:\n%s", d.relay.telling[0])
		case d.relay.events == 0:
			return "", errors.New("it logged no event, though everything passed through it")
		}
		return fmt.Sprintf("%d events logged", d.relay.events), nil
	})
}

func (d *demo) showLogs() {
	for _, p := range []struct {
		name    string
		process *netlab.Process
	}{{"nws-vpn relay", d.relays[0]}, {"the second nws-vpn relay", d.relays[1]}, {"nws-vpn exit", d.exit}, {"nws-vpn up", d.up}} {
		if p.process != nil {
			d.log(p.name, p.process.Output())
		}
	}
}
