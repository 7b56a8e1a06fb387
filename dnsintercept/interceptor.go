// Package dnsintercept answers the DNS queries of this machine.
//
// It takes port 53 out of the flows of a netstack, over UDP and TCP, whatever
// server an application names. Names in the .nostr domain get fake addresses
// from a Pool, and when an application connects to one of those, the Dialer
// puts the name back in its place. They are never forwarded, not even when
// they cannot be answered. Every other query goes whole to an Upstream, which
// is the exit's resolver, and its answer comes back whole; unless a Split says
// that its name goes another way.
//
// What is said for a .nostr name (RFC 1035, 2308, 6891):
//
//	A, AAAA          the fake address, for a few seconds
//	anything else    no error and no record, with the domain's SOA
//	not a name       NXDOMAIN, with the domain's SOA
//	no address free  SERVFAIL
//
// The reverse names of fake addresses have a PTR record. use-application-dns.net
// does not exist, so that browsers stay with the system's resolver. Zone
// transfers are refused: an Upstream's answer is one message.
//
// A query that cannot be parsed is answered FORMERR, an operation other than a
// query NOTIMP, and a response not at all. When the Upstream fails, the client
// learns so at once by SERVFAIL. Connections and queries under way are bounded;
// beyond the bound, connections are refused, UDP queries answered SERVFAIL and
// TCP connections not read from.
package dnsintercept

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

const (
	defaultTTL     = 5 * time.Second
	minTTL, maxTTL = time.Second, 10 * time.Second
	// defaultTimeout lies below the 5 s after which stub resolvers ask again,
	// so that they learn of a failure instead.
	defaultTimeout = 4 * time.Second
	defaultQueries = 512
	defaultFlows   = 4096
	// maxStreams bounds TCP connections, each of which can hold many queries.
	maxStreams = 256
	// warnEvery keeps one hostile web page from filling the log.
	warnEvery = time.Minute
)

// Options are an Interceptor's choices; the zero value is usable.
type Options struct {
	Names   name.Book     // petnames
	TTL     time.Duration // of answers about .nostr names: 5 s if zero, kept within 1 s to 10 s
	Timeout time.Duration // for the upstream's answer to one query; 4 s if zero
	Queries int           // at the upstream at a time; 512 if zero
	Flows   int           // UDP flows at a time; 4096 if zero
	// RefuseTLS refuses DNS over TLS and over QUIC (port 853, RFC 7858 and 9250),
	// so that programs fall back to what is answered here.
	RefuseTLS bool
	// Split has some names go another way; nil for none.
	Split *Split
	Log   *slog.Logger
}

// Stats counts queries since the start.
type Stats struct {
	Answered  uint64 `json:"answered"`  // here
	Forwarded uint64 `json:"forwarded"` // answered by the upstream
	Failed    uint64 `json:"failed"`    // answered with SERVFAIL by us
	Malformed uint64 `json:"malformed"` // refused before they were looked at
	Names     int    `json:"names"`     // that have a fake address now
}

// Interceptor answers queries and dials names behind fake addresses. Its
// methods may be called concurrently. It has no goroutines of its own: they
// end with the flows that it was given.
type Interceptor struct {
	upstream Upstream
	pool     *Pool
	names    name.Book
	ttl      uint32 // seconds
	timeout  time.Duration
	log      *slog.Logger
	noTLS    bool
	split    *Split

	queries chan struct{} // a token for each query at the upstream
	streams chan struct{} // for each TCP connection
	flows   chan struct{} // for each UDP flow

	warned atomic.Int64 // when the log was last told of a failure here, unix seconds

	answered, forwarded, failed, malformed atomic.Uint64
}

// New makes an Interceptor that forwards to upstream and takes fake addresses
// from pool. It closes neither.
func New(upstream Upstream, pool *Pool, opts Options) *Interceptor {
	ttl := opts.TTL
	if ttl == 0 {
		ttl = defaultTTL
	}
	i := &Interceptor{
		upstream: upstream,
		pool:     pool,
		names:    opts.Names,
		ttl:      uint32(min(max(ttl, minTTL), maxTTL) / time.Second),
		timeout:  opts.Timeout,
		noTLS:    opts.RefuseTLS,
		split:    opts.Split,
		log:      logger(opts.Log),
		queries:  make(chan struct{}, positive(opts.Queries, defaultQueries)),
		streams:  make(chan struct{}, maxStreams),
		flows:    make(chan struct{}, positive(opts.Flows, defaultFlows)),
	}
	if i.timeout <= 0 {
		i.timeout = defaultTimeout
	}
	return i
}

// Stats returns the counters.
func (i *Interceptor) Stats() Stats {
	return Stats{
		Answered:  i.answered.Load(),
		Forwarded: i.forwarded.Load(),
		Failed:    i.failed.Load(),
		Malformed: i.malformed.Load(),
		Names:     i.pool.Len(),
	}
}

// forward has an upstream answer q. There always is an answer.
func (i *Interceptor) forward(ctx context.Context, q *query) []byte {
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	upstream, listed := i.way(q)
	if listed {
		return i.listed(ctx, q, upstream)
	}
	return i.ask(ctx, q, upstream)
}

// ask has upstream answer q.
func (i *Interceptor) ask(ctx context.Context, q *query, upstream Upstream) []byte {
	answer, err := upstream.Exchange(ctx, q.msg)
	if err != nil {
		i.log.Debug("a DNS query was not answered", "error", err)
		return i.servfail(q)
	}
	if answer = q.conform(answer); answer == nil {
		i.log.Debug("another DNS query was answered than was asked")
		return i.servfail(q)
	}
	i.forwarded.Add(1)
	return answer
}

func (i *Interceptor) servfail(q *query) []byte {
	i.failed.Add(1)
	return q.fail(dnsmessage.RCodeServerFailure)
}

// warn logs that names get no addresses, once in a while.
func (i *Interceptor) warn(err error) {
	now, last := time.Now().Unix(), i.warned.Load()
	if now-last >= int64(warnEvery/time.Second) && i.warned.CompareAndSwap(last, now) {
		i.log.Warn("no fake address for a name", "error", err)
	}
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

func positive(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}
