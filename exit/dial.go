package exit

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/segments"
	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

const (
	// attemptDelay is the head start of one address over the next
	// (RFC 8305, section 5).
	attemptDelay = 250 * time.Millisecond
	// maxAttempts bounds how many addresses of a name are tried.
	maxAttempts = 6
)

// dial reaches d, an address or a name of the DNS, under the policy. Its errors are *Refusals.
func (s *Server) dial(ctx context.Context, q wish, d destination) (net.Conn, error) {
	g := s.gate.Load() // one policy for the whole of this dial
	addrs := []netip.Addr{d.addr}
	if d.host != "" {
		if err := g.checkRules(&q); err != nil {
			return nil, err // without asking for its address
		}
		var err error
		if addrs, err = s.resolver.lookup(ctx, d.host); err != nil {
			return nil, err
		}
	}
	if err := g.checkAll(q, addrs); err != nil {
		return nil, err
	}
	if q.network == "ping" {
		conn, err := s.openPing(g, q, addrs)
		if err != nil {
			return nil, refuseDial(d.what(), err)
		}
		return conn, nil
	}
	conn, err := race(ctx, interleave(addrs), attemptDelay, func(ctx context.Context, a netip.Addr) (net.Conn, error) {
		return dialAddr(ctx, g, q, netip.AddrPortFrom(a, d.port))
	})
	if err != nil {
		return nil, refuseDial(d.what(), err)
	}
	return conn, nil
}

// dialAddr connects to one address, which the policy judges once more at the
// last moment: in the form and at the place where the kernel gets it.
func dialAddr(ctx context.Context, g *gate, q wish, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{ControlContext: func(ctx context.Context, network, address string, c syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err == nil {
			err = g.check(q, ap.Addr())
		}
		if err != nil {
			return err
		}
		return segments.Control(ctx, network, address, c)
	}}
	return d.DialContext(ctx, q.network, to.String())
}

// interleave orders addresses for race: alternately of either family,
// beginning with that of the first (RFC 8305, section 4), and not too many.
func interleave(addrs []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		if a.Is4() == addrs[0].Unmap().Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var out []netip.Addr
	for i := 0; len(out) < min(len(addrs), maxAttempts); i++ {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) && len(out) < maxAttempts {
			out = append(out, second[i])
		}
	}
	return out
}

// race dials addrs, at least one, in order, each as soon as the one before it
// has failed or had delay for itself, and returns the first connection. What
// else connects is closed; race leaves no goroutine behind.
func race(ctx context.Context, addrs []netip.Addr, delay time.Duration, dial func(context.Context, netip.Addr) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	started, running := 0, 0
	start := func() {
		a := addrs[started]
		started, running = started+1, running+1
		go func() {
			conn, err := dial(ctx, a)
			results <- result{conn, err}
		}()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	start()
	var won net.Conn
	var failed error
	for running > 0 {
		select {
		case r := <-results:
			running--
			switch {
			case r.err != nil:
				failed = tellingError(failed, r.err)
			case won == nil:
				won = r.conn
				cancel()
			default:
				r.conn.Close()
			}
			if won != nil || r.err == nil || started == len(addrs) || ctx.Err() != nil {
				continue
			}
		case <-timer.C:
			if won != nil || started == len(addrs) || ctx.Err() != nil {
				continue
			}
		}
		start()
		timer.Reset(delay)
	}
	if won != nil {
		return won, nil
	}
	return nil, failed
}

// tellingError returns the error that says more: a host without IPv6 fails on
// every IPv6 address, which is nothing to the client.
func tellingError(old, new error) error {
	switch {
	case old == nil:
		return new
	case wire.CodeOf(old) == wire.CodeNetUnreachable, wire.CodeOf(old) == wire.CodeHostUnreachable:
		return new
	}
	return old
}
