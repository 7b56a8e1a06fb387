package test

import (
	endian "encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nws-vpn/nws-vpn/internal/netlab"
	"github.com/nws-vpn/nws-vpn/internal/netlab/world"
	"github.com/nws-vpn/nws-vpn/platform"
)

// probe is one way in which a program may try to get a packet out.
type probe struct {
	name string
	kind int // of socket: unix.SOCK_STREAM, SOCK_DGRAM or SOCK_RAW
	to   netip.AddrPort
	as   netlab.User // root, or somebody else
	host func(*tunnel) *netlab.Host
	// protocol of a raw socket; ICMP echoes are made for ICMP's.
	protocol int
	size     int // of the datagram, if not short
	prepare  []setting
	control  []byte // for sendmsg
}

// setting is done to a probe's socket before it sends.
type setting func(fd int) error

// probeText is in every datagram.
const probeText = "probe-of-the-leak-tests"

// send makes a socket as the probe's user on a thread in the client and sends.
// It does not wait for an answer.
func (p probe) send(tun *tunnel) error {
	h := tun.Client
	if p.host != nil {
		h = p.host(tun)
	}
	if p.as.ID == 0 {
		return h.Do(p.sendHere)
	}
	return h.DoAs(p.as, p.sendHere)
}

func (p probe) sendHere() error {
	domain := unix.AF_INET
	if p.to.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, p.kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, p.protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, set := range p.prepare {
		if err := set(fd); err != nil {
			return err
		}
	}
	if p.kind == unix.SOCK_STREAM {
		// A connection that is made all the same leaves nothing behind.
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
		// The SYN is on the wire, if it ever gets there, when connect returns.
		if err := unix.Connect(fd, netlab.Sockaddr(p.to)); err != unix.EINPROGRESS {
			return err
		}
		return nil
	}
	return unix.Sendmsg(fd, p.payload(), p.control, netlab.Sockaddr(p.to), 0)
}

// sends reports whether a packet is the probe's.
func (p probe) sends(packet netlab.Packet) bool {
	to := netip.AddrPortFrom(p.to.Addr().WithZone(""), p.to.Port())
	if packet.Destination != to {
		return false
	}
	if p.kind == unix.SOCK_STREAM {
		const flags, syn = 13, 2
		header := 20
		if to.Addr().Is6() {
			header = 40
		}
		return packet.Protocol == unix.IPPROTO_TCP && len(packet.Data) > header+flags && packet.Data[header+flags] == syn|0xc0&packet.Data[header+flags]
	}
	return packet.Protocol != unix.IPPROTO_TCP
}

func (p probe) payload() []byte {
	text := []byte(probeText)
	if p.size > 0 {
		text = []byte(strings.Repeat(probeText, p.size/len(probeText)+1)[:p.size])
	}
	switch {
	case p.protocol == unix.IPPROTO_ICMP && p.kind == unix.SOCK_RAW:
		packet := netlab.ForgeIP(p.to.Addr(), p.to.Addr(), unix.IPPROTO_ICMP, 64, append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, text...))
		return packet[20:]
	case p.protocol == unix.IPPROTO_ICMPV6:
		return append([]byte{128, 0, 0, 0, 0, 1, 0, 1}, text...) // the kernel adds the checksum
	case p.protocol == unix.IPPROTO_RAW:
		return netlab.ForgeUDP(netip.MustParseAddrPort(world.ClientIP+":4444"), p.to, text)
	}
	return text
}

func toDevice(name string) setting {
	return func(fd int) error { return unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, name) }
}

func marked(mark int) setting {
	return func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark) }
}

func option(level, name, value int) setting {
	return func(fd int) error { return unix.SetsockoptInt(fd, level, name, value) }
}

func from(address string) setting {
	return func(fd int) error { return unix.Bind(fd, netlab.Sockaddr(netip.MustParseAddrPort(address))) }
}

// Who sends.
var (
	nobody    = netlab.User{ID: 65534}
	rawNobody = netlab.User{ID: 65534, Capabilities: []int{unix.CAP_NET_RAW}}
)

func udp(name, to string, prepare ...setting) probe {
	return probe{name: name, kind: unix.SOCK_DGRAM, to: netip.MustParseAddrPort(to), prepare: prepare}
}

func tcp(name, to string, prepare ...setting) probe {
	return probe{name: name, kind: unix.SOCK_STREAM, to: netip.MustParseAddrPort(to), prepare: prepare}
}

