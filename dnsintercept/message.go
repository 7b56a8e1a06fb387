package dnsintercept

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	headerLen = 12
	// minUDP is what every client takes over UDP, maxUDP the most we send
	// there whatever a client claims (RFC 6891, section 6.2.5).
	minUDP = 512
	maxUDP = 4096
	maxMsg = 65535

	typeIXFR dnsmessage.Type = 251

	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagCD = 1 << 4

	// rcodeBadVersion needs an OPT record: its upper bits live there.
	rcodeBadVersion dnsmessage.RCode = 16
)

// errSilent is for what deserves no answer: an answer to it might be answered.
var errSilent = errors.New("dnsintercept: not a query")

// refusalError is for what is answered with a code and nothing else.
type refusalError dnsmessage.RCode

func (e refusalError) Error() string {
	return "dnsintercept: query refused: " + dnsmessage.RCode(e).String()
}

// query is one question as it came. The question is kept as bytes, so that it
// is repeated exactly, case included: clients compare it (draft 0x20).
type query struct {
	msg  []byte // the whole message
	end  int    // of the question section
	last int    // where the last label begins; the root's when there is none

	// host is the name in lower case, labels joined by dots, without the
	// root's. dotted says that a label holds a dot of its own, so that host
	// reads as another name.
	host   string
	dotted bool
	kind   dnsmessage.Type
	class  dnsmessage.Class

	edns    bool
	version byte // of EDNS
	do      bool // DNSSEC wanted
	udpSize int  // what the client takes over UDP
}

// parseQuery reads msg, which the result goes on using.
func parseQuery(msg []byte) (*query, error) {
	if len(msg) < headerLen {
		return nil, errSilent
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	if flags&flagQR != 0 {
		return nil, errSilent
	}
	if flags>>11&0xf != 0 {
		return nil, refusalError(dnsmessage.RCodeNotImplemented)
	}
	if binary.BigEndian.Uint16(msg[4:]) != 1 {
		return nil, refusalError(dnsmessage.RCodeFormatError)
	}
	q := &query{msg: msg, udpSize: minUDP}
	if !q.parseQuestion() || !q.parseEDNS() {
		return nil, refusalError(dnsmessage.RCodeFormatError)
	}
	return q, nil
}

// parseQuestion reads the name itself: unlike dnsmessage it takes labels with
// dots, which service discovery uses, and it takes no compression, which has
// nothing to point at here.
func (q *query) parseQuestion() bool {
	var host strings.Builder
	at := headerLen
	for {
		if at >= len(q.msg) {
			return false
		}
		n := int(q.msg[at])
		if n == 0 {
			break
		}
		if n > 63 || at+1+n >= len(q.msg) {
			return false
		}
		q.last = at
		label := q.msg[at+1 : at+1+n]
		if host.Len() > 0 {
			host.WriteByte('.')
		}
		for _, c := range label {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			q.dotted = q.dotted || c == '.'
			host.WriteByte(c)
		}
		at += 1 + n
	}
	at++
	if at-headerLen > 255 || at+4 > len(q.msg) {
		return false
	}
	if q.last == 0 {
		q.last = headerLen
	}
	q.host = host.String()
	q.kind = dnsmessage.Type(binary.BigEndian.Uint16(q.msg[at:]))
	q.class = dnsmessage.Class(binary.BigEndian.Uint16(q.msg[at+2:]))
	q.end = at + 4
	return true
}

// parseEDNS looks for the one OPT record that a query may have.
func (q *query) parseEDNS() bool {
	var p dnsmessage.Parser
	if _, err := p.Start(q.msg); err != nil {
		return false
	}
	if p.SkipAllQuestions() != nil || p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return false
	}
	for {
		h, err := p.AdditionalHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return true
		}
		if err != nil || p.SkipAdditional() != nil {
			return false
		}
		if h.Type != dnsmessage.TypeOPT {
			continue
		}
		if q.edns || h.Name.String() != "." {
			return false
		}
		q.edns = true
		q.version = byte(h.TTL >> 16)
		q.do = h.DNSSECAllowed()
		q.udpSize = min(max(int(h.Class), minUDP), maxUDP)
	}
}

// record is a resource record that belongs to the question's name.
type record struct {
	kind dnsmessage.Type
	data []byte
}

// reply makes an answer of our own: rcode, at most one record, and otherwise
// the SOA of the zone whose name begins at offset zone of the query, which
// lets resolvers remember for ttl seconds that there is nothing (RFC 2308).
func (q *query) reply(rcode dnsmessage.RCode, answer *record, zone int, ttl uint32) []byte {
	var an, ns uint16
	if answer != nil {
		an = 1
	} else {
		ns = 1
	}
	msg := q.header(flagAA, rcode, an, ns)
	if answer != nil {
		msg = appendRecord(msg, headerLen, answer.kind, ttl, answer.data)
	} else {
		msg = appendRecord(msg, zone, dnsmessage.TypeSOA, ttl, soa(zone, ttl))
	}
	return q.appendOPT(msg, rcode)
}

// fail makes an answer without any record.
func (q *query) fail(rcode dnsmessage.RCode) []byte {
	return q.appendOPT(q.header(0, rcode, 0, 0), rcode)
}

