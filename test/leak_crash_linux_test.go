package test

import (
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// mixedProbes are some of each sort, all of which nothing may let out.
func (tun *tunnel) mixedProbes() []probe {
	link := tun.linkIndex("eth0")
	return slices.Concat(plainProbes(), dnsProbes(link)[:4], boundProbes(link, tun.routerLinkLocal())[:6])
}

// repeatedly sends probes until the returned function is called.
func (p *probed) repeatedly(probes []probe) (stop func()) {
	ended := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			for _, probe := range probes {
				_ = probe.send(p.tun)
				select {
				case <-ended:
					return
				default:
				}
			}
		}
	})
	return func() { close(ended); running.Wait() }
}

// leak check 21 is open: a memory cgroup is the machine's and no test may make one; what the kernel does then is kill -9, as in checks 19 and 20

// TestLeakKilledAtEveryStep kills the start of a tunnel at each change that it
// says it makes.
func TestLeakKilledAtEveryStep(t *testing.T) {
	tun := served(t)
	wire := tun.judge()
	all := wire.prove(tun.mixedProbes()...)
	before := tun.snapshot()
	isChange := func(line string) bool { return strings.HasPrefix(line, "+ ") }
	up := tun.startUp("-v")
	steps := 0
	for line := range strings.Lines(up.Output()) {
		if isChange(line) {
			steps++
		}
	}
	tun.undone(up, before)
	if steps < 5 {
		t.Fatalf("up -v tells of %d changes: %s", steps, up.Output())
	}
	tun.check(19, "kill -9 at every step of up, then repair, twice", func(t *testing.T, tun *tunnel) {
		for at := 1; at <= steps; at += 3 {
			p, closed := tun.killedAt(at, isChange)
			if closed {
				all.silent(t, "killed", tun.mixedProbes()[:4]...)
			}
			tun.nwsEnds(true, "repair")
			tun.restored(before)
			tun.nwsEnds(true, "repair")
			tun.restored(before)
			if t.Failed() {
				t.Fatalf("killed at change %d of %d: %s", at, steps, p.Output())
			}
		}
	})
}

// killedAt starts the client and kills it when it has told of that many changes.
// closed says that the packet filter, which comes as a whole, was complete.
func (tun *tunnel) killedAt(at int, isChange func(string) bool) (p *netlab.Process, closed bool) {
	tun.t.Helper()
	changes, hit, filter := 0, make(chan struct{}), false
	p, err := tun.Start(tun.Client, world.Options{OnLine: func(line string) {
		if !isChange(line) {
			return
		}
		if changes++; changes == at {
			close(hit)
		}
		isFilter := strings.HasPrefix(line, "+ nft")
		filter = filter || isFilter
		closed = closed || changes <= at && filter && !isFilter
	}}, append(tun.upArgs("-v"), "--state-dir", world.StateDir)...)
	tun.started("up", p, err)
	select {
	case <-hit:
	case <-p.Done():
		tun.t.Errorf("up ended before change %d", at)
	case <-tun.ctx.Done():
	}
	tun.kill(p)
	return p, closed
}

func TestLeakRestart(t *testing.T) {
	tun := served(t)
	wire, probes := tun.proven()
	before := tun.snapshot()
	tun.check(20, "kill -9 when connected, then up again", func(t *testing.T, tun *tunnel) {
		up := tun.startUp()
		wire.quiet(t, "from the kill to the new tunnel", func() {
			stop := wire.repeatedly(probes)
			defer stop()
			tun.kill(up)
			up = tun.startUp()
			tun.works(t, "restarted")
		})
		tun.undone(up, before)
	})
	tun.check(26, "restarts, and a new version: fake addresses stay", func(t *testing.T, tun *tunnel) {
		address := func() string { return tun.run("dig", "+short", "+time=10", "+tries=2", tun.key+".nostr") }
		up := tun.startUp("--kill-switch", "lockdown")
		first := address()
		wire.quiet(t, "from one version to the next", func() {
			stop := wire.repeatedly(probes)
			defer stop()
			tun.takeDown(up)
			up = tun.startUp()
			if got := address(); got != first || got == "" {
				t.Errorf("the exit's name had the address %s, and now %s", first, got)
			}
			tun.nwsEnds(true, "down")
			tun.ended(up, true)
		})
		tun.nwsEnds(true, "down", "--unlock")
		tun.restored(before)
	})
	tun.check(28, "lockdown: closed before the tunnel and after it", func(t *testing.T, tun *tunnel) {
		wire.quiet(t, "locked down", func() {
			tun.nwsEnds(true, "lockdown")
			wire.silent(t, "before up", probes...)
			up := tun.startUp()
			wire.silent(t, "up", probes...)
			tun.works(t, "up")
			tun.takeDown(up)
			wire.silent(t, "after down", probes...)
		})
		tun.nwsEnds(true, "down", "--unlock")
		tun.restored(before)
		if seen, err := wire.visible(probes[0]); !seen {
			t.Errorf("unlocked, nothing goes out: %v", err)
		}
	})
	tun.check(24, "up that fails leaves nothing", func(t *testing.T, tun *tunnel) {
		stranger, err := tun.Keygen(tun.ctx, tun.Exit, "/run/stranger.key")
		must(t, err)
		wire.quiet(t, "while it tries", func() {
			res, err := tun.Run(tun.ctx, tun.Client, "up", "--exit", stranger, "--relay", world.RelayURL, "--state-dir", world.StateDir)
			if err != nil || res.Code == 0 {
				t.Errorf("up ended with code %d, %v: %s", res.Code, err, res.Output)
			}
		})
		tun.restored(before)
	})
	tun.check(25, "--rollback-after without confirm, and with it", func(t *testing.T, tun *tunnel) {
		up := tun.startRolledBack(before)
		tun.ended(up, true)
		tun.becomes(before)
		up = tun.startUp("--rollback-after", "10m")
		tun.nwsEnds(true, "confirm")
		tun.works(t, "confirmed")
		tun.undone(up, before)
	})
}

