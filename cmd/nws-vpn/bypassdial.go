package main

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/segments"
	"github.com/nws-vpn/nws-vpn/platform"
)

// bypassDialer makes connections that do not go through the tunnel, and
// resolves their names with the uplink's servers rather than the tunnel's.
func bypassDialer(mark uint32, uplink func() []netip.Addr) *net.Dialer {
	control := platform.Control(mark)
	servers := &nearServers{control: control, list: func() (list []netip.AddrPort) {
		for _, a := range uplink() {
			list = append(list, netip.AddrPortFrom(a, 53))
		}
		return list
	}}
	return &net.Dialer{
		Timeout:        10 * time.Second,
		ControlContext: carefully(control),
		Resolver:       &net.Resolver{PreferGo: true, Dial: servers.dial},
	}
}

// carefully is control for a dialer whose connections get through networks that
// lose large packets, where its context asks for that.
func carefully(control controlFunc) func(ctx context.Context, network, address string, c syscall.RawConn) error {
	return func(ctx context.Context, network, address string, c syscall.RawConn) error {
		if err := control(network, address, c); err != nil {
			return err
		}
		return segments.Control(ctx, network, address, c)
	}
}

// nearServers are the name servers of the network outside the tunnel. One is
// asked until it fails, and then the next. The resolver that asks does not know
// how many there are: it asks twice, and waits for serverTimeout in between.
type nearServers struct {
	control controlFunc // or nil
	list    func() []netip.AddrPort
	first   atomic.Uint32 // of the list, modulo its length: which one to ask
}

// serverTimeout is how long one of several name servers may take.
const serverTimeout = 2 * time.Second

// dial is net.Resolver's Dial.
func (u *nearServers) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	d := net.Dialer{Control: u.control, Timeout: 3 * time.Second}
	var last error = &net.DNSError{Err: "no name server is configured outside the tunnel", IsTemporary: true}
	list := u.list()
	for range list {
		at := u.first.Load()
		conn, err := d.DialContext(ctx, network, list[at%uint32(len(list))].String())
		if err != nil {
			last = err
			u.failed(at)
			continue
		}
		if udp, ok := conn.(*net.UDPConn); ok && len(list) > 1 {
			return &uplinkConn{UDPConn: udp, servers: u, at: at}, nil
		}
		return conn, nil
	}
	return nil, last
}

// failed has the next server asked, unless somebody has noticed before that the
// one at this place fails.
func (u *nearServers) failed(at uint32) { u.first.CompareAndSwap(at, at+1) }

// uplinkConn notices when a server does not answer, or refuses to. The resolver
// takes it for datagrams, since it is a net.PacketConn.
type uplinkConn struct {
	*net.UDPConn
	servers *nearServers
	at      uint32
}

func (c *uplinkConn) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	const (
		serverFailure = 2 // RFC 1035, 4.1.1
		refused       = 5
	)
	if err != nil || n >= 4 && (b[3]&0xf == serverFailure || b[3]&0xf == refused) {
		c.servers.failed(c.at)
	}
	return n, err
}

// SetDeadline leaves time for another server.
func (c *uplinkConn) SetDeadline(t time.Time) error {
	if soon := time.Now().Add(serverTimeout); t.IsZero() || t.After(soon) {
		t = soon
	}
	return c.UDPConn.SetDeadline(t)
}
