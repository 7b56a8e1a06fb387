package exit

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/nws-vpn/nws-vpn/internal/splice"
)

const (
	// maxQueries bounds the DNS queries of all flows together, each until its
	// answer is written. An answer has at most 64 KiB.
	maxQueries = 1024
	// maxClientQueries bounds those of one client, so that slow name servers of
	// his choice do not keep others from asking.
	maxClientQueries = 256
	// maxStreamQueries bounds those of one flow; then it is not read on.
	maxStreamQueries = 64
	// answerTimeout ends a flow whose other end does not take its answers.
	answerTimeout = 5 * time.Second
)

// serveDNS answers a stream of queries, each as soon as its answer is there.
func (s *Server) serveDNS(ctx context.Context, req Request) {
	conn, err := req.Accept()
	if err != nil {
		return
	}
	b := req.(*booked)
	conn = newMeter(ctx, b.account, req.Network(), conn)
	s.dnsFlows.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	f := dnsFlow{server: s, account: b.account, conn: conn, slots: make(chan struct{}, maxStreamQueries)}
	err = f.read(ctx)
	if errors.Is(err, io.EOF) && ctx.Err() == nil {
		f.wait.Wait() // who has asked all he wants still gets his answers
		conn.Close()
		return
	}
	// Queries in flight end with ctx.
	cancel()
	splice.Abort(conn, err)
	f.wait.Wait()
}

// dnsFlow is one stream of queries.
type dnsFlow struct {
	server  *Server
	account *account
	conn    net.Conn
	slots   chan struct{} // a token per query in flight
	wait    sync.WaitGroup

	mu sync.Mutex // held while an answer is written
}

// read starts a goroutine for each query until the stream ends, which is
// io.EOF, or breaks.
func (f *dnsFlow) read(ctx context.Context) error {
	for {
		raw, err := readFramed(f.conn, maxQuery)
		if err != nil {
			return err
		}
		q, err := parseQuery(raw)
		if err != nil {
			return err
		}
		f.server.asked.Add(1)
		if under := f.account.queries.Add(1); !q.local && (under > maxClientQueries || !f.account.mayAsk()) {
			f.server.refused[ReasonQueries].Add(1)
			f.account.refusedFor(ReasonQueries)
			q.local, q.rcode = true, dnsmessage.RCodeRefused
		}
		for _, slots := range []chan struct{}{f.slots, f.server.queries} {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				f.account.queries.Add(-1)
				return ctx.Err()
			}
		}
		f.wait.Go(func() {
			f.answer(ctx, q)
			f.account.queries.Add(-1)
			<-f.server.queries
			<-f.slots
		})
	}
}

func (f *dnsFlow) answer(ctx context.Context, q query) {
	if !q.local && f.server.gate.Load().hides(q.question.Name.String()) {
		q.local, q.rcode = true, dnsmessage.RCodeNameError
	}
	answer, err := f.server.resolver.exchange(ctx, q)
	if err != nil {
		f.server.unanswered.Add(1)
		f.server.log.Debug("exit: dns query failed", "name", q.question.Name.String(), "err", err)
		answer = q.answer(dnsmessage.RCodeServerFailure)
	}
	answer = f.server.gate.Load().filterAnswer(q, answer)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	if err := writeFramed(f.conn, answer); err != nil {
		splice.Abort(f.conn, err) // a frame may be half written
	}
}
