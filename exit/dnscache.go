package exit

import (
	"container/list"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// maxCached and maxCachedBytes bound the answers that are kept, maxCachedAnswer
	// one of them, and maxCachedFor how long, whatever the servers say.
	maxCached       = 8192
	maxCachedBytes  = 4 << 20
	maxCachedAnswer = 4096
	maxCachedFor    = time.Hour
)

// dnsCache keeps answers for as long as they allow. It is safe for concurrent
// use.
type dnsCache struct {
	now func() time.Time

	mu      sync.Mutex
	entries map[cacheKey]*list.Element
	used    *list.List // of *cached, the least recently used last
	bytes   int
}

// cacheKey is what makes two queries the same: case and ID do not, what the
// client wants to know about signatures does.
type cacheKey struct {
	name  string
	typ   dnsmessage.Type
	class dnsmessage.Class
	flags byte // CD and DO
}

type cached struct {
	key    cacheKey
	answer []byte
	ttls   []int // where in answer they are
	stored time.Time
	until  time.Time
}

func newDNSCache() *dnsCache {
	return &dnsCache{now: time.Now, entries: make(map[cacheKey]*list.Element), used: list.New()}
}

func keyOf(q *query) cacheKey {
	k := cacheKey{strings.ToLower(q.question.Name.String()), q.question.Type, q.question.Class, 0}
	if q.header.CheckingDisabled {
		k.flags |= 1
	}
	if q.dnssec {
		k.flags |= 2
	}
	return k
}

// get returns a kept answer as one to q, with what is left of its time.
func (c *dnsCache) get(q *query) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[keyOf(q)]
	if e == nil {
		return nil
	}
	kept, now := e.Value.(*cached), c.now()
	if !now.Before(kept.until) {
		c.drop(e)
		return nil
	}
	c.used.MoveToFront(e)
	answer := append([]byte(nil), kept.answer...)
	copy(answer[:2], q.raw[:2])
	age := uint32(now.Sub(kept.stored) / time.Second)
	for _, at := range kept.ttls {
		ttl := binary.BigEndian.Uint32(answer[at:])
		binary.BigEndian.PutUint32(answer[at:], ttl-min(age, ttl))
	}
	// The question in the client's own spelling, which some compare (0x20).
	if end := dnsHeader + len(q.question.Name.String()) + 1; end <= len(q.raw) && end <= len(answer) &&
		strings.EqualFold(string(answer[dnsHeader:end]), string(q.raw[dnsHeader:end])) {
		copy(answer[dnsHeader:end], q.raw[dnsHeader:end])
	}
	return answer
}

// put keeps an answer to q, if it may be kept.
func (c *dnsCache) put(q *query, answer []byte) {
	life, ttls := lifetime(answer)
	if life <= 0 || len(answer) > maxCachedAnswer || isTruncated(answer) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key, now := keyOf(q), c.now()
	if old := c.entries[key]; old != nil {
		c.drop(old)
	}
	for c.used.Len() >= maxCached || c.bytes+len(answer) > maxCachedBytes {
		c.drop(c.used.Back())
	}
	kept := &cached{key, append([]byte(nil), answer...), ttls, now, now.Add(min(life, maxCachedFor))}
	c.entries[key] = c.used.PushFront(kept)
	c.bytes += len(answer)
}

func (c *dnsCache) drop(e *list.Element) {
	kept := c.used.Remove(e).(*cached)
	delete(c.entries, kept.key)
	c.bytes -= len(kept.answer)
}

// lifetime returns how long an answer may be kept, zero for not at all, and
// where in it the times to live are. One that a name does not exist, or has no
// such record, lives as long as the zone's SOA says (RFC 2308, section 5).
func lifetime(answer []byte) (life time.Duration, ttls []int) {
	var p dnsmessage.Parser
	header, err := p.Start(answer)
	if err != nil || header.RCode != dnsmessage.RCodeSuccess && header.RCode != dnsmessage.RCodeNameError || p.SkipAllQuestions() != nil {
		return 0, nil
	}
	least, records, negative := uint32(1<<31), 0, uint32(0)
	take := func(h dnsmessage.ResourceHeader) { least = min(least, h.TTL) }
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil || p.SkipAnswer() != nil {
			return 0, nil
		}
		records++
		take(h)
	}
	for {
		h, err := p.AuthorityHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return 0, nil
		}
		take(h)
		if h.Type == dnsmessage.TypeSOA {
			soa, err := p.SOAResource()
			if err != nil {
				return 0, nil
			}
			negative = min(soa.MinTTL, h.TTL)
		} else if p.SkipAuthority() != nil {
			return 0, nil
		}
	}
	if records == 0 {
		least = min(least, negative)
	}
	if least >= 1<<31 { // also what RFC 2181, section 8, has us take for zero
		return 0, nil
	}
	return time.Duration(least) * time.Second, ttlOffsets(answer)
}

// ttlOffsets returns where the times to live of an answer's records are, but
// for OPT, whose field means something else (RFC 6891). The message has been
// parsed before, so its lengths hold.
func ttlOffsets(m []byte) []int {
	var offsets []int
	eachRecord(m, func(_, _, typeAt int) {
		if dnsmessage.Type(binary.BigEndian.Uint16(m[typeAt:])) != dnsmessage.TypeOPT {
			offsets = append(offsets, typeAt+4)
		}
	})
	return offsets
}

// eachRecord calls f for the records of a message that has been parsed, all sections
// one after the other: with their number from 0, where each begins and where its type
// is.
func eachRecord(m []byte, f func(n, at, typeAt int)) {
	at := dnsHeader
	skipName := func() {
		for at < len(m) && m[at] != 0 {
			if m[at] >= 0xc0 {
				at++
				break
			}
			at += 1 + int(m[at])
		}
		at++
	}
	for range binary.BigEndian.Uint16(m[4:]) {
		skipName()
		at += 4
	}
	records := 0
	for i := 6; i < dnsHeader; i += 2 {
		records += int(binary.BigEndian.Uint16(m[i:]))
	}
	for n := range records {
		begin := at
		skipName()
		if at+10 > len(m) {
			return
		}
		f(n, begin, at)
		at += 10 + int(binary.BigEndian.Uint16(m[at+8:]))
	}
}
