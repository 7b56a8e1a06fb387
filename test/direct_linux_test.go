package test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
)

const directPort = "9333"

const directAddress = world.ClientIP + ":" + directPort

// nft changes the packet filter of a host of the world.
func (tun *tunnel) nft(h *netlab.Host, rules string) {
	tun.t.Helper()
	res, err := h.Run(tun.ctx, netlab.CommandOptions{Stdin: strings.NewReader(rules)}, needProgram(tun.t, "nft"), "-f", "-")
	if err != nil || res.Code != 0 {
		tun.t.Fatalf("nft: %v: %s", err, res.Output)
	}
}

// noInbound has the exit take no connection from outside, as behind a router
// that translates addresses.
func (tun *tunnel) noInbound() {
	tun.nft(tun.Exit, `table inet nat_like {
	chain input { type filter hook input priority 0; policy drop;
		iif lo accept
		meta l4proto ipv6-icmp accept
		ct state established,related accept
	}
	}
`)
}

// cutDirect makes the way between the two ends lose what is no relay's, without
// telling anybody, or opens it again.
func (tun *tunnel) cutDirect(cut bool) {
	rules := "table inet cut\ndelete table inet cut\n"
	if cut {
		rules += "table inet cut { chain forward { type filter hook forward priority 0; tcp dport " + directPort + " drop; tcp sport " + directPort + " drop; }\n}\n"
	}
	tun.nft(tun.Router, rules)
}

// paths says which relays and direct paths carry what the client sends.
func (tun *tunnel) paths() (active []string) {
	relays, _ := tun.status()["relays"].([]any)
	for _, r := range relays {
		r := r.(map[string]any)
		if r["role"] == "active" {
			active = append(active, r["url"].(string))
		}
	}
	return active
}

// carriedBy waits until the one path that carries has a prefix.
func (tun *tunnel) carriedBy(prefix string) {
	tun.t.Helper()
	for {
		active := tun.paths()
		if len(active) == 1 && strings.HasPrefix(active[0], prefix) {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-tun.ctx.Done():
			tun.t.Fatalf("carried by %v, want %s…", active, prefix)
		}
	}
}

// startDirect starts relay, exit and client, with a public address of the latter.
func (tun *tunnel) startDirect() (relay *netlab.Process) {
	tun.t.Helper()
	tun.noInbound()
	relay = tun.startRelay()
	tun.startExit("--allow-private", world.ClientIP+"/32")
	if err := tun.Client.WriteFile("/run/nws.toml", []byte("[up]\npublic_address = \""+directAddress+"\"\n")); err != nil {
		tun.t.Fatal(err)
	}
	tun.startUp("--config", "/run/nws.toml")
	return relay
}

// sight is what somebody on the way sees of the direct path.
type sight struct {
	mu      sync.Mutex
	opening []byte // the first bytes that the dialer sends
	packets int
	plain   []string // what is no secret
}

func (s *sight) see(p netlab.Packet) {
	const tcp = 6
	port := uint16(9333)
	if p.Protocol != tcp || p.Source.Port() != port && p.Destination.Port() != port {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packets++
	if s.opening == nil && p.Destination.Port() == port {
		s.opening = payload(p.Data)
	}
	for _, text := range []string{"hello from the web", "HTTP/1.1", world.WebName} {
		if bytes.Contains(p.Data, []byte(text)) {
			s.plain = append(s.plain, text)
		}
	}
}

// payload is what a TCP segment over IPv4 holds, nil for nothing.
func payload(packet []byte) []byte {
	ip := int(packet[0]&0xf) * 4
	if len(packet) < ip+20 {
		return nil
	}
	data := packet[:min(len(packet), int(packet[2])<<8+int(packet[3]))]
	offset := ip + int(packet[ip+12]>>4)*4
	if offset >= len(data) {
		return nil
	}
	return bytes.Clone(data[offset:])
}

// TestDirect: an exit that nobody can connect to connects to a client that has a
// public address. Transfers pass that way, encrypted, go on over the relay when
// the way is cut, come back, and do not notice when the relay dies.
func TestDirect(t *testing.T) {
	tun := newTunnel(t)
	var seen sight
	sniffer, err := tun.Router.Sniff("client", seen.see)
	if err != nil {
		t.Fatal(err)
	}
	relay := tun.startDirect()
	tun.carriedBy("tls://")
	for _, c := range []struct {
		name    string
		disturb func(tun *tunnel)
	}{
		{"direct", func(tun *tunnel) { tun.carriedBy("tls://") }},
		{"cut", func(tun *tunnel) { tun.cutDirect(true); tun.carriedBy("ws://") }},
		{"mended", func(tun *tunnel) { tun.cutDirect(false); tun.carriedBy("tls://") }},
		{"without the relay", func(tun *tunnel) { tun.kill(relay) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			tun := tun.with(t)
			tun.transfers(transferSize(), func() { c.disturb(tun) })
		})
	}
	if err := sniffer.Close(); err != nil {
		t.Error(err)
	}
	const handshake, version = 0x16, 3
	if len(seen.opening) < 6 || seen.opening[0] != handshake || seen.opening[1] != version {
		t.Errorf("the connection begins with %x", seen.opening)
	}
	if len(seen.plain) > 0 || seen.packets < 1000 {
		t.Errorf("of %d packets these are readable: %q", seen.packets, seen.plain)
	}
}

// TestDirectRefused: an exit does not connect to private addresses, nor where its
// operator does not want it, and strangers who find the client's port learn
// nothing and change nothing.
func TestDirectRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"private": nil,
		"off":     {"--config", "/run/nws.toml", "--allow-private", world.ClientIP + "/32"},
	} {
		t.Run(name, func(t *testing.T) {
			tun := newTunnel(t)
			tun.startRelay()
			if err := tun.Exit.WriteFile("/run/nws.toml", []byte("[exit]\nconnectr = \"off\"\n")); err != nil {
				t.Fatal(err)
			}
			tun.startExit(args...)
			if err := tun.Client.WriteFile("/run/nws.toml", []byte("[up]\npublic_address = \""+directAddress+"\"\n")); err != nil {
				t.Fatal(err)
			}
			var seen sight
			sniffer, err := tun.Router.Sniff("client", seen.see)
			if err != nil {
				t.Fatal(err)
			}
			tun.startUp("--config", "/run/nws.toml")
			tun.transfers(1_000_000, func() {})
			if err := sniffer.Close(); err != nil {
				t.Error(err)
			}
			if seen.packets > 0 {
				t.Errorf("%d packets went to the client's port", seen.packets)
			}
			tun.carriedBy("ws://")
			tun.knock()
			tun.reaches("after a stranger has knocked")
		})
	}
}

// knock connects to the client's port as somebody on the internet would, who
// must not be shown a certificate.
func (tun *tunnel) knock() {
	tun.t.Helper()
	res, err := tun.Internet.Run(tun.ctx, netlab.CommandOptions{}, needProgram(tun.t, "openssl"),
		"s_client", "-connect", directAddress, "-servername", "www.example.com")
	if err != nil {
		tun.t.Fatal(err)
	}
	if res.Code == 0 || strings.Contains(res.Output, "BEGIN CERTIFICATE") || !strings.Contains(res.Output, "no peer certificate") {
		tun.t.Errorf("openssl ended with code %d: %s", res.Code, res.Output)
	}
}
