package nostrlink

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
)

// Bounds of what waits to be opened for one key.
const (
	maxArrivals     = 1024 // events
	maxArrivedBytes = 16 << 20
)

// arrivals are the events for one key, of all relays, which one worker opens in
// the order in which they came: messages of NWS have no other order. A relay's
// read loop does not wait for it.
type arrivals struct {
	keys  *compat.Keys
	queue chan arrival
	bytes atomic.Int64
}

// arrival is an event, or what was in it if it was opened on arrival.
type arrival struct {
	post *post
	raw  []byte // owned, or nil
	in   compat.Incoming
	size int64
}

func newArrivals(key envelope.SecretKey, maxPeers int) *arrivals {
	return &arrivals{keys: compat.NewKeys(key, maxPeers), queue: make(chan arrival, maxArrivals)}
}

// Why an event is not queued.
var (
	errCrowded = errors.New("too many events wait")
	errLost    = errors.New("a message was lost, as too many events wait")
)

// put queues an event, which is borrowed. Anybody can send events in anybody's
// name, so when half the room is taken only those of peers that known admits
// get in, and not before they are opened and so found to be theirs. The error
// is errLost when such a message, which is returned, found no room.
func (a *arrivals) put(post *post, ev *envelope.Event, raw []byte, known func(envelope.PublicKey) bool) (lost compat.Incoming, err error) {
	next := arrival{post: post, size: int64(len(raw))}
	crowded := len(a.queue) >= maxArrivals/2 || a.bytes.Load() >= maxArrivedBytes/2
	switch {
	case !crowded:
		next.raw = bytes.Clone(raw)
	case !known(ev.PubKey):
		return lost, errCrowded
	default:
		if next.in, err = a.keys.Open(ev); err != nil {
			return lost, err
		}
	}
	if a.bytes.Add(next.size) <= maxArrivedBytes {
		select {
		case a.queue <- next:
			return lost, nil
		default:
		}
	}
	a.bytes.Add(-next.size)
	if next.raw != nil { // others were faster
		if next.in, err = a.keys.Open(ev); err != nil {
			return lost, err
		}
	}
	return next.in, errLost
}

// serve calls take with what each event holds, or why it holds nothing, until
// ctx ends.
func (a *arrivals) serve(ctx context.Context, take func(post *post, in compat.Incoming, err error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-a.queue:
			a.bytes.Add(-next.size)
			in, err := a.open(next)
			take(next.post, in, err)
		}
	}
}

func (a *arrivals) open(next arrival) (compat.Incoming, error) {
	if next.raw == nil {
		return next.in, nil
	}
	ev, err := envelope.ParseEvent(next.raw)
	if err != nil {
		return compat.Incoming{}, err
	}
	return a.keys.Open(&ev)
}
