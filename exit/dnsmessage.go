package exit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	dnsHeader    = 12
	responseBit  = 0x80 // in byte 2 of a message
	truncatedBit = 0x02
)

// Zone transfers are many messages long and nothing that a stranger needs.
const typeIXFR dnsmessage.Type = 251

// query is one question as the exit forwards it.
type query struct {
	raw      []byte // the whole message
	header   dnsmessage.Header
	question dnsmessage.Question
	asked    bool // question is set
	dnssec   bool // the client wants signatures (the DO bit of EDNS)

	// local marks a query that is not forwarded but answered with rcode.
	local bool
	rcode dnsmessage.RCode
}

// parseQuery reads what a client sent. An error means that it is no query at
// all and gets no answer. What is one but must not be passed on is marked
// local: updates and notifies, which would reach the operator's own servers in
// the exit's name, zone transfers, and names that exist only outside the DNS.
func parseQuery(raw []byte) (query, error) {
	var p dnsmessage.Parser
	header, err := p.Start(raw)
	if err != nil {
		return query{}, fmt.Errorf("exit: dns query: %w", err)
	}
	if header.Response {
		return query{}, errors.New("exit: dns query: it is an answer")
	}
	q := query{raw: raw, header: header, local: true}
	if header.OpCode != 0 {
		q.rcode = dnsmessage.RCodeNotImplemented
		return q, nil
	}
	q.rcode = dnsmessage.RCodeFormatError
	if count := binary.BigEndian.Uint16(raw[4:]); count != 1 || len(raw) > maxQuery {
		return q, nil
	}
	if q.question, err = p.Question(); err != nil {
		return q, nil
	}
	q.asked = true
	q.dnssec = wantsSignatures(&p)
	switch {
	case q.question.Type == dnsmessage.TypeAXFR, q.question.Type == typeIXFR:
		q.rcode = dnsmessage.RCodeRefused
	case isLocalName(q.question.Name.String()):
		q.rcode = dnsmessage.RCodeNameError
	default:
		q.local = false
	}
	return q, nil
}

// wantsSignatures looks for the DO bit in the additional records of a query
// whose question was read.
func wantsSignatures(p *dnsmessage.Parser) bool {
	if p.SkipAllQuestions() != nil || p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return false
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return false
		}
		if h.Type == dnsmessage.TypeOPT {
			return h.DNSSECAllowed()
		}
		if p.SkipAdditional() != nil {
			return false
		}
	}
}

// isLocalName reports whether fqdn must never be asked of a name server:
// exits' names, and RFC 6761's and RFC 7686's.
func isLocalName(fqdn string) bool {
	host := strings.ToLower(strings.TrimSuffix(fqdn, "."))
	top := host[strings.LastIndexByte(host, '.')+1:]
	return top == "nostr" || top == "onion" || top == "localhost"
}

// newQuery asks for host's records of type t, with an answer of up to 1,232
// bytes (EDNS, RFC 6891).
func newQuery(host string, t dnsmessage.Type) (query, error) {
	name, err := dnsmessage.NewName(host + ".")
	if err != nil {
		return query{}, fmt.Errorf("exit: dns query: %w", err)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{RecursionDesired: true})
	var opt dnsmessage.ResourceHeader
	err = errors.Join(
		b.StartQuestions(),
		b.Question(dnsmessage.Question{Name: name, Type: t, Class: dnsmessage.ClassINET}),
		b.StartAdditionals(),
		opt.SetEDNS0(1232, dnsmessage.RCodeSuccess, false),
		b.OPTResource(opt, dnsmessage.OPTResource{}),
	)
	raw, finishErr := b.Finish()
	if err = errors.Join(err, finishErr); err != nil {
		return query{}, fmt.Errorf("exit: dns query: %w", err)
	}
	return parseQuery(raw)
}

// answer makes an answer of our own, without records; a name that does not
// exist gets the SOA by which it can be remembered (RFC 2308).
func (q *query) answer(rcode dnsmessage.RCode) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: q.header.ID, Response: true, OpCode: q.header.OpCode,
		RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true, RCode: rcode,
	})
	var err error
	if q.asked {
		err = errors.Join(b.StartQuestions(), b.Question(q.question))
	}
	if rcode == dnsmessage.RCodeNameError {
		err = errors.Join(err, b.StartAuthorities(), b.SOAResource(
			dnsmessage.ResourceHeader{Name: root, Class: dnsmessage.ClassINET, TTL: 60},
			dnsmessage.SOAResource{NS: root, MBox: root, Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, MinTTL: 60},
		))
	}
	msg, finishErr := b.Finish()
	if err != nil || finishErr != nil {
		// Only a question that cannot be written again comes here.
		bare := query{header: q.header}
		return bare.answer(dnsmessage.RCodeServerFailure)
	}
	return msg
}

var root = dnsmessage.MustNewName(".")

// answers reports whether msg answers the query sent: the same ID and the same
// question, save for case; a server that understood nothing may leave the
// question out.
func answers(msg, sent []byte) bool {
	if len(msg) < dnsHeader || msg[2]&responseBit == 0 || msg[0] != sent[0] || msg[1] != sent[1] {
		return false
	}
	if binary.BigEndian.Uint16(msg[4:]) == 0 {
		return msg[3]&0xf != 0
	}
	got, err := question(msg)
	if err != nil {
		return false
	}
	want, err := question(sent)
	return err == nil && got.Type == want.Type && got.Class == want.Class &&
		strings.EqualFold(got.Name.String(), want.Name.String())
}

func question(msg []byte) (dnsmessage.Question, error) {
	var p dnsmessage.Parser
	if _, err := p.Start(msg); err != nil {
		return dnsmessage.Question{}, err
	}
	return p.Question()
}

func isTruncated(msg []byte) bool { return msg[2]&truncatedBit != 0 }

// parseAddresses returns the addresses in an answer, whoever's they are: a
// chain of CNAMEs ends in names that were not asked for. None of them is
// trusted, so the chain need not be followed.
func parseAddresses(msg []byte) ([]netip.Addr, error) {
	var p dnsmessage.Parser
	header, err := p.Start(msg)
	if err != nil {
		return nil, fmt.Errorf("exit: dns answer: %w", err)
	}
	switch header.RCode {
	case dnsmessage.RCodeSuccess:
	case dnsmessage.RCodeNameError:
		return nil, nil
	default:
		return nil, fmt.Errorf("exit: dns answer: %v", header.RCode)
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, fmt.Errorf("exit: dns answer: %w", err)
	}
	var addrs []netip.Addr
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return addrs, nil
		}
		if err == nil {
			var a netip.Addr
			if a, err = parseAddress(&p, h); a.IsValid() {
				addrs = append(addrs, a)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("exit: dns answer: %w", err)
		}
	}
}

// parseAddress reads the record after h; it has an address if its type has.
func parseAddress(p *dnsmessage.Parser, h dnsmessage.ResourceHeader) (a netip.Addr, err error) {
	switch {
	case h.Class != dnsmessage.ClassINET:
		err = p.SkipAnswer()
	case h.Type == dnsmessage.TypeA:
		var r dnsmessage.AResource
		if r, err = p.AResource(); err == nil {
			a = netip.AddrFrom4(r.A)
		}
	case h.Type == dnsmessage.TypeAAAA:
		var r dnsmessage.AAAAResource
		if r, err = p.AAAAResource(); err == nil {
			a = netip.AddrFrom16(r.AAAA)
		}
	default:
		err = p.SkipAnswer()
	}
	return a, err
}
