package exit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// filterAnswer keeps addresses that clients do not reach out of what they are
// told, and names of these: those in the operator's own network stay unknown, and no
// foreign name can point a client's programs at theirs. One in the answers spoils
// them, and there is no record at all; so does a message that cannot be read. One
// in what is told besides takes that away.
func (g *gate) filterAnswer(q query, answer []byte) []byte {
	if q.local {
		return answer
	}
	besides, err := g.inspect(answer)
	switch {
	case err == nil && besides:
		return onlyAnswers(answer)
	case err == nil:
		return answer
	case errors.Is(err, errKeptBack):
		return q.answer(dnsmessage.RCodeSuccess)
	}
	return q.answer(dnsmessage.RCodeServerFailure)
}

var errKeptBack = errors.New("exit: dns answer: it tells of what clients do not reach")

// inspect looks for what clients are not to be told. It returns errKeptBack if that
// is among the answers, and true if it is besides them, in the authority or
// additional records.
func (g *gate) inspect(answer []byte) (besides bool, err error) {
	var p dnsmessage.Parser
	if _, err := p.Start(answer); err != nil {
		return false, fmt.Errorf("exit: dns answer: %w", err)
	}
	if err := p.SkipAllQuestions(); err != nil {
		return false, fmt.Errorf("exit: dns answer: %w", err)
	}
	for _, section := range []struct {
		header  func() (dnsmessage.ResourceHeader, error)
		skip    func() error
		answers bool
	}{
		{p.AnswerHeader, p.SkipAnswer, true}, {p.AuthorityHeader, p.SkipAuthority, false}, {p.AdditionalHeader, p.SkipAdditional, false},
	} {
		for {
			h, err := section.header()
			if errors.Is(err, dnsmessage.ErrSectionDone) {
				break
			}
			var addrs []netip.Addr
			if err == nil {
				addrs, err = recordAddresses(&p, h, section.skip)
			}
			switch {
			case err != nil:
				return false, fmt.Errorf("exit: dns answer: %w", err)
			case g.allPublic(addrs) && !g.hides(h.Name.String()):
			case section.answers:
				return false, errKeptBack
			default:
				besides = true
			}
		}
	}
	return besides, nil
}

func (g *gate) allPublic(addrs []netip.Addr) bool {
	for _, a := range addrs {
		if g.checkAddr(a) != nil {
			return false
		}
	}
	return true
}

// hides reports whether fqdn is the reverse name of an address that clients do not
// reach, or of a network of such: the operator's own name servers may know it.
func (g *gate) hides(fqdn string) bool {
	p, ok := reverse(fqdn)
	return ok && g.checkAddr(p.Addr()) != nil && g.checkAddr(lastOf(p)) != nil
}

// recordAddresses returns the addresses in the record after h, of whatever class:
// those of A and AAAA, and the hints of SVCB and HTTPS, which programs may connect to
// without asking further (RFC 9460, section 7.3). Others are skipped.
func recordAddresses(p *dnsmessage.Parser, h dnsmessage.ResourceHeader, skip func() error) (addrs []netip.Addr, err error) {
	var hints dnsmessage.SVCBResource
	switch h.Type {
	case dnsmessage.TypeA:
		var r dnsmessage.AResource
		r, err = p.AResource()
		addrs = append(addrs, netip.AddrFrom4(r.A))
	case dnsmessage.TypeAAAA:
		var r dnsmessage.AAAAResource
		r, err = p.AAAAResource()
		addrs = append(addrs, netip.AddrFrom16(r.AAAA))
	case dnsmessage.TypeSVCB:
		hints, err = p.SVCBResource()
	case dnsmessage.TypeHTTPS:
		var r dnsmessage.HTTPSResource
		r, err = p.HTTPSResource()
		hints = r.SVCBResource
	default:
		err = skip()
	}
	for _, param := range hints.Params {
		addrs = append(addrs, hintsOf(param)...)
	}
	return addrs, err
}

// hintsOf returns the addresses of a parameter; what is left over is none.
func hintsOf(p dnsmessage.SVCParam) (addrs []netip.Addr) {
	size := map[dnsmessage.SVCParamKey]int{dnsmessage.SVCParamIPv4Hint: 4, dnsmessage.SVCParamIPv6Hint: 16}[p.Key]
	for rest := p.Value; size > 0 && len(rest) >= size; rest = rest[size:] {
		a, _ := netip.AddrFromSlice(rest[:size])
		addrs = append(addrs, a)
	}
	return addrs
}

// onlyAnswers returns a message that inspect has read without what follows its
// answers.
func onlyAnswers(m []byte) []byte {
	end := len(m)
	eachRecord(m, func(n, at, _ int) {
		if n == int(binary.BigEndian.Uint16(m[6:])) {
			end = at
		}
	})
	m = append([]byte(nil), m[:end]...)
	clear(m[8:dnsHeader]) // how many there are
	return m
}
