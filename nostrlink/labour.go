package nostrlink

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"

	"github.com/nws-vpn/nws-vpn/nostrlink/announce"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// labour does the work (NIP-13) that relays ask for of what they keep, up to
// mostWork, on one processor at a time.
type labour struct {
	key envelope.SecretKey // of all events

	mu   sync.Mutex
	asks map[*post]int // bits

	working sync.Mutex     // held while it takes, and guards what follows
	of      [32]byte       // the last event that was worked on,
	made    announce.Event // what came of it,
	bits    int            // and what was aimed at
}

// deliver is post.deliver with the work that the relay asks for: it says so in
// its refusal, and knows what it wants best.
func (l *labour) deliver(ctx context.Context, p *post, ev announce.Event) error {
	for {
		with, err := l.add(ctx, p, ev)
		if err != nil {
			return err
		}
		err = p.deliver(ctx, with)
		var refused *refusedEvent
		if !errors.As(err, &refused) || !l.learn(p, refused.reason) {
			return err
		}
	}
}

// add returns an event with the work that a relay is known to ask for.
func (l *labour) add(ctx context.Context, p *post, ev announce.Event) (announce.Event, error) {
	l.mu.Lock()
	bits := l.asks[p]
	l.mu.Unlock()
	if bits == 0 {
		return ev, nil
	}
	l.working.Lock()
	defer l.working.Unlock()
	if l.of == ev.ID && l.bits >= bits {
		return l.made, nil
	}
	event, id, err := envelope.Rework(ctx, l.key, ev.JSON, bits)
	if err != nil {
		return ev, err
	}
	l.of, l.made, l.bits = ev.ID, announce.Event{JSON: event, ID: id}, bits
	return l.made, nil
}

// learn notes what a refusal asks for, and reports whether that is more than
// before and not too much.
func (l *labour) learn(p *post, reason string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	bits := askedFor(reason)
	if bits <= l.asks[p] || bits > mostWork {
		return false
	}
	if l.asks == nil {
		l.asks = make(map[*post]int)
	}
	l.asks[p] = bits
	return true
}

var numbers = regexp.MustCompile(`[0-9]+`)

// askedFor is how much work a relay's refusal asks for, in bits, 0 for none: of
// the numbers in it the largest, as what there is too little of is less.
func askedFor(reason string) (bits int) {
	if relay.Prefix(reason) != "pow" {
		return 0
	}
	for _, s := range numbers.FindAllString(reason, -1) {
		if n, err := strconv.Atoi(s); err == nil {
			bits = max(bits, n)
		}
	}
	return bits
}

// PublishOwn is Publish of an event of key's own to one relay, with the work that
// the relay asks for of what it keeps (NIP-13): a few seconds of one processor at
// most.
func (h *Hub) PublishOwn(ctx context.Context, key envelope.SecretKey, relay string, event []byte, id [32]byte) error {
	l := labour{key: key}
	return h.each(ctx, []string{relay}, func(p *post) error {
		if err := l.deliver(ctx, p, announce.Event{JSON: event, ID: id}); err != nil {
			return fmt.Errorf("relay %s: %w", p.url, err)
		}
		return nil
	})
}
