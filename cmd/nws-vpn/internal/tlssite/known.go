package tlssite

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/cert"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
)

// Find asks relays for the events of kind 38334 that the key in a name has
// published. It fails when no relay could be asked. It returns soon when ctx
// ends.
type Find func(ctx context.Context, n name.Name) ([]*envelope.Event, error)

// How long an answer is good. A new certificate of a known site shows at the
// first handshake, and makes the answer be asked for again.
const (
	goodFor    = time.Hour
	noneFor    = time.Minute
	failedFor  = 10 * time.Second
	askAgain   = 5 * time.Second // at the soonest, when a certificate does not match
	askTimeout = 6 * time.Second
	maxKnown   = 256
	maxAsking  = 16
)

// errUnknown means that the relays could not be asked.
var errUnknown = errors.New("tlssite: no relay could be asked for the certificate")

// known remembers what sites attest to.
type known struct {
	find   Find
	ctx    context.Context   // of all questions
	start  func(func()) bool // runs one
	asking chan struct{}     // a token per question under way

	mu    sync.Mutex
	sites map[[32]byte]*answer
}

// answer is what is known of one site. The fields but ready are for readers
// who have seen ready closed.
type answer struct {
	ready chan struct{}
	list  []*cert.Attestation
	err   error // cert's, or errUnknown
	at    time.Time
	until time.Time
}

func newKnown(ctx context.Context, find Find, start func(func()) bool) *known {
	return &known{
		find: find, ctx: ctx, start: start, asking: make(chan struct{}, maxAsking),
		sites: make(map[[32]byte]*answer),
	}
}

// get returns what is known of a site, asking if need be: what was answered at
// the time before, or earlier, does not count. Everybody who wants to know at
// one time shares the question.
func (k *known) get(ctx context.Context, n name.Name, before time.Time) (*answer, error) {
	k.mu.Lock()
	a := k.sites[n.Key]
	if a == nil || a.stale(time.Now(), before) {
		old := a
		a = &answer{ready: make(chan struct{})}
		if !k.start(func() { k.ask(n, a, old) }) {
			k.mu.Unlock()
			return nil, net.ErrClosed
		}
		k.makeRoom()
		k.sites[n.Key] = a
	}
	k.mu.Unlock()
	select {
	case <-a.ready:
		return a, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (a *answer) stale(now, before time.Time) bool {
	select {
	case <-a.ready:
	default:
		return false
	}
	return !now.Before(a.until) || !a.at.After(before) && now.Sub(a.at) >= askAgain
}

// makeRoom forgets any one site when there are too many: it can be asked for
// again.
func (k *known) makeRoom() {
	if len(k.sites) < maxKnown {
		return
	}
	for key := range k.sites {
		delete(k.sites, key)
		return
	}
}

// ask fills in a, the successor of old, which may be nil.
func (k *known) ask(n name.Name, a, old *answer) {
	defer close(a.ready)
	ctx, cancel := context.WithTimeout(k.ctx, askTimeout)
	defer cancel()
	var events []*envelope.Event
	err := errUnknown
	select {
	case k.asking <- struct{}{}:
		events, err = k.find(ctx, n)
		<-k.asking
	case <-ctx.Done():
	}
	a.at = time.Now()
	life := goodFor
	if err != nil {
		a.err, life = errUnknown, failedFor
	} else if a.list, a.err = cert.VerifyAll(events, envelope.PublicKey(n.Key), a.at); a.err != nil {
		life = noneFor
	}
	for _, attested := range a.list {
		attested.Certificate = nil // its key's hash is enough
	}
	// What a relay has lost counts still: every attestation has its own end.
	if old != nil && (a.err == errUnknown || a.err == cert.ErrNone) {
		a.list, a.err = old.list, old.err
	}
	a.until = a.at.Add(life)
}

// check returns the check of a handshake with a site: its key must be among
// those of the answer, or of one that is asked for now.
func (k *known) check(ctx context.Context, n name.Name, a *answer) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		err := cert.VerifyConnection(time.Now, a.list)(cs)
		if err == nil {
			return nil
		}
		newer, failed := k.get(ctx, n, a.at)
		if failed != nil || newer.err != nil || newer == a {
			return err
		}
		return cert.VerifyConnection(time.Now, newer.list)(cs)
	}
}
