package demo

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

// wireTap judges what passes on the client's cable: nothing but TCP with the
// relays' addresses and ports, and what the cable itself needs.
type wireTap struct {
	relays  []netip.AddrPort
	sniffer *netlab.Sniffer

	mu     sync.Mutex
	counts wireCounts
}

type wireCounts struct {
	relay, local, other int   // frames
	relayBytes          int64 // to and from the relays
	examples            []string
}

func tapWire(client *netlab.Host, device string, relays ...netip.AddrPort) (*wireTap, error) {
	t := &wireTap{relays: relays}
	var err error
	t.sniffer, err = client.Sniff(device, t.see)
	return t, err
}

func (t *wireTap) see(p netlab.Packet) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch c := &t.counts; {
	case p.Local():
		c.local++
	case p.Protocol == unix.IPPROTO_TCP && t.isRelay(p):
		c.relay++
		c.relayBytes += int64(p.Length)
	default:
		c.other++
		if len(c.examples) < 5 {
			c.examples = append(c.examples, p.String())
		}
	}
}

func (t *wireTap) isRelay(p netlab.Packet) bool {
	other := p.Source
	if p.Outgoing {
		other = p.Destination
	}
	return slices.Contains(t.relays, other)
}

// close ends the tap and returns what passed, or an error when some of it went
// unseen.
func (t *wireTap) close() (wireCounts, error) {
	err := t.sniffer.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts, err
}

// leak is an error when something passed that should not have.
func (c wireCounts) leak() error {
	if c.other == 0 {
		return nil
	}
	return fmt.Errorf("%d frames went past the tunnel, among them:\n%s", c.other, strings.Join(c.examples, "\n"))
}
