package nostrlink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/compat"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// courier publishes the messages of NWS as written.
type courier struct {
	keys *compat.Keys
	// via says over which relays a peer is reached.
	via func(peer envelope.PublicKey) []*post
}

var _ compat.Sender = (*courier)(nil)

// Send implements compat.Sender. It returns when every relay that the peer may
// listen at has given its verdict, of which one must be good.
func (c *courier) Send(ctx context.Context, to envelope.PublicKey, plaintext []byte) error {
	posts := c.via(to)
	if len(posts) == 0 {
		return errors.New("no relay is connected")
	}
	event, id, err := c.keys.Seal(to, plaintext, time.Now())
	if err != nil {
		return err
	}
	if len(posts) == 1 {
		return posts[0].insist(ctx, event, id)
	}
	errs := make([]error, len(posts))
	var all sync.WaitGroup
	for i, p := range posts {
		all.Go(func() { errs[i] = p.insist(ctx, event, id) })
	}
	all.Wait()
	for _, err := range errs {
		if err == nil {
			return nil
		}
	}
	return errors.Join(errs...)
}

// redeliveries are the pauses before an event that a relay did not take is
// offered again: the peer's subscription may be on its way, or the connection
// was lost before the verdict.
var redeliveries = [...]time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second, 2 * time.Second}

// maxPaced is how often an event is offered again that came too soon for the
// relay's rate limit, which the connection keeps from then on.
const maxPaced = 20

// insist publishes an event until the relay takes it, or will not.
func (p *post) insist(ctx context.Context, event []byte, id [32]byte) error {
	for tries, paced := 0, 0; ; {
		said, err := p.offer(ctx, event, id)
		if err != nil || said == "" {
			return err
		}
		pause := time.Duration(0)
		switch prefix := relay.Prefix(said); {
		case prefix == "rate-limited" && paced < maxPaced:
			paced++
			pause = redeliveries[0]
		case isFinal(prefix), prefix == "rate-limited", tries == len(redeliveries):
			return fmt.Errorf("relay %s: %s", p.url, oneLine(strings.ToValidUTF8(said, "?")))
		default:
			pause = redeliveries[tries]
			tries++
		}
		sleep(ctx, pause)
	}
}

// offer publishes an event and waits for the relay's verdict: nothing when it
// has taken it.
func (p *post) offer(ctx context.Context, event []byte, id [32]byte) (refusal string, err error) {
	verdict := make(chan string, 1)
	err = p.publish(ctx, event, id, func(accepted bool, reason string) {
		switch {
		case accepted, relay.Prefix(reason) == "duplicate":
			reason = ""
		case reason == "":
			reason = "refused"
		}
		verdict <- reason
	})
	if err != nil {
		return "", err
	}
	select {
	case refusal = <-verdict:
		return refusal, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// ourSoftware is what the embedded relay calls itself.
const ourSoftware = "https://github.com/nws-vpn/nws-vpn"

// gap is how long to wait between events whose order matters: relays may sort
// what comes close together, but ours does not.
func (p *post) gap() time.Duration {
	select {
	case <-p.described:
		if p.info.Software == ourSoftware {
			return compat.ShortGap
		}
	default:
	}
	return compat.DefaultGap
}

// maxMessage is the longest message of NWS that fits an event for the relay, in
// bytes, or 0 while that is not known.
func (p *post) maxMessage() int {
	select {
	case <-p.described:
		l := p.info.Limitation
		return max(1, packetFor(l.MaxMessageLength, l.MaxContentLength))
	default:
		return 0
	}
}

// connected reports whether the relay can be used now.
func (p *post) connected() bool { return p.client.Status().State == relay.Connected }
