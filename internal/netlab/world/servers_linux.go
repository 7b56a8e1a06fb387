package world

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
)

// serve starts the servers of the internet and the uplink's resolver.
func (w *World) serve() error {
	var err error
	if w.Uplink, err = w.serveDNS(w.Router, Zone{
		RelayName: {Addresses: addresses(RelayIP, RelayIP6)},
	}, net.JoinHostPort(RouterIP, PortDNS)); err != nil {
		return err
	}
	if w.Beyond, err = w.serveDNS(w.Internet, Zone{
		WebName:               {Addresses: addresses(WebIP, WebIP6), Text: []string{WebText}},
		"v4.beyond.example":   {Addresses: addresses(WebIP)},
		"v6.beyond.example":   {Addresses: addresses(WebIP6)},
		"long.beyond.example": {Text: longText()},
	}, net.JoinHostPort(DNSIP, PortDNS), net.JoinHostPort(DNSIP, PortDNS2), net.JoinHostPort(DNSIP6, PortDNS)); err != nil {
		return err
	}
	for _, ip := range []string{WebIP, WebIP6} {
		if err := w.ServeHTTP(w.Internet, net.JoinHostPort(ip, PortWeb), Handler("the web")); err != nil {
			return err
		}
		for port, talk := range map[string]func(net.Conn) error{
			PortEcho: echo, PortDigest: digest, PortBanner: banner, PortReset: reset,
		} {
			if err := w.ServeTCP(w.Internet, net.JoinHostPort(ip, port), talk); err != nil {
				return err
			}
		}
		if err := w.echoPackets(w.Internet, net.JoinHostPort(ip, PortEcho)); err != nil {
			return err
		}
	}
	return nil
}

func addresses(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, t := range texts {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}

// longText is more than any datagram takes.
func longText() []string {
	var texts []string
	for i := range 40 {
		texts = append(texts, fmt.Sprintf("%02d %s", i, strings.Repeat("x", 200)))
	}
	return texts
}

func (w *World) serveDNS(h *netlab.Host, zone Zone, on ...string) (*DNSServer, error) {
	var packets []net.PacketConn
	var streams []net.Listener
	for _, address := range on {
		p, err := h.ListenPacket("udp", address)
		if err != nil {
			return nil, err
		}
		packets = append(packets, p)
		l, err := h.Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		streams = append(streams, l)
	}
	s := ServeDNS(zone, packets, streams)
	w.Keep(s)
	return s, nil
}

// ServeHTTP serves handler in a host until the world is closed.
func (w *World) ServeHTTP(h *netlab.Host, address string, handler http.Handler) error {
	l, err := h.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := &httpServer{Server: http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = s.Serve(l) // http.ErrServerClosed
	}()
	w.Keep(s)
	return nil
}

type httpServer struct {
	http.Server
	done chan struct{}
}

func (s *httpServer) Close() error {
	err := s.Server.Close()
	<-s.done
	return err
}

// ServeTCP answers every connection in a host with talk until the world is
// closed. The connection is closed after talk.
func (w *World) ServeTCP(h *netlab.Host, address string, talk func(net.Conn) error) error {
	l, err := h.Listen("tcp", address)
	if err != nil {
		return err
	}
	w.Keep(serveTCP(l, talk))
	return nil
}

func echo(c net.Conn) error {
	_, err := io.Copy(c, c)
	return err
}

func digest(c net.Conn) error {
	sum, n, err := Digest(c)
	if err == nil {
		_, err = fmt.Fprintf(c, "%d %s\n", n, sum)
	}
	return err
}

func banner(c net.Conn) error {
	if _, err := fmt.Fprintln(c, Banner); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(c, 1024)).ReadString('\n')
	if err == nil {
		_, err = fmt.Fprintf(c, "you said %s", line)
	}
	return err
}

func reset(c net.Conn) error {
	var b [1]byte
	if _, err := c.Read(b[:]); err != nil {
		return err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return errors.New("not a TCP connection")
	}
	return tcp.SetLinger(0)
}

func (w *World) echoPackets(h *netlab.Host, address string) error {
	p, err := h.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	s := &packetEcho{PacketConn: p, done: make(chan struct{})}
	go s.run()
	w.Keep(s)
	return nil
}

type packetEcho struct {
	net.PacketConn
	done chan struct{}
}

func (s *packetEcho) run() {
	defer close(s.done)
	buf := make([]byte, 64<<10)
	for {
		n, from, err := s.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = s.WriteTo(buf[:n], from) // a datagram may get lost
	}
}

func (s *packetEcho) Close() error {
	err := s.PacketConn.Close()
	<-s.done
	return err
}
