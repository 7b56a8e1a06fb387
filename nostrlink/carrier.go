package nostrlink

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
)

// relayCarrier carries a session's packets as encrypted events over one relay.
type relayCarrier struct {
	post      *post
	inbox     *box
	secrets   secrets
	maxPacket int
	path      *session.Path // set once attached is closed
	attached  chan struct{}
	ctx       context.Context
	cancel    context.CancelFunc
	gone      chan struct{} // closed when nothing will come this way again

	sealer *envelope.Sealer // of the one goroutine that sends
	event  []byte           // likewise
	sends  uint64           // likewise: how many Sends there were

	opening sync.Mutex
	plain   []byte // guarded by opening

	mu        sync.Mutex
	mutes     int  // since the peer was last heard
	heard     bool // at all
	lastHeard time.Time
	reason    error // why it is gone
}

var _ session.Carrier = (*relayCarrier)(nil)

// muteTimeout is how long a relay may say that nobody listens for the peer's
// session key before the peer counts as gone. A peer that has lost its own
// connection to the relay comes back within this; one that has restarted
// never does, as its keys are gone.
const muteTimeout = 8 * time.Second

// attach makes a carrier of the session s over the relay, sending packets of
// at most maxPacket bytes and receiving what arrives in inbox.
func attach(s *session.Session, p *post, inbox *box, sec secrets, maxPacket int) *relayCarrier {
	ctx, cancel := context.WithCancel(context.Background())
	c := &relayCarrier{
		post: p, inbox: inbox, secrets: sec,
		maxPacket: min(maxPacket, envelope.MaxPlaintext),
		ctx:       ctx, cancel: cancel, gone: make(chan struct{}), attached: make(chan struct{}),
		sealer:    envelope.NewSealer(sec.local, sec.peer, sec.key),
		lastHeard: time.Now(),
	}
	c.path = s.Attach(c) // calls Send before it returns
	close(c.attached)
	inbox.redirect(c.receive)
	return c
}

// MaxPacket implements session.Carrier.
func (c *relayCarrier) MaxPacket() int { return c.maxPacket }

// Send implements session.Carrier: it seals the packet into an event and hands
// that to the relay's connection, waiting while too many events have not been
// answered with OK.
func (c *relayCarrier) Send(packet []byte) error {
	<-c.attached
	index := c.sends
	c.sends++
	event, id, err := c.sealer.Seal(c.event[:0], packet, time.Now())
	if err != nil {
		return err
	}
	c.event = event
	return c.post.publish(c.ctx, event, id, func(accepted bool, reason string) { c.onOK(index, accepted, reason) })
}

// Close implements session.Carrier.
func (c *relayCarrier) Close() error {
	c.inbox.redirect(nil)
	c.cancel()
	return nil
}

// receive opens an event and hands its packet to the session. The event's own
// signature is not checked: the key that opens it is known to the two ends
// only, and the packet inside says which session, direction and number it has,
// so that a relay can neither forge, reflect, replay nor transplant it.
func (c *relayCarrier) receive(ev *envelope.Event, _ []byte) {
	if ev.PubKey != c.secrets.peer {
		return
	}
	c.opening.Lock()
	defer c.opening.Unlock()
	plain, err := envelope.Open(c.plain[:0], ev.Content, c.secrets.key)
	if err != nil {
		return
	}
	c.plain = plain
	c.mu.Lock()
	c.mutes, c.heard, c.lastHeard = 0, true, time.Now()
	c.mu.Unlock()
	c.path.Receive(plain)
}

// onOK hears what the relay did with the event of the Send with this index.
func (c *relayCarrier) onOK(index uint64, accepted bool, reason string) {
	c.path.Accepted(index)
	if accepted {
		return
	}
	switch relay.Prefix(reason) { // NIP-01's and NIP-42's words
	case "mute":
		c.mu.Lock()
		c.mutes++
		silent := time.Since(c.lastHeard)
		lost := c.mutes >= maxMutes && silent > muteTimeout
		c.mu.Unlock()
		if lost {
			c.lose(fmt.Errorf("relay %s: nobody listens for the peer any more: it has restarted or lost its network", c.post.url))
		}
	case "blocked", "restricted", "invalid", "auth-required":
		c.lose(fmt.Errorf("relay %s refuses our events: %s", c.post.url, oneLine(reason)))
	}
	// Everything else, such as rate-limited, is a lost packet to the session.
}

// watch returns when ctx ends, when the carrier is lost, or when the peer has
// been silent for too long: within first if it was never heard, else later.
func (c *relayCarrier) watch(ctx context.Context, first, later time.Duration) {
	allowed := first
	timer := time.NewTimer(allowed)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.gone:
			return
		case <-timer.C:
		}
		c.mu.Lock()
		silent, heard := time.Since(c.lastHeard), c.heard
		c.mu.Unlock()
		if heard {
			allowed = later
		}
		if silent >= allowed {
			c.lose(fmt.Errorf("nothing was heard from the peer for %v", silent.Round(time.Second)))
			return
		}
		timer.Reset(allowed - silent)
	}
}

// lose declares that nothing will come this way again.
func (c *relayCarrier) lose(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == nil {
		c.reason = reason
		close(c.gone)
	}
}

// lost is why the carrier is gone; it is nil before gone is closed.
func (c *relayCarrier) lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}
