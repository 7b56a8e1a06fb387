package exit

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// lookupTimeout bounds one exchange, all tries included.
	lookupTimeout = 8 * time.Second
	// tryTimeout is how long one server is waited for at a time.
	tryTimeout = 2 * time.Second
	// minTries is how often a query is sent when there are few servers.
	minTries = 3
	// maxUDPAnswer is more than servers send over UDP nowadays (1,232 bytes);
	// a longer answer is fetched over TCP.
	maxUDPAnswer = 4096
	// maxQuery bounds a client's query. Real ones have some 50 bytes.
	maxQuery = 1232
)

// resolver asks the exit's name servers and nobody else: no hosts file, no
// search domains, no multicast. It is safe for concurrent use; its callers
// bound how many queries are in flight.
type resolver struct {
	servers func() ([]upstream, error) // at least one, or an error
	try     time.Duration              // how long one server is waited for
	cache   *dnsCache                  // or nil
	watch   nameserverWatch
}

// exchange answers a query that was read by parseQuery: itself where the
// answer must not come from outside, else with what a server says. The error
// means that no server gave an answer.
func (r *resolver) exchange(ctx context.Context, q query) ([]byte, error) {
	if q.local {
		return q.answer(q.rcode), nil
	}
	if r.cache != nil {
		if answer := r.cache.get(&q); answer != nil {
			return answer, nil
		}
	}
	servers, err := r.servers()
	if err != nil {
		r.watch.failed(resolvConfPath, err, time.Now())
		return nil, err
	}
	r.watch.answered(resolvConfPath)
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var failure []byte // an answer that says that the server failed
	var why error      // of the last try that was not cut short, if there was one
	for i := 0; i < max(minTries, len(servers)) && ctx.Err() == nil; i++ {
		var answer []byte
		if answer, err = r.ask(ctx, servers[i%len(servers)], q); err != nil {
			if why == nil || ctx.Err() == nil {
				why = err
			}
			continue
		}
		switch dnsmessage.RCode(answer[3] & 0xf) {
		case dnsmessage.RCodeServerFailure, dnsmessage.RCodeRefused, dnsmessage.RCodeNotImplemented:
			failure = answer // another server may do better
			if i+1 < len(servers) {
				continue
			}
		}
		if r.cache != nil {
			r.cache.put(&q, answer)
		}
		return answer, nil
	}
	if failure != nil {
		return failure, nil
	}
	return nil, cmp.Or(why, ctx.Err())
}

// ask sends q to one server. The answer has q's own ID.
func (r *resolver) ask(ctx context.Context, server upstream, q query) ([]byte, error) {
	// The client's ID is the client's business; ours is fresh each time, as
	// is the source port of each socket, so that answers cannot be guessed.
	sent := bytes.Clone(q.raw)
	binary.BigEndian.PutUint16(sent, uint16(rand.Uint32()))
	deadline := time.Now().Add(r.try)
	d, ok := ctx.Deadline()
	isCut := ok && time.Until(d) < r.try/2 // there is hardly time for an answer
	if ok && d.Before(deadline) {
		deadline = d
	}
	answer, err := server.ask(ctx, sent, deadline)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) && !(isCut && isTimeout(err)) {
			r.watch.failed(server.String(), inWords(err), time.Now())
		}
		return nil, fmt.Errorf("exit: ask the name server %v: %w", server, inWords(err))
	}
	r.watch.answered(server.String())
	copy(answer[:2], q.raw[:2])
	return answer, nil
}

// lookup returns the addresses of host, which parseHost accepted, IPv6 first.
// Its errors are *Refusals.
func (r *resolver) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		addrs []netip.Addr
		err   error
	}
	types := [...]dnsmessage.Type{dnsmessage.TypeAAAA, dnsmessage.TypeA}
	var results [len(types)]result
	done := make(chan int, len(types))
	for i, t := range types {
		go func() {
			results[i].addrs, results[i].err = r.addresses(ctx, host, t)
			done <- i
		}()
	}
	first := <-done
	// Some servers never answer for AAAA. Who has addresses of one family
	// waits only a little for the other.
	if len(results[first].addrs) > 0 {
		slow := time.AfterFunc(familyPatience, cancel)
		defer slow.Stop()
	}
	<-done
	addrs := append(results[0].addrs, results[1].addrs...)
	if len(addrs) > 0 {
		return addrs, nil
	}
	for _, res := range results {
		if res.err != nil {
			r := refuse(ReasonResolver, "the exit could not resolve the name: its name servers do not answer")
			r.cause = res.err
			return nil, r
		}
	}
	return nil, refuse(ReasonNameNotFound, "the name does not exist or has no address")
}

const familyPatience = time.Second

// addresses asks for host's addresses of one type. None and no error means
// that there are none.
func (r *resolver) addresses(ctx context.Context, host string, t dnsmessage.Type) ([]netip.Addr, error) {
	q, err := newQuery(host, t)
	if err != nil {
		return nil, err
	}
	answer, err := r.exchange(ctx, q)
	if err != nil {
		return nil, err
	}
	return parseAddresses(answer)
}

// readFramed reads one message of DNS over TCP (RFC 1035, section 4.2.2):
// two bytes of length, then the message.
func readFramed(r io.Reader, limit int) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > limit {
		return nil, fmt.Errorf("message of %d bytes, more than %d", n, limit)
	}
	msg := make([]byte, n)
	if _, err := io.ReadFull(r, msg); err != nil {
		return nil, fmt.Errorf("message cut short: %w", err)
	}
	return msg, nil
}

// writeFramed writes msg, of at most 65,535 bytes, in one piece.
func writeFramed(w io.Writer, msg []byte) error {
	framed := make([]byte, 2, 2+len(msg))
	binary.BigEndian.PutUint16(framed, uint16(len(msg)))
	_, err := w.Write(append(framed, msg...))
	return err
}
