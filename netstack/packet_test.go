package netstack

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/nws-vpn/nws-vpn/tun"
)

// ipPacket puts an IP header before a transport message.
func ipPacket(src, dst netip.Addr, protocol tcpip.TransportProtocolNumber, message []byte) []byte {
	if src.Is4() {
		h := header.IPv4(make([]byte, header.IPv4MinimumSize))
		h.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(h) + len(message)), TTL: 64, Protocol: uint8(protocol),
			SrcAddr: toGVisor(src), DstAddr: toGVisor(dst),
		})
		h.SetChecksum(^h.CalculateChecksum())
		return append(h, message...)
	}
	h := header.IPv6(make([]byte, header.IPv6MinimumSize))
	h.Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(message)), TransportProtocol: protocol, HopLimit: 64,
		SrcAddr: toGVisor(src), DstAddr: toGVisor(dst),
	})
	return append(h, message...)
}

// tcpPacket is a segment of a program, with its checksum.
func tcpPacket(src, dst netip.AddrPort, flags header.TCPFlags, payload []byte) []byte {
	h := header.TCP(make([]byte, header.TCPMinimumSize))
	h.Encode(&header.TCPFields{SrcPort: src.Port(), DstPort: dst.Port(), SeqNum: 7, Flags: flags,
		DataOffset: header.TCPMinimumSize, WindowSize: 1000})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, toGVisor(src.Addr()), toGVisor(dst.Addr()), uint16(len(h)+len(payload)))
	h.SetChecksum(^h.CalculateChecksum(checksum.Checksum(payload, sum)))
	return ipPacket(src.Addr(), dst.Addr(), header.TCPProtocolNumber, append(h, payload...))
}

func udpPacket(src, dst netip.AddrPort, payload []byte) []byte {
	h := header.UDP(make([]byte, header.UDPMinimumSize))
	length := uint16(len(h) + len(payload))
	h.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: length})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, toGVisor(src.Addr()), toGVisor(dst.Addr()), length)
	h.SetChecksum(^h.CalculateChecksum(checksum.Checksum(payload, sum)))
	return ipPacket(src.Addr(), dst.Addr(), header.UDPProtocolNumber, append(h, payload...))
}

// echoRequest asks whether dst is there.
func echoRequest(src, dst netip.Addr) []byte {
	if src.Is4() {
		h := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize))
		h.SetType(header.ICMPv4Echo)
		h.SetChecksum(^checksum.Checksum(h, 0))
		return ipPacket(src, dst, header.ICMPv4ProtocolNumber, h)
	}
	h := header.ICMPv6(make([]byte, header.ICMPv6EchoMinimumSize))
	h.SetType(header.ICMPv6EchoRequest)
	h.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: h, Src: toGVisor(src), Dst: toGVisor(dst)}))
	return ipPacket(src, dst, header.ICMPv6ProtocolNumber, h)
}

var (
	app4 = netip.AddrPortFrom(program4, 4000)
	app6 = netip.AddrPortFrom(program6, 4000)
)

// acceptAll echoes everything.
func acceptAll() Handler {
	return handlerFuncs{udp: udpEcho, ping: pingEcho, tcp: func(_ context.Context, r *TCPRequest) {
		if c, err := r.Accept(); err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}}
}

// probe is a stack whose device the test reads and writes itself.
type probe struct {
	stack  *Stack
	device tun.Device
	sent   chan []byte // by the stack
}

func newProbe(t testing.TB, h Handler, opts Options) *probe {
	t.Helper()
	inside, outside := tun.Pipe(1500)
	s, err := New(inside, h, opts)
	if err != nil {
		t.Fatal(err)
	}
	p := &probe{stack: s, device: outside, sent: make(chan []byte, 1000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, tun.MaxPacket+1)
		for {
			n, _, err := outside.ReadPacket([][]byte{buf})
			if err != nil {
				return
			}
			select {
			case p.sent <- bytes.Clone(buf[:n]):
			default:
			}
		}
	}()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		outside.Close()
		<-ended
	})
	return p
}

func (p *probe) write(t *testing.T, packet []byte) {
	t.Helper()
	if err := p.device.WritePacket(tun.Header{}, [][]byte{packet}); err != nil {
		t.Fatal(err)
	}
}

// The order of packets makes silence testable: what was to be ignored has been,
// once the question after it is answered.
func (p *probe) expectOnlyAnswerTo(t *testing.T, from, to netip.AddrPort) {
	t.Helper()
	p.write(t, udpPacket(from, to, []byte("last")))
	got := take(t, p.sent)
	if want := udpPacket(to, from, []byte("last")); len(got) != len(want) || !bytes.Equal(got[len(got)-4:], want[len(want)-4:]) {
		t.Errorf("the stack sent %x", got)
	}
}