func ping(name, to string, prepare ...setting) probe {
	a := netip.MustParseAddr(to)
	p := probe{name: name, kind: unix.SOCK_RAW, to: netip.AddrPortFrom(a, 0), protocol: unix.IPPROTO_ICMP, prepare: prepare}
	if a.Is6() {
		p.protocol = unix.IPPROTO_ICMPV6
	}
	return p
}

func (p probe) by(who netlab.User, name string) probe {
	p.as, p.name = who, p.name+" "+name
	return p
}

const (
	web4 = world.WebIP + ":7"
	web6 = "[" + world.WebIP6 + "]:7"
)

// plainProbes are what programs do all day.
func plainProbes() []probe {
	long := func(p probe) probe { p.size = 4000; return p }
	return []probe{
		udp("UDP", web4), udp("UDP on IPv6", web6),
		tcp("TCP", web4), tcp("TCP on IPv6", web6),
		ping("ping", world.WebIP), ping("ping on IPv6", world.WebIP6),
		long(udp("UDP in fragments", web4)), long(udp("UDP in fragments on IPv6", web6)),
		udp("UDP elsewhere", "192.0.2.7:9"),
		udp("a host beyond the router", world.ExitIP+":9"), tcp("TCP to a host beyond the router", world.ExitIP+":9"),
		udp("the router", world.RouterIP+":9"), tcp("TCP to the router", world.RouterIP+":9"),
		udp("the router on IPv6", "["+world.RouterIP6+"]:9"),
		udp("plain UDP by nobody", web4).by(nobody, ""), tcp("plain TCP by nobody", web6).by(nobody, ""),
	}
}

// dnsProbes are questions to every resolver there might be.
func dnsProbes(link int) []probe {
	zone := fmt.Sprint("%", link)
	group4 := option(unix.SOL_IP, unix.IP_MULTICAST_TTL, 255)
	via4 := func(fd int) error {
		return unix.SetsockoptIPMreqn(fd, unix.SOL_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(link)})
	}
	via6 := option(unix.SOL_IPV6, unix.IPV6_MULTICAST_IF, link)
	return []probe{
		udp("DNS to the network's resolver", world.RouterIP+":53"), tcp("DNS over TCP to the network's resolver", world.RouterIP+":53"),
		udp("DNS to 8.8.8.8", "8.8.8.8:53"), tcp("DNS over TCP to 8.8.8.8", "8.8.8.8:53"),
		udp("DNS on IPv6", "["+world.DNSIP6+"]:53"), tcp("DNS over TCP on IPv6", "["+world.DNSIP6+"]:53"),
		udp("DNS to the router on IPv6", "["+world.RouterIP6+"]:53"),
		tcp("DNS over TLS", world.DNSIP+":853"), udp("DNS over QUIC", world.DNSIP+":853"),
		udp("mDNS", "224.0.0.251:5353", via4, group4), udp("LLMNR", "224.0.0.252:5355", via4),
		udp("mDNS on IPv6", "[ff02::fb"+zone+"]:5353", via6), udp("LLMNR on IPv6", "[ff02::1:3"+zone+"]:5355", via6),
		udp("DNS bound to the device", "8.8.8.8:53", toDevice("eth0")),
		udp("NetBIOS names", "10.77.1.255:137", option(unix.SOL_SOCKET, unix.SO_BROADCAST, 1)),
	}
}

// groupProbes are multicast and broadcast.
func groupProbes(link int) []probe {
	zone := fmt.Sprint("%", link)
	via4 := func(fd int) error {
		return unix.SetsockoptIPMreqn(fd, unix.SOL_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(link)})
	}
	via6 := option(unix.SOL_IPV6, unix.IPV6_MULTICAST_IF, link)
	broadcast := option(unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	return []probe{
		udp("SSDP", "239.255.255.250:1900", via4), udp("SSDP on IPv6", "[ff02::c"+zone+"]:1900", via6),
		udp("multicast beyond the link", "[ff0e::101"+zone+"]:9", via6), udp("multicast without a device", "239.1.2.3:9"),
		udp("broadcast", "255.255.255.255:9", broadcast, toDevice("eth0")), udp("broadcast on the network", "10.77.1.255:9", broadcast),
		udp("all nodes", "[ff02::1"+zone+"]:9", via6), ping("ping all nodes", "ff02::1"+zone, via6),
	}
}

