package nostrlink

import (
	"context"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// maxPeers is how many entries without a session a Listener knows the relays
// and shared keys of.
const maxPeers = 4096

// lastHeard remembers over which relay each peer was heard last: its answers
// go there.
type lastHeard struct {
	mu  sync.Mutex
	via map[envelope.PublicKey]*post
}

// heard notes that a peer has said something. When there are too many, those
// to forget are picked at random, so that nobody can push out a chosen one.
func (h *lastHeard) heard(peer envelope.PublicKey, p *post) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.via == nil {
		h.via = make(map[envelope.PublicKey]*post)
	}
	if _, known := h.via[peer]; !known && len(h.via) >= maxPeers {
		for other := range h.via {
			delete(h.via, other)
			break
		}
	}
	h.via[peer] = p
}

// of is the relay over which a peer was heard last, or nil.
func (h *lastHeard) of(peer envelope.PublicKey) *post {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.via[peer]
}

// newNWS makes the Listener's end for entries without a session.
func (l *Listener) newNWS() *compat.Exit {
	sender := &courier{keys: l.arrivals.keys, via: func(peer envelope.PublicKey) []*post {
		if p := l.peers.of(peer); p != nil {
			return []*post{p}
		}
		return nil
	}}
	gap := func(peer envelope.PublicKey) time.Duration {
		if p := l.peers.of(peer); p != nil {
			return p.gap()
		}
		return compat.DefaultGap
	}
	limit := func(peer envelope.PublicKey) int {
		if p := l.peers.of(peer); p != nil {
			return p.maxMessage()
		}
		return 0
	}
	return compat.NewExit(sender, compat.ExitOptions{
		Options:  compat.Options{Gap: gap, Limit: limit, Log: l.opts.Log},
		DialBack: l.opts.DialBack, AllowPrivate: true, // which DialBack decides about
	})
}

// knows reports whether a peer without a session has a stream open.
func (l *Listener) knows(peer envelope.PublicKey) bool { return l.nws != nil && l.nws.Knows(peer) }

// serveNWS hands what entries without a session want to handle, until ctx ends.
func (l *Listener) serveNWS(ctx context.Context, handle Handle) {
	for {
		req, err := l.nws.Accept(ctx)
		if err != nil {
			return
		}
		client := Client{req.Peer(), true}
		if l.opts.Admit != nil {
			if err := l.opts.Admit(client, ""); err != nil {
				l.books.notLetIn.Add(1)
				req.Reject(err) // of which NWS tells nothing
				continue
			}
		}
		l.wg.Go(func() { l.handleNWS(ctx, nwsRequest{req}, client, handle) })
	}
}

// handleNWS has a flow handled that may be turned out meanwhile.
func (l *Listener) handleNWS(ctx context.Context, req Request, client Client, handle Handle) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	f := &nwsFlow{client, end}
	l.mu.Lock()
	l.flows[f] = struct{}{}
	l.mu.Unlock()
	handle(ctx, req)
	l.mu.Lock()
	delete(l.flows, f)
	l.mu.Unlock()
}

// nwsFlow is a flow of an entry without a session.
type nwsFlow struct {
	client Client
	end    context.CancelCauseFunc
}

// nwsRequest is a flow that says who asks: every message is signed by its author.
type nwsRequest struct{ *compat.Request }

// Client is who asks, which is proven.
func (r nwsRequest) Client() (key [32]byte, proven bool) { return r.Peer(), true }