func TestStackIsSilentUnlessAsked(t *testing.T) {
	p := newProbe(t, acceptAll(), Options{})
	multicast := netip.MustParseAddrPort("224.0.0.251:5353")
	broadcast := netip.MustParseAddrPort("255.255.255.255:67")
	ignored := map[string][]byte{
		"echo checksum":   corrupt(echoRequest(program4, server4.Addr())),
		"echo 6 checksum": corrupt(echoRequest(program6, server6.Addr())),
		"echo 4 over 6":   ipPacket(program6, server6.Addr(), header.ICMPv4ProtocolNumber, make([]byte, 8)),
		"echo reply":      retyped(echoRequest(program4, server4.Addr()), byte(header.ICMPv4EchoReply)),
		"timestamp":       retyped(echoRequest(program4, server4.Addr()), byte(header.ICMPv4Timestamp)),
		"solicitation":    retyped(echoRequest(program6, server6.Addr()), byte(header.ICMPv6NeighborSolicit)),
		"router":          retyped(echoRequest(program6, server6.Addr()), byte(header.ICMPv6RouterSolicit)),
		"half an echo":    fragment(echoRequest(program4, server4.Addr())),
		"echo to many":    echoRequest(program4, multicast.Addr()),
		"short echo":      ipPacket(program4, server4.Addr(), header.ICMPv4ProtocolNumber, []byte{8, 0, 0xf7, 0xff}),
		"short echo IPv6": ipPacket(program6, server6.Addr(), header.ICMPv6ProtocolNumber, []byte{128, 0, 0, 0}),
		"hidden echo":     hopByHop(echoRequest(program6, server6.Addr())),
		"other protocol":  ipPacket(program4, server4.Addr(), 47, []byte("GRE")),
		"multicast":       udpPacket(app4, multicast, []byte("x")),
		"broadcast":       udpPacket(app4, broadcast, []byte("x")),
		"SYN to many":     tcpPacket(app4, multicast, header.TCPFlagSyn, nil),
		"from many":       udpPacket(multicast, server4, []byte("x")),
		"loopback":        udpPacket(app4, netip.MustParseAddrPort("127.0.0.1:53"), []byte("x")),
		"unspecified":     udpPacket(app6, netip.MustParseAddrPort("[::]:53"), []byte("x")),
		"UDP checksum":    corrupt(udpPacket(app4, server4, []byte("x"))),
		"SYN checksum":    corrupt(tcpPacket(app4, server4, header.TCPFlagSyn, []byte("x"))),
		"IP version":      bytes.Repeat([]byte{0x90}, 60),
		"empty":           {},
		"one byte":        {0x45},
		"short IPv4":      echoRequest(program4, server4.Addr())[:19],
		"short IPv6":      echoRequest(program6, server6.Addr())[:39],
		"short TCP":       ipPacket(program4, server4.Addr(), header.TCPProtocolNumber, make([]byte, 19)),
		"short UDP":       ipPacket(program6, server6.Addr(), header.UDPProtocolNumber, make([]byte, 7)),
		"reset":           tcpPacket(app4, server4, header.TCPFlagRst, nil),
		"reset and SYN":   tcpPacket(app4, server4, header.TCPFlagRst|header.TCPFlagSyn, nil),
		"fragment":        fragment(udpPacket(app4, server4, make([]byte, 64))),
		"TCP header size": badOffset(tcpPacket(app6, server6, header.TCPFlagSyn, nil)),
	}
	for name, packet := range ignored {
		t.Run(name, func(t *testing.T) {
			p.write(t, packet)
			p.expectOnlyAnswerTo(t, app4, server4)
			p.expectOnlyAnswerTo(t, app6, server6)
		})
	}
}

// retyped is an ICMP message of another type.
func retyped(packet []byte, kind byte) []byte {
	if packet[0]>>4 == header.IPv4Version {
		m := header.ICMPv4(packet[header.IPv4MinimumSize:])
		m.SetType(header.ICMPv4Type(kind))
		m.SetChecksum(0)
		m.SetChecksum(^checksum.Checksum(m, 0))
		return packet
	}
	h, m := header.IPv6(packet), header.ICMPv6(packet[header.IPv6MinimumSize:])
	m.SetType(header.ICMPv6Type(kind))
	m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: h.SourceAddress(), Dst: h.DestinationAddress()}))
	return packet
}

func corrupt(packet []byte) []byte {
	packet[len(packet)-1] ^= 1
	return packet
}

func fragment(packet []byte) []byte {
	h := header.IPv4(packet)
	h.SetFlagsFragmentOffset(header.IPv4FlagMoreFragments, 0)
	h.SetChecksum(0)
	h.SetChecksum(^h.CalculateChecksum())
	return packet
}

func badOffset(packet []byte) []byte {
	packet[header.IPv6MinimumSize+header.TCPDataOffset] = 4 << 4
	return packet
}

// hopByHop puts an empty hop-by-hop header before the packet's message.
func hopByHop(packet []byte) []byte {
	h := header.IPv6(packet[:header.IPv6MinimumSize])
	extension := []byte{h.NextHeader(), 0, 1, 4, 0, 0, 0, 0}
	h.SetNextHeader(0)
	h.SetPayloadLength(h.PayloadLength() + uint16(len(extension)))
	return append(h, append(extension, packet[header.IPv6MinimumSize:]...)...)
}

