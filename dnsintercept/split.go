package dnsintercept

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/nws-vpn/nws-vpn/netstack"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// Split has the names under some suffixes go another way than all others:
// outside the tunnel, or as the only ones through it.
//
// Such a name gets fake addresses, as a .nostr name does, and never real ones. So
// what goes which way is decided by the name, when a program connects: no address
// is let past the tunnel or into it for the sake of a name, and what other names
// have the same address, or what a program remembers, makes no difference.
type Split struct {
	// Suffixes are in lower case, without a dot at either end. Each means the name
	// itself and all below it.
	Suffixes []string
	// Include says that the names under Suffixes are those that go through the
	// tunnel. Otherwise they are those that do not.
	Include bool
	// Outside answers about names that do not go through the tunnel; nil with
	// Include has all names asked through the tunnel.
	Outside Upstream
	// Dialer connects to the names under Suffixes outside the tunnel; not with
	// Include. It judges the addresses that the names turn out to have.
	Dialer netstack.Dialer
}

// typeSVCB and typeHTTPS hold addresses of their own (RFC 9460).
const (
	typeSVCB  dnsmessage.Type = 64
	typeHTTPS dnsmessage.Type = 65
)

// lists reports whether host is under one of the suffixes.
func (s *Split) lists(host string) bool {
	return slices.ContainsFunc(s.Suffixes, func(suffix string) bool {
		rest, ok := strings.CutSuffix(host, suffix)
		return ok && (rest == "" || strings.HasSuffix(rest, "."))
	})
}

// leaves reports whether connections to a name with fake addresses are made
// outside the tunnel. One that has them from earlier days, when it was listed, is
// better off within.
func (s *Split) leaves(host string) bool {
	return s != nil && !s.Include && s.lists(host)
}

// way says who is asked for a name, and whether it gets fake addresses. A name
// that reads like another one, with dots within its labels, is never listed.
func (i *Interceptor) way(q *query) (upstream Upstream, fake bool) {
	s := i.split
	if s == nil {
		return i.upstream, false
	}
	listed := !q.dotted && s.lists(q.host)
	if listed == s.Include || s.Outside == nil {
		return i.upstream, listed
	}
	return s.Outside, listed
}

// listed answers for a name under one of the suffixes: with a fake address if the
// upstream knows a real one. Nothing of the upstream's answer is passed on that
// could hold an address.
func (i *Interceptor) listed(ctx context.Context, q *query, upstream Upstream) []byte {
	if q.class != dnsmessage.ClassINET {
		return q.fail(dnsmessage.RCodeRefused)
	}
	switch q.kind {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA:
	case typeSVCB, typeHTTPS, dnsmessage.TypeALL:
		i.answered.Add(1)
		return q.reply(dnsmessage.RCodeSuccess, nil, headerLen, i.ttl)
	default:
		return i.ask(ctx, q, upstream)
	}
	if !fit(q.host) {
		i.answered.Add(1)
		return q.reply(dnsmessage.RCodeNameError, nil, headerLen, i.ttl)
	}
	answer := i.ask(ctx, q, upstream)
	rcode := dnsmessage.RCode(answer[3] & 0xf)
	has, ok := hasAddress(answer, q.kind)
	switch {
	case has:
		return i.fakeAnswer(q, headerLen)
	case ok && (rcode == dnsmessage.RCodeSuccess || rcode == dnsmessage.RCodeNameError):
		return q.reply(rcode, nil, headerLen, i.ttl)
	case rcode == dnsmessage.RCodeSuccess:
		return i.servfail(q)
	}
	return q.fail(rcode)
}

// hasAddress reports whether an answer holds an address of the kind asked for. It
// is not ok when that cannot be told.
func hasAddress(answer []byte, kind dnsmessage.Type) (has, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	if err != nil || p.SkipAllQuestions() != nil {
		return false, false
	}
	for {
		r, err := p.AnswerHeader()
		switch {
		case err == dnsmessage.ErrSectionDone:
			return false, !h.Truncated
		case err != nil:
			return false, false
		case r.Type == kind && r.Class == dnsmessage.ClassINET:
			return true, true
		case p.SkipAnswer() != nil:
			return false, false
		}
	}
}

// fakeAnswer is the fake address of q's name, of the kind that it asks for.
func (i *Interceptor) fakeAnswer(q *query, zone int) []byte {
	v4, v6, err := i.pool.Address(q.host)
	if err != nil {
		i.warn(err)
		return i.servfail(q)
	}
	answer := &record{dnsmessage.TypeA, v4.AsSlice()}
	if q.kind == dnsmessage.TypeAAAA {
		answer = &record{dnsmessage.TypeAAAA, v6.AsSlice()}
	}
	return q.reply(dnsmessage.RCodeSuccess, answer, zone, i.ttl)
}

// target is the name to dial for one that has a fake address, and whether that is
// outside the tunnel.
func (i *Interceptor) target(host string) (target string, outside bool, err error) {
	if !name.Under(host) {
		return host, i.split.leaves(host), nil
	}
	n, err := i.names.Lookup(host)
	return n.Host(), false, err
}