// header begins an answer: header and question. The OPT record, which the
// counts already include, is for the caller to append last.
func (q *query) header(flags uint16, rcode dnsmessage.RCode, an, ns uint16) []byte {
	flags |= binary.BigEndian.Uint16(q.msg[2:])&(flagRD|flagCD) | flagQR | flagRA | uint16(rcode)&0xf
	msg := make([]byte, 0, minUDP)
	msg = append(msg, q.msg[:2]...)
	msg = binary.BigEndian.AppendUint16(msg, flags)
	msg = binary.BigEndian.AppendUint16(msg, 1)
	msg = binary.BigEndian.AppendUint16(msg, an)
	msg = binary.BigEndian.AppendUint16(msg, ns)
	var ar uint16
	if q.edns {
		ar = 1
	}
	msg = binary.BigEndian.AppendUint16(msg, ar)
	return append(msg, q.msg[headerLen:q.end]...)
}

// appendOPT answers EDNS with EDNS (RFC 6891, section 7).
func (q *query) appendOPT(msg []byte, rcode dnsmessage.RCode) []byte {
	if !q.edns {
		return msg
	}
	ttl := uint32(rcode) >> 4 << 24
	if q.do {
		ttl |= 1 << 15
	}
	msg = append(msg, 0)
	msg = binary.BigEndian.AppendUint16(msg, uint16(dnsmessage.TypeOPT))
	msg = binary.BigEndian.AppendUint16(msg, maxUDP)
	msg = binary.BigEndian.AppendUint32(msg, ttl)
	return binary.BigEndian.AppendUint16(msg, 0)
}

func appendPointer(b []byte, offset int) []byte {
	return binary.BigEndian.AppendUint16(b, 0xc000|uint16(offset))
}

func appendRecord(msg []byte, owner int, kind dnsmessage.Type, ttl uint32, data []byte) []byte {
	msg = appendPointer(msg, owner)
	msg = binary.BigEndian.AppendUint16(msg, uint16(kind))
	msg = binary.BigEndian.AppendUint16(msg, uint16(dnsmessage.ClassINET))
	msg = binary.BigEndian.AppendUint32(msg, ttl)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(data)))
	return append(msg, data...)
}

// soa says that nothing is there for ttl seconds. The zone itself stands for
// its server, and nobody for its keeper.
func soa(zone int, ttl uint32) []byte {
	data := appendPointer(nil, zone)
	data = appendName(data, "nobody.invalid")
	for _, n := range []uint32{1, 3600, 600, 86400, ttl} { // serial, refresh, retry, expire, minimum
		data = binary.BigEndian.AppendUint32(data, n)
	}
	return data
}

// appendName appends host, whose labels are known to be of 1 to 63 bytes.
func appendName(b []byte, host string) []byte {
	for label := range strings.SplitSeq(host, ".") {
		b = append(b, byte(len(label)))
		b = append(b, label...)
	}
	return append(b, 0)
}

// refusal answers what parseQuery refused, or is nil where silence is better.
func refusal(msg []byte, err error) []byte {
	var code refusalError
	if !errors.As(err, &code) {
		return nil
	}
	r := make([]byte, headerLen)
	copy(r, msg[:2])
	flags := binary.BigEndian.Uint16(msg[2:])
	// The operation is repeated, the counts are not: we could not read what
	// they count.
	binary.BigEndian.PutUint16(r[2:], flags&(0xf<<11|flagRD)|flagQR|flagRA|uint16(code))
	return r
}

// conform turns what an upstream sent into an answer to q: q's ID, and the
// question in q's case. It is nil when the answer is to something else.
func (q *query) conform(answer []byte) []byte {
	if len(answer) < headerLen || len(answer) > maxMsg || answer[2]&(flagQR>>8) == 0 {
		return nil
	}
	question := q.msg[headerLen:q.end]
	switch binary.BigEndian.Uint16(answer[4:]) {
	case 0: // servers that could not read the query leave it out
		if rcode := dnsmessage.RCode(answer[3] & 0xf); rcode != dnsmessage.RCodeSuccess {
			return q.fail(rcode)
		}
		return nil
	case 1:
	default:
		return nil
	}
	if len(answer) < q.end || !sameQuestion(answer[headerLen:q.end], question) {
		return nil
	}
	copy(answer, q.msg[:2])
	copy(answer[headerLen:], question)
	return answer
}

// sameQuestion compares two question sections, names without regard to case.
func sameQuestion(a, b []byte) bool {
	names := len(a) - 4
	if !bytes.Equal(a[names:], b[names:]) {
		return false
	}
	for i := range names {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

// truncated is answer, or when it is longer than the client takes over UDP, its
// head with the bit that makes the client ask again over TCP.
func (q *query) truncated(answer []byte) []byte {
	if len(answer) <= q.udpSize {
		return answer
	}
	msg := q.header(flagTC|binary.BigEndian.Uint16(answer[2:])&flagAA, dnsmessage.RCode(answer[3]&0xf), 0, 0)
	return q.appendOPT(msg, 0)
}