// A repeated SYN of a connection that is being dialled is not another one.
func TestRepeatedSYNIsOneRequest(t *testing.T) {
	requests := make(chan *TCPRequest, 10)
	p := newProbe(t, handlerFuncs{udp: udpEcho, tcp: func(ctx context.Context, r *TCPRequest) {
		requests <- r
		<-ctx.Done()
	}}, Options{})
	for range 3 {
		p.write(t, tcpPacket(app4, server4, header.TCPFlagSyn, nil))
	}
	p.expectOnlyAnswerTo(t, app4, server4)
	if r := take(t, requests); r.Source() != app4 || r.Destination() != server4 {
		t.Errorf("request from %s to %s", r.Source(), r.Destination())
	}
	if len(requests) > 0 {
		t.Error("there is a second request")
	}
}

// The quote in an ICMP error is what tells a kernel which connection is meant.
func TestUnreachableQuotesThePacket(t *testing.T) {
	for _, way := range []struct{ from, to netip.AddrPort }{{app4, server4}, {app6, server6}} {
		syn := tcpPacket(way.from, way.to, header.TCPFlagSyn, nil)
		p := newProbe(t, handlerFuncs{tcp: func(_ context.Context, r *TCPRequest) {
			r.Reject(context.DeadlineExceeded)
		}}, Options{})
		p.write(t, syn)
		for range 2 { // the second time for sockets that were busy
			got := take(t, p.sent)
			headers := len(syn) - header.TCPMinimumSize + header.ICMPv4MinimumSize
			if quote := syn[:len(syn)-header.TCPMinimumSize+quotedTransport]; !bytes.Equal(got[headers:], quote) {
				t.Errorf("quoted %x, want %x", got[headers:], quote)
			}
		}
	}
}

// Whatever the device brings, nothing breaks.
func FuzzPacket(f *testing.F) {
	for _, way := range []struct{ from, to netip.AddrPort }{{app4, server4}, {app6, server6}} {
		syn := tcpPacket(way.from, way.to, header.TCPFlagSyn, nil)
		f.Add(syn, []byte(nil))
		f.Add(syn, tcpPacket(way.from, way.to, header.TCPFlagAck, []byte("data")))
		f.Add(syn, tcpPacket(way.from, way.to, header.TCPFlagRst|header.TCPFlagAck, nil))
		f.Add(syn, tcpPacket(way.from, way.to, header.TCPFlagFin|header.TCPFlagAck, nil))
		f.Add(udpPacket(way.from, way.to, []byte("datagram")), udpPacket(way.to, way.from, nil))
		f.Add(echoRequest(way.from.Addr(), way.to.Addr()), []byte{0x60})
		f.Add(echoRequest(way.from.Addr(), way.to.Addr()), retyped(echoRequest(way.to.Addr(), way.from.Addr()), 3))
	}
	f.Add(fragment(echoRequest(program4, server4.Addr())), hopByHop(echoRequest(program6, server6.Addr())))
	f.Add(fragment(udpPacket(app4, server4, make([]byte, 64))), []byte{0x45})
	f.Add(hopByHop(udpPacket(app6, server6, nil)), bytes.Repeat([]byte{0x4f}, 60))
	p := newProbe(f, acceptAll(), Options{MaxPending: 16, MaxTCPFlows: 64, MaxUDPFlows: 64, UDPIdle: 10 * time.Millisecond,
		MaxPingFlows: 64, PingIdle: 10 * time.Millisecond})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for _, packet := range [][]byte{first, second} {
			if len(packet) > tun.MaxPacket {
				continue
			}
			parsePacket(packet)
			// Verified or not, so that the checksums do not keep all out.
			for _, h := range []tun.Header{{}, {ChecksumValid: true}} {
				p.stack.link.deliver(bytes.Clone(packet), buffer.MakeWithData(packet), h)
			}
		}
	})
}

func TestPartsOfAPacketAreWrittenInOrder(t *testing.T) {
	for _, n := range []int{1, 3, maxParts, maxParts + 10} {
		var want []byte
		var payload buffer.Buffer
		for i := range n {
			part := bytes.Repeat([]byte{byte(i)}, 64) // views of a full chunk are not merged
			want = append(want, part...)
			payload.Append(buffer.NewViewWithData(part))
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 20, Payload: payload})
		copy(pkt.TransportHeader().Push(8), "header--")
		var w packetWriter
		a, b := tun.Pipe(tun.MaxPacket)
		if err := w.write(a, pkt); err != nil {
			t.Fatal(err)
		}
		pkt.DecRef()
		got := make([]byte, tun.MaxPacket)
		size, _, err := b.ReadPacket([][]byte{got})
		if err != nil || !bytes.Equal(got[:size], append([]byte("header--"), want...)) {
			t.Errorf("%d parts: %d bytes, %v", n, size, err)
		}
	}
}
