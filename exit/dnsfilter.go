package exit

import (
	"errors"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// filterAnswer keeps addresses that clients do not reach out of what they are
// told: names in the operator's own network stay unknown, and no foreign name
// can point a client's programs at theirs. One such address spoils the answer,
// which then has no record at all; so does an answer that cannot be read.
func (g *gate) filterAnswer(q query, answer []byte) []byte {
	if q.local || dnsmessage.RCode(answer[3]&0xf) != dnsmessage.RCodeSuccess {
		return answer
	}
	var addrs []netip.Addr
	var err error
	switch q.question.Type {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA:
		addrs, err = parseAddresses(answer)
	case dnsmessage.TypeSVCB, dnsmessage.TypeHTTPS, dnsmessage.TypeALL:
		if addrs, err = parseAddresses(answer); err == nil {
			var hints []netip.Addr
			hints, err = parseHints(answer)
			addrs = append(addrs, hints...)
		}
	default:
		return answer
	}
	switch {
	case err != nil && !errors.Is(err, dnsmessage.ErrSectionDone):
		return q.answer(dnsmessage.RCodeServerFailure)
	case !g.allPublic(addrs):
		return q.answer(dnsmessage.RCodeSuccess)
	}
	return answer
}

func (g *gate) allPublic(addrs []netip.Addr) bool {
	for _, a := range addrs {
		if g.checkAddr(a) != nil {
			return false
		}
	}
	return true
}

// parseHints returns the addresses in the SVCB and HTTPS records of an answer,
// which programs may connect to without asking further (RFC 9460, section 7.3).
func parseHints(answer []byte) (addrs []netip.Addr, err error) {
	var p dnsmessage.Parser
	if _, err := p.Start(answer); err != nil {
		return nil, err
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, err
	}
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return addrs, nil
		}
		var r dnsmessage.SVCBResource
		switch {
		case err != nil:
		case h.Type == dnsmessage.TypeSVCB:
			r, err = p.SVCBResource()
		case h.Type == dnsmessage.TypeHTTPS:
			var https dnsmessage.HTTPSResource
			https, err = p.HTTPSResource()
			r = https.SVCBResource
		default:
			err = p.SkipAnswer()
		}
		if err != nil {
			return nil, err
		}
		for _, param := range r.Params {
			addrs = append(addrs, hintsOf(param)...)
		}
	}
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
