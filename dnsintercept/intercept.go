package dnsintercept

import (
	"context"
	"syscall"

	"github.com/nws-vpn/nws-vpn/netstack"
)

// Ports where queries go, to whatever server: in the clear, and to a server that
// the program trusts.
const (
	dnsPort = 53
	tlsPort = 853
)

// Handler takes the flows to port 53, and pings of the DNS server behind the
// device, and leaves all others to next; flows to port 853 too, unless these are
// to be refused.
func (i *Interceptor) Handler(next netstack.Handler) netstack.Handler {
	return &handler{i, next}
}

// Dialer dials by next, and puts the name in the place of an address from the
// pool: "198.18.23.5:80" becomes "<key>.nostr:80", whatever spelling or petname
// the address was asked for with. An address of the range that stands for no
// name is refused at once, with syscall.ECONNREFUSED. Connections to names are
// splice.Aborters, and can half-close and WriteTo when next's can; their
// addresses keep their names until they are closed.
//
// The result is a netstack.EarlyDialer exactly if next is one.
func (i *Interceptor) Dialer(next netstack.Dialer) netstack.Dialer {
	d := nameDialer{i, next}
	if early, ok := next.(netstack.EarlyDialer); ok {
		return &earlyNameDialer{d, early}
	}
	return &d
}

type handler struct {
	i    *Interceptor
	next netstack.Handler
}

func (h *handler) HandleTCP(ctx context.Context, req *netstack.TCPRequest) {
	switch port := req.Destination().Port(); {
	case port == tlsPort && h.i.noTLS:
		req.Reject(syscall.ECONNREFUSED)
		return
	case port != dnsPort:
		h.next.HandleTCP(ctx, req)
		return
	}
	select {
	case h.i.streams <- struct{}{}:
		defer func() { <-h.i.streams }()
	default:
		req.Reject(syscall.ECONNREFUSED)
		return
	}
	conn, err := req.Accept()
	if err != nil { // the program has given up
		return
	}
	h.i.serveTCP(ctx, conn)
}

func (h *handler) HandleUDP(ctx context.Context, conn *netstack.UDPConn) {
	switch port := conn.Destination().Port(); {
	case port == tlsPort && h.i.noTLS:
		conn.Reject(syscall.ECONNREFUSED)
		return
	case port != dnsPort:
		h.next.HandleUDP(ctx, conn)
		return
	}
	select {
	case h.i.flows <- struct{}{}:
		defer func() { <-h.i.flows }()
		h.i.serveUDP(ctx, conn)
	default:
		conn.Reject(syscall.ECONNREFUSED)
	}
}

func (h *handler) HandlePing(ctx context.Context, conn *netstack.PingConn) {
	if !h.i.pool.rng.isServer(conn.Destination()) {
		h.next.HandlePing(ctx, conn)
		return
	}
	// It is here, and so is its answer. The error is the end of the flow.
	_, _ = conn.WriteTo(conn)
}
