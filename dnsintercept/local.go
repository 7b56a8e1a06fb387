package dnsintercept

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// canary is the name by which browsers ask whether they may send their queries
// past the system's resolver. Its absence tells them not to.
const canary = "use-application-dns.net"

// direct answers msg as far as that needs no upstream. A query that does is
// returned instead; it goes on using msg. Neither means silence.
func (i *Interceptor) direct(msg []byte) (forward *query, reply []byte) {
	q, err := parseQuery(msg)
	if err != nil {
		i.malformed.Add(1)
		return nil, refusal(msg, err)
	}
	reply = i.local(q)
	if reply == nil {
		return q, nil
	}
	i.answered.Add(1)
	return nil, reply
}

// local is the answer to a query that is ours alone, or nil.
func (i *Interceptor) local(q *query) []byte {
	addr, reverse := parseReverse(q.host)
	nostr, transfer := name.Under(q.host), q.kind == dnsmessage.TypeAXFR || q.kind == typeIXFR
	reverse = reverse && i.pool.Contains(addr)
	switch {
	case !nostr && !reverse && !transfer && q.host != canary:
		return nil
	case q.edns && q.version != 0:
		return q.fail(rcodeBadVersion)
	case transfer, q.class != dnsmessage.ClassINET && q.class != dnsmessage.ClassANY:
		// A zone comes in any number of messages, an upstream's answer in one.
		return q.fail(dnsmessage.RCodeRefused)
	case nostr:
		return i.nostr(q)
	case reverse:
		return i.pointer(q, addr)
	}
	return q.reply(dnsmessage.RCodeNameError, nil, headerLen, i.ttl) // the canary
}

// nostr answers for a name in the .nostr domain.
func (i *Interceptor) nostr(q *query) []byte {
	if q.host == "nostr" {
		// The domain itself exists, or its absence would be everyone's below.
		var answer *record
		if q.kind == dnsmessage.TypeSOA {
			answer = &record{dnsmessage.TypeSOA, soa(q.last, i.ttl)}
		}
		return q.reply(dnsmessage.RCodeSuccess, answer, q.last, i.ttl)
	}
	if _, err := i.names.Lookup(q.host); err != nil || q.dotted {
		return q.reply(dnsmessage.RCodeNameError, nil, q.last, i.ttl)
	}
	if q.kind != dnsmessage.TypeA && q.kind != dnsmessage.TypeAAAA {
		return q.reply(dnsmessage.RCodeSuccess, nil, q.last, i.ttl)
	}
	return i.fakeAnswer(q, q.last)
}

// pointer answers for the reverse name of an address in the fake range. The
// zone is the parent, which begins behind the first label.
func (i *Interceptor) pointer(q *query, addr netip.Addr) []byte {
	zone := headerLen + 1 + int(q.msg[headerLen])
	host, ok := i.pool.Host(addr)
	if !ok {
		return q.reply(dnsmessage.RCodeNameError, nil, zone, i.ttl)
	}
	if q.kind != dnsmessage.TypePTR {
		return q.reply(dnsmessage.RCodeSuccess, nil, zone, i.ttl)
	}
	answer := &record{dnsmessage.TypePTR, appendName(nil, host)}
	return q.reply(dnsmessage.RCodeSuccess, answer, zone, i.ttl)
}

// parseReverse reads the name under which an address's own name is asked for
// (RFC 1035, section 3.5; RFC 3596, section 2.5). host is in lower case.
func parseReverse(host string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(host, ".in-addr.arpa"); ok {
		labels := strings.Split(rest, ".")
		var b [4]byte
		if len(labels) != len(b) {
			return netip.Addr{}, false
		}
		for i, label := range labels {
			n, err := strconv.ParseUint(label, 10, 8)
			if err != nil || strconv.FormatUint(n, 10) != label {
				return netip.Addr{}, false
			}
			b[len(b)-1-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	rest, ok := strings.CutSuffix(host, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		digit := strings.IndexByte("0123456789abcdef", rest[2*i])
		if digit < 0 || i < 31 && rest[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(digit) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
