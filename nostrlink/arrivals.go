package nostrlink

import (
	"bytes"
	"context"
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

type arrival struct {
	post *post
	raw  []byte // owned
}

func newArrivals(key envelope.SecretKey, maxPeers int) *arrivals {
	return &arrivals{keys: compat.NewKeys(key, maxPeers), queue: make(chan arrival, maxArrivals)}
}

// put queues a copy of an event. It reports whether there was room.
func (a *arrivals) put(post *post, raw []byte) bool {
	size := int64(len(raw))
	if a.bytes.Add(size) > maxArrivedBytes {
		a.bytes.Add(-size)
		return false
	}
	select {
	case a.queue <- arrival{post, bytes.Clone(raw)}:
		return true
	default:
		a.bytes.Add(-size)
		return false
	}
}

// serve calls take with what each event holds, or why it holds nothing, until
// ctx ends.
func (a *arrivals) serve(ctx context.Context, take func(post *post, in compat.Incoming, err error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-a.queue:
			a.bytes.Add(-int64(len(next.raw)))
			var in compat.Incoming
			ev, err := envelope.ParseEvent(next.raw)
			if err == nil {
				in, err = a.keys.Open(&ev)
			}
			take(next.post, in, err)
		}
	}
}
