package platform

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// term is a part of a packet filter's rule: a condition or what is done, as the
// nft program writes it and as the kernel takes it.
type term struct {
	text  string
	exprs []expr.Any
}

// filterRule is a rule: its terms, in order.
type filterRule []term

func line(terms ...term) filterRule { return terms }

func (r filterRule) String() string {
	texts := make([]string, len(r))
	for i, t := range r {
		texts[i] = t.text
	}
	return strings.Join(texts, " ")
}

func (r filterRule) exprs() []expr.Any {
	var all []expr.Any
	for _, t := range r {
		all = append(all, t.exprs...)
	}
	return all
}

// Verdicts.
var (
	accept = term{"accept", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
	drop   = term{"drop", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}
)

func jump(chain string) term {
	return term{"jump " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

// The program that sent it is told at once: by a reset, or by an ICMP message.
var (
	rejectReset = term{"reject with tcp reset", []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}}
	rejectICMP  = term{"reject with icmpx admin-prohibited", []expr.Any{
		&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}}
	masquerade = term{"masquerade", []expr.Any{&expr.Masq{}}}
)

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func meta(key expr.MetaKey, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

func deviceName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func iif(name string) term {
	return term{fmt.Sprintf("iifname %q", name), meta(expr.MetaKeyIIFNAME, expr.CmpOpEq, deviceName(name))}
}

func iifNot(name string) term {
	return term{fmt.Sprintf("iifname != %q", name), meta(expr.MetaKeyIIFNAME, expr.CmpOpNeq, deviceName(name))}
}

func oif(name string) term {
	return term{fmt.Sprintf("oifname %q", name), meta(expr.MetaKeyOIFNAME, expr.CmpOpEq, deviceName(name))}
}

func oifNot(name string) term {
	return term{fmt.Sprintf("oifname != %q", name), meta(expr.MetaKeyOIFNAME, expr.CmpOpNeq, deviceName(name))}
}

func ofUser(uid uint32) term {
	return term{fmt.Sprintf("meta skuid %d", uid), meta(expr.MetaKeySKUID, expr.CmpOpEq, native32(uid))}
}

// ofAnyUser matches what a program's socket sends, and not what the kernel does
// by itself: that has no user to compare.
var ofAnyUser = term{"meta skuid >= 0", meta(expr.MetaKeySKUID, expr.CmpOpGte, native32(0))}

func protocolIs(proto byte, name string) term {
	return term{"meta l4proto " + name, meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{proto})}
}

var (
	isTCP    = protocolIs(unix.IPPROTO_TCP, "tcp")
	isUDP    = protocolIs(unix.IPPROTO_UDP, "udp")
	isICMP   = protocolIs(unix.IPPROTO_ICMP, "icmp")
	isICMPv6 = protocolIs(unix.IPPROTO_ICMPV6, "ipv6-icmp")
)

func isFamily(family int) term {
	if family == 6 {
		return term{"meta nfproto ipv6", meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{unix.NFPROTO_IPV6})}
	}
	return term{"meta nfproto ipv4", meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{unix.NFPROTO_IPV4})}
}

// masked compares some bits of what load puts into register 1.
func masked(load expr.Any, value, mask uint32) []expr.Any {
	return []expr.Any{load,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native32(mask), Xor: native32(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native32(value)}}
}

// replaced puts value into the bits of mask and leaves the others, which are
// other programs', as they are.
func replaced(load, store expr.Any, value, mask uint32) []expr.Any {
	return []expr.Any{load,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native32(^mask), Xor: native32(value)},
		store}
}

func markIs(value, mask uint32) term {
	return term{fmt.Sprintf("meta mark & %#x == %#x", mask, value), masked(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, value, mask)}
}

func setMark(value, mask uint32) term {
	return term{fmt.Sprintf("meta mark set meta mark & %#x ^ %#x", ^mask, value),
		replaced(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1}, value, mask)}
}

func flowMarkIs(value, mask uint32) term {
	return term{fmt.Sprintf("ct mark & %#x == %#x", mask, value), masked(&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, value, mask)}
}