func TestLeakSignals(t *testing.T) {
	tun := served(t)
	wire, probes := tun.proven()
	before := tun.snapshot()
	tun.check(21, "SIGTERM", func(t *testing.T, tun *tunnel) {
		up := tun.startUp()
		must(t, up.Signal(syscall.SIGTERM))
		tun.ended(up, true)
		tun.restored(before)
	})
	tun.check(21, "SIGHUP does not open the machine", func(t *testing.T, tun *tunnel) {
		wire.settle()
		up := tun.startUp()
		wire.quiet(t, "SIGHUP", func() {
			stop := wire.repeatedly(probes)
			defer stop()
			must(t, up.Signal(syscall.SIGHUP))
			if _, err := up.WaitLine(tun.ctx, secondLine("connected")); err != nil {
				t.Error(err)
			}
			tun.recovers()
		})
		tun.undone(up, before)
	})
	tun.check(21, "SIGSTOP and SIGCONT", func(t *testing.T, tun *tunnel) {
		wire.settle()
		up := tun.startUp()
		wire.quiet(t, "stopped", func() {
			must(t, up.Signal(syscall.SIGSTOP))
			wire.silent(t, "stopped", probes...)
			must(t, up.Signal(syscall.SIGCONT))
			tun.recovers()
		})
		tun.undone(up, before)
	})
	tun.check(23, "a second tunnel refuses", func(t *testing.T, tun *tunnel) {
		wire.settle()
		up := tun.startUp()
		wire.quiet(t, "the second", func() {
			res, err := tun.Run(tun.ctx, tun.Client, append(tun.upArgs(), "--state-dir", world.StateDir)...)
			if err != nil || res.Code == 0 || !strings.Contains(res.Output, "nws-vpn down") {
				t.Errorf("a second up ended with code %d, %v: %s", res.Code, err, res.Output)
			}
			tun.works(t, "the first")
		})
		tun.takeDown(up)
	})
}

func TestLeakTampering(t *testing.T) {
	tun := served(t)
	wire := tun.judge()
	plain, probes := plainProbes(), tun.mixedProbes()
	all := wire.prove(probes...)
	before := tun.snapshot()
	up := tun.startUp()
	tun.works(t, "up")
	for _, c := range []struct {
		what   string
		change func() error
	}{
		{"the rules flushed", func() error { _, err := tun.Client.FlushRules(); return err }},
		{"the packet filter flushed", func() error { _, err := tun.Client.FlushFilters(); return err }},
		{"the TUN deleted", func() error { return tun.Client.RemoveLink("nws0") }},
	} {
		tun.check(22, c.what+" by another program", func(t *testing.T, tun *tunnel) {
			intact := tun.inForce()
			wire.quiet(t, c.what, func() {
				must(t, c.change())
				all.silent(t, "at once", plain...)
				tun.within(func(tun *tunnel) {
					tun.await("what was changed is put right", func() bool { return tun.inForce() == intact })
				})
				all.silent(t, "afterwards", probes...)
				tun.recovers()
			})
		})
	}
	tun.undone(up, before)
}

// inForce are the rules and filters of the client, and what is in the tunnel's
// table.
func (tun *tunnel) inForce() string {
	var lines []string
	for line := range strings.Lines(tun.snapshot()) {
		if strings.HasPrefix(line, "rule") || strings.HasPrefix(line, "filter") || strings.Contains(line, "table 20055") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func TestLeakNoRoom(t *testing.T) {
	tun := served(t)
	before := tun.snapshot()
	tun.check(21, "a full disk: nothing is half changed", func(t *testing.T, tun *tunnel) {
		must(t, tun.Client.SmallDisk(world.StateDir, 16<<10))
		must(t, tun.Client.WriteFile(world.StateDir+"/ballast", make([]byte, 12<<10)))
		p := tun.begin()
		_, err := p.WaitLine(tun.ctx, func(l string) bool { return strings.HasPrefix(l, "connected") })
		if err == nil { // there was room enough
			tun.works(t, "with little room")
			tun.down()
		} else if !strings.Contains(p.Output(), "no space") {
			t.Errorf("up does not say what is wrong: %s", p.Output())
		}
		<-p.Done()
		tun.restored(before)
	})
	tun.check(21, "a read-only /etc", func(t *testing.T, tun *tunnel) {
		must(t, tun.Client.ReadOnly("/etc"))
		up := tun.startUpIn("/run/nws-vpn-2")
		tun.works(t, "read-only")
		res, err := tun.Run(tun.ctx, tun.Client, "down", "--state-dir", "/run/nws-vpn-2")
		if err != nil || res.Code != 0 {
			t.Errorf("down: %v: %s", err, res.Output)
		}
		tun.ended(up, true)
		tun.restored(before)
	})
}

// startUpIn starts the client with another state directory.
func (tun *tunnel) startUpIn(dir string) *netlab.Process {
	tun.t.Helper()
	p, err := tun.Start(tun.Client, world.Options{}, "up", "--exit", tun.key, "--relay", world.RelayURL, "--state-dir", dir)
	tun.started("up", p, err)
	if _, err := p.WaitLine(tun.ctx, func(l string) bool { return strings.HasPrefix(l, "connected") }); err != nil {
		tun.t.Fatal(err)
	}
	return p
}