// boundProbes name the uplink themselves. linkLocal is the router's address on
// it.
func boundProbes(link int, linkLocal netip.Addr) []probe {
	zone := fmt.Sprint("%", link)
	index := int(endian.NativeEndian.Uint32(endian.BigEndian.AppendUint32(nil, uint32(link))))
	uplink := toDevice("eth0")
	raw := probe{name: "raw IP", kind: unix.SOCK_RAW, protocol: unix.IPPROTO_RAW, to: netip.MustParseAddrPort(web4)}
	rawBound := raw
	rawBound.name, rawBound.prepare = "raw IP bound to the device", []setting{uplink}
	gre := probe{name: "another protocol bound to the device", kind: unix.SOCK_RAW, protocol: unix.IPPROTO_GRE, to: netip.AddrPortFrom(netip.MustParseAddr(world.WebIP), 0), prepare: []setting{uplink}}
	info4 := udp("packet info", web4)
	info4.control = controlMessage(unix.SOL_IP, unix.IP_PKTINFO, uint32(link), 0, 0)
	info6 := udp("packet info on IPv6", web6)
	info6.control = controlMessage(unix.SOL_IPV6, unix.IPV6_PKTINFO, 0, 0, 0, 0, uint32(link))
	list := []probe{
		udp("UDP bound to the device", web4, uplink), udp("UDP on IPv6 bound to the device", web6, uplink),
		tcp("TCP bound to the device", web4, uplink), tcp("TCP on IPv6 bound to the device", web6, uplink),
		ping("ping bound to the device", world.WebIP, uplink), ping("ping on IPv6 bound to the device", world.WebIP6, uplink),
		udp("UDP from the uplink's address", web4, from(world.ClientIP+":0")), udp("UDP on IPv6 from the uplink's address", web6, from("["+world.ClientIP6+"]:0")),
		tcp("TCP from the uplink's address", web4, from(world.ClientIP+":0")), tcp("TCP on IPv6 from the uplink's address", web6, from("["+world.ClientIP6+"]:0")),
		udp("IP_UNICAST_IF", web4, option(unix.SOL_IP, unix.IP_UNICAST_IF, index)),
		udp("IPV6_UNICAST_IF", web6, option(unix.SOL_IPV6, unix.IPV6_UNICAST_IF, index)),
		udp("SO_DONTROUTE", world.RouterIP+":9", option(unix.SOL_SOCKET, unix.SO_DONTROUTE, 1)),
		udp("a neighbour's link-local address", "["+linkLocal.String()+zone+"]:9"),
		raw, rawBound, gre, info4, info6,
	}
	for _, p := range slices.Clone(list[:4]) {
		list = append(list, p.by(nobody, "by nobody"), p.by(rawNobody, "by nobody with CAP_NET_RAW"))
	}
	return append(list, raw.by(rawNobody, "by nobody with CAP_NET_RAW"))
}

// controlMessage is one for sendmsg.
func controlMessage(level, kind int, words ...uint32) []byte {
	data := make([]byte, 0, 4*len(words))
	for _, w := range words {
		data = endian.NativeEndian.AppendUint32(data, w)
	}
	b := make([]byte, unix.CmsgSpace(len(data)))
	endian.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
	endian.NativeEndian.PutUint32(b[8:], uint32(level))
	endian.NativeEndian.PutUint32(b[12:], uint32(kind))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

// markProbes forge the mark of the tunnel's own connections.
func markProbes() []probe {
	mark := marked(platform.DefaultMark)
	list := []probe{
		udp("UDP with the mark", web4, mark), udp("UDP on IPv6 with the mark", web6, mark),
		tcp("TCP with the mark", web4, mark), tcp("TCP on IPv6 with the mark", web6, mark),
		ping("ping with the mark", world.WebIP, mark),
		udp("DNS with the mark", world.RouterIP+":53", mark),
		udp("UDP with the mark and bound to the device", web4, mark, toDevice("eth0")),
	}
	for i := range list {
		list[i] = list[i].by(rawNobody, "by nobody with CAP_NET_RAW")
	}
	return list
}

// mayMark reports whether a user may set the mark.
func (tun *tunnel) mayMark(who netlab.User) bool {
	err := udp("", web4, marked(platform.DefaultMark)).by(who, "").send(tun)
	return !errors.Is(err, unix.EPERM)
}