func setFlowMark(value, mask uint32) term {
	return term{fmt.Sprintf("ct mark set ct mark & %#x ^ %#x", ^mask, value),
		replaced(&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, &expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: 1}, value, mask)}
}

func direction(name string, value byte) term {
	return term{"ct direction " + name, []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{value}}}}
}

var (
	original = direction("original", 0)
	reply    = direction("reply", 1)
)

func state(name string, bit uint32) term {
	return term{"ct state " + name, []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native32(bit), Xor: native32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native32(0)}}}
}

var (
	isNew     = state("new", expr.CtStateBitNEW)
	isRelated = state("related", expr.CtStateBitRELATED)
)

// toUs matches what comes to one of the machine's own addresses.
var toUs = term{"fib daddr type local", []expr.Any{&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
	&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native32(unix.RTN_LOCAL)}}}

func payload(base expr.PayloadBase, offset uint32, data []byte) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: uint32(len(data))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

// address matches a network in the source or the destination, family included.
func address(which string, p netip.Prefix) term {
	p = p.Masked()
	family, name := isFamily(4), "ip"
	offset := map[string]uint32{"saddr": 12, "daddr": 16}[which]
	if p.Addr().Is6() {
		family, name = isFamily(6), "ip6"
		offset = map[string]uint32{"saddr": 8, "daddr": 24}[which]
	}
	want := p.Addr().AsSlice()
	exprs := append([]expr.Any{}, family.exprs...)
	exprs = append(exprs, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(want))})
	text := p.Addr().String()
	if !p.IsSingleIP() {
		text = p.String()
		mask := make([]byte, len(want))
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		exprs = append(exprs, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(want)), Mask: mask, Xor: make([]byte, len(want))})
	}
	exprs = append(exprs, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: want})
	return term{fmt.Sprintf("%s %s %s", name, which, text), exprs}
}

func from(p netip.Prefix) term { return address("saddr", p) }
func to(p netip.Prefix) term   { return address("daddr", p) }

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// fromPort and toPort match TCP and UDP; the protocol is another term's.
func fromPort(port uint16) term {
	return term{fmt.Sprintf("th sport %d", port), payload(expr.PayloadBaseTransportHeader, 0, binaryutil.BigEndian.PutUint16(port))}
}

func toPort(port uint16) term {
	return term{fmt.Sprintf("th dport %d", port), payload(expr.PayloadBaseTransportHeader, 2, binaryutil.BigEndian.PutUint16(port))}
}

// opensNot matches a TCP packet that does not open a connection.
var opensNot = term{"tcp flags & (syn | ack) != syn", []expr.Any{
	&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
	&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x12}, Xor: []byte{0}},
	&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0x02}}}}

// resets matches a TCP packet that ends a connection by force.
var resets = term{"tcp flags & rst == rst", []expr.Any{
	&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
	&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x04}, Xor: []byte{0}},
	&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x04}}}}

// Messages that a destination cannot be reached.
var (
	icmpError4 = term{"icmp type destination-unreachable", payload(expr.PayloadBaseTransportHeader, 0, []byte{3})}
	icmpError6 = icmpv6Type(1, "destination-unreachable")
)

func icmpv6Type(t byte, name string) term {
	return term{"icmpv6 type " + name, payload(expr.PayloadBaseTransportHeader, 0, []byte{t})}
}

// fromHere matches a hop limit of 255: no router has forwarded it, and none
// will.
var fromHere = term{"ip6 hoplimit 255", payload(expr.PayloadBaseNetworkHeader, 7, []byte{255})}

func ofCgroup(c cgroup) term {
	id := binary.NativeEndian.AppendUint64(nil, c.ID)
	return term{fmt.Sprintf("socket cgroupv2 level %d %q", c.Level, strings.TrimPrefix(c.Path, "/")), []expr.Any{
		&expr.Socket{Key: expr.SocketKeyCgroupv2, Level: c.Level, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: id}}}
}
