package test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

// check runs one of the numbered leak checks, with the same tunnel reporting to
// it. The list of all of them in docs/leak-tests.md is made from the calls (see
// leakdoc).
func (tun *tunnel) check(number int, what string, f func(t *testing.T, tun *tunnel)) {
	tun.t.Helper()
	tun.t.Run(fmt.Sprintf("%02d %s", number, what), func(t *testing.T) { f(t, tun.with(t)) })
}

// patience bounds one connection or request of a leak check.
const patience = 40 * time.Second

// within runs f with a context that ends with patience.
func (tun *tunnel) within(f func(tun *tunnel)) {
	tun.t.Helper()
	of := *tun
	var cancel func()
	of.ctx, cancel = context.WithTimeout(tun.ctx, patience)
	defer cancel()
	f(&of)
}

// judge sees every frame on the client's uplinks, and knows which may leave:
// those of TCP to the relays' addresses and ports, or to port 80 there, where a
// captive portal is looked for while no relay answers, DHCP, ARP and neighbour
// discovery.
type judge struct {
	tun      *tunnel
	sniffers []*netlab.Sniffer

	mu      sync.Mutex
	relays  []netip.AddrPort
	answers netip.AddrPort           // or none: of a server in the client, which may answer
	only    func(netlab.Packet) bool // or nil: what else may leave
	also    func(netlab.Packet) bool // or nil: what may not leave all the same
	expect  probe
	met     int // strange frames that are the expected probe's
	strange int
	shown   []string // of the strange ones
}

// judge begins to watch uplinks of the client, or eth0.
func (tun *tunnel) judge(devices ...string) *judge {
	tun.t.Helper()
	j := &judge{tun: tun}
	for _, ip := range []string{world.RelayIP, world.RelayIP6} {
		for _, port := range []uint16{7777, 80} {
			j.relays = append(j.relays, netip.AddrPortFrom(netip.MustParseAddr(ip), port))
		}
	}
	if len(devices) == 0 {
		devices = []string{"eth0"}
	}
	for _, d := range devices {
		s, err := tun.Client.Sniff(d, j.see)
		if err != nil {
			tun.t.Fatal(err)
		}
		j.sniffers = append(j.sniffers, s)
		tun.t.Cleanup(func() {
			if err := s.Close(); err != nil {
				tun.t.Error(err)
			}
		})
	}
	return j
}

func (j *judge) see(p netlab.Packet) {
	if !p.Outgoing {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.mayLeave(p) {
		return
	}
	if j.expect.sends(p) {
		j.met++
	}
	j.strange++
	j.shown = append(j.shown, p.String())
	if len(j.shown) > 20 {
		j.shown = j.shown[1:]
	}
}

func (j *judge) mayLeave(p netlab.Packet) bool {
	dhcp := func(ports ...uint16) bool {
		return p.Protocol == unix.IPPROTO_UDP && slices.Contains(ports, p.Source.Port()) && slices.Contains(ports, p.Destination.Port())
	}
	switch {
	case j.also != nil && j.also(p):
		return false
	case p.Local(), dhcp(67, 68), dhcp(546, 547):
		return true
	case p.Protocol == unix.IPPROTO_TCP && (slices.Contains(j.relays, p.Destination) || p.Source == j.answers):
		return true
	}
	return j.only != nil && j.only(p)
}

// allow changes what may leave besides the usual.
func (j *judge) allow(only func(netlab.Packet) bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.only = only
}

// count is how many frames left so far that should not have.
func (j *judge) count() int {
	for _, s := range j.sniffers {
		s.Sync()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.strange
}

// during runs f and returns how many frames left meanwhile that should not have.
func (j *judge) during(f func()) int {
	before := j.count()
	f()
	return j.count() - before
}

// quiet fails the test if anything leaves during f that should not.
func (j *judge) quiet(t *testing.T, what string, f func()) {
	t.Helper()
	if n := j.during(f); n > 0 {
		t.Errorf("%s: %d frames on the wire, among them:\n%s", what, n, j.examples(n))
	}
}

func (j *judge) examples(n int) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.shown[max(0, len(j.shown)-n):], "\n")
}

// probed are probes that were seen on the wire with the VPN off.
type probed struct {
	*judge
	seen map[string]bool
}

// prove sends every probe with the VPN off and fails the test unless each is
// seen on the wire: else its silence later would prove nothing.
func (j *judge) prove(probes ...probe) *probed {
	j.tun.t.Helper()
	p := &probed{judge: j, seen: map[string]bool{}}
	p.proveMore(probes...)
	j.settle()
	return p
}

// proven is a judge, and probes of each sort that it has seen.
func (tun *tunnel) proven() (*probed, []probe) {
	tun.t.Helper()
	judge := tun.judge()
	probes := tun.mixedProbes()
	return judge.prove(probes...), probes
}

func (p *probed) proveMore(probes ...probe) {
	p.tun.t.Helper()
	for _, probe := range probes {
		var err error
		for try := 0; !p.seen[probe.name]; try++ {
			p.seen[probe.name], err = p.visible(probe)
			if try == 200 {
				p.tun.t.Fatalf("with the VPN off, the probe %q is not seen on the wire (%v)", probe.name, err)
			}
			if !p.seen[probe.name] {
				time.Sleep(5 * time.Millisecond) // the neighbour is being asked for its address
			}
		}
	}
}

// visible sends a probe and reports whether it is on the wire.
func (j *judge) visible(p probe) (bool, error) {
	j.count()
	j.mu.Lock()
	j.expect, j.met = p, 0
	j.mu.Unlock()
	err := p.send(j.tun)
	j.count()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.expect = probe{}
	return j.met > 0, err
}

// settle waits until what the probes have begun is over: connections that were
// accepted are closed on both sides.
func (j *judge) settle() {
	for before := -1; j.count() != before; time.Sleep(50 * time.Millisecond) {
		before = j.count()
	}
}

// silent sends probes, each proven before, and fails the test if one of them
// shows on the wire.
func (p *probed) silent(t *testing.T, when string, probes ...probe) {
	t.Helper()
	for _, probe := range probes {
		if !p.seen[probe.name] {
			t.Fatalf("the probe %q was not proven", probe.name)
		}
		p.quiet(t, when+": "+probe.name, func() { _ = probe.send(p.tun) }) // refused is as good as lost
	}
}
