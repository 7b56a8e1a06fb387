package leaktest

import (
	"errors"
	"net"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// sendOne makes a probe's socket and sends it. It never waits.
func (r *runner) sendOne(p *Probe) {
	fd, err := p.socket()
	if err != nil {
		p.Untried = err.Error()
		return
	}
	if err := p.prepare(fd); err != nil {
		unix.Close(fd)
		// A device without an address of the family has none that could leak.
		p.Untried = err.Error()
		return
	}
	to, err := sockaddr(p.To)
	if err == nil {
		err = p.emit(fd, to)
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		p.Refused = err.Error()
		unix.Close(fd)
		return
	}
	r.open = append(r.open, opened{p, fd})
}

func (p *Probe) socket() (int, error) {
	domain, kind, protocol := unix.AF_INET, unix.SOCK_DGRAM, 0
	if p.To.Addr().Is6() {
		domain = unix.AF_INET6
	}
	switch p.Transport {
	case "tcp":
		kind = unix.SOCK_STREAM
	case "icmp":
		kind, protocol = unix.SOCK_RAW, unix.IPPROTO_ICMP
		if domain == unix.AF_INET6 {
			protocol = unix.IPPROTO_ICMPV6
		}
	}
	return unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
}

// prepare gives the socket what its kind of probe has.
func (p *Probe) prepare(fd int) error {
	if p.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(p.Mark)); err != nil {
			return err
		}
	}
	if p.Device == "" {
		return nil
	}
	if p.Kind != KindSource {
		if err := unix.BindToDevice(fd, p.Device); err != nil {
			return err
		}
		if p.Kind == KindMulticast && p.To.Addr().Is4() {
			link, err := net.InterfaceByName(p.Device)
			if err != nil {
				return err
			}
			return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(link.Index)})
		}
		return nil
	}
	own, err := addressOf(p.Device, familyOf(p.To.Addr()))
	if err != nil {
		return err
	}
	from, err := sockaddr(netip.AddrPortFrom(own, 0))
	if err != nil {
		return err
	}
	return unix.Bind(fd, from)
}

// addressOf is a global address of a device.
func addressOf(device string, family int) (netip.Addr, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return netip.Addr{}, err
	}
	addrs, err := link.Addrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && familyOf(p.Addr()) == family && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, errors.New(device + " has no such address")
}

func sockaddr(a netip.AddrPort) (unix.Sockaddr, error) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	s := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		link, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, err
		}
		s.ZoneId = uint32(link.Index)
	}
	return s, nil
}

func (p *Probe) emit(fd int, to unix.Sockaddr) error {
	switch {
	case p.Transport == "tcp":
		return unix.Connect(fd, to)
	case p.Transport == "icmp":
		return unix.Sendto(fd, echoRequest(p.To.Addr(), p.token), 0, withoutPort(to))
	case p.Kind == KindDNS:
		query, err := question(p.token)
		if err != nil {
			return err
		}
		return unix.Sendto(fd, query, 0, to)
	}
	return unix.Sendto(fd, p.token, 0, to)
}

// withoutPort is for raw sockets, where a port would be a protocol.
func withoutPort(to unix.Sockaddr) unix.Sockaddr {
	switch to := to.(type) {
	case *unix.SockaddrInet4:
		to.Port = 0
	case *unix.SockaddrInet6:
		to.Port = 0
	}
	return to
}

// echoRequest is a ping (RFC 792, RFC 4443). The kernel fills in the checksum of
// the latter.
func echoRequest(to netip.Addr, payload []byte) []byte {
	b := append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, payload...)
	if to.Is6() {
		b[0] = 128
		return b
	}
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		word := uint32(b[i]) << 8
		if i+1 < len(b) {
			word |= uint32(b[i+1])
		}
		sum += word
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	b[2], b[3] = byte(^sum>>8), byte(^sum)
	return b
}

// question asks for a name that nobody has.
func question(token []byte) ([]byte, error) {
	name, err := dnsmessage.NewName(string(token) + ".example.")
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 0x6e77, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	return m.Pack()
}

// finish reads what became of a probe, and closes its socket.
func (o opened) finish() {
	defer unix.Close(o.fd)
	switch {
	case o.probe.Transport == "tcp":
		if code, err := unix.GetsockoptInt(o.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
			o.probe.Refused = unix.Errno(code).Error()
		}
	case o.probe.Kind == KindDNS:
		n, _, err := unix.Recvfrom(o.fd, make([]byte, 1500), unix.MSG_DONTWAIT)
		o.probe.Answered = err == nil && n > 0
	}
}
