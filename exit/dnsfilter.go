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
	if q.local || q.question.Type != dnsmessage.TypeA && q.question.Type != dnsmessage.TypeAAAA && q.question.Type != dnsmessage.TypeALL {
		return answer
	}
	if dnsmessage.RCode(answer[3]&0xf) != dnsmessage.RCodeSuccess {
		return answer
	}
	addrs, err := parseAddresses(answer)
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
