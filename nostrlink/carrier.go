package nostrlink

import (
	"context"
	"fmt"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
	"github.com/nws-vpn/nws-vpn/nostrlink/session"
)

// relayCarrier carries a session's packets as encrypted events over one
// connection to one relay.
type relayCarrier struct {
	bundle    *bundle
	post      *post
	inbox     *box
	maxPacket int
	path      *session.Path // set once attached is closed
	attached  chan struct{}
	ctx       context.Context
	cancel    context.CancelFunc
	refused   chan error // takes one: the relay wants none of our events

	sealer *envelope.Sealer // of the one goroutine that sends
	event  []byte           // likewise
	sends  uint64           // likewise

	opener *envelope.Opener
}

var _ session.Carrier = (*relayCarrier)(nil)

// attach makes a carrier of the bundle's session, with packets of at most
// maxPacket bytes, and gives it to the session.
func attach(b *bundle, t *track, maxPacket int) *relayCarrier {
	ctx, cancel := context.WithCancel(context.Background())
	c := &relayCarrier{
		bundle: b, post: t.post, inbox: t.inbox,
		maxPacket: maxPacket,
		ctx:       ctx, cancel: cancel,
		attached: make(chan struct{}),
		refused:  make(chan error, 1),
		sealer:   envelope.NewSealer(b.secrets.local, b.secrets.peer, b.secrets.key),
	}
	c.opener = envelope.NewOpener(b.secrets.key, c.opened)
	c.path = b.session.Attach(c) // calls Send before it returns
	close(c.attached)
	c.inbox.redirect(c.receive)
	return c
}

// MaxPacket implements session.Carrier.
func (c *relayCarrier) MaxPacket() int { return c.maxPacket }

// Send implements session.Carrier: it seals the packet into an event and hands
// that to the relay's connection, waiting while the relay has too much of ours
// to answer or its rate limit leaves no room.
func (c *relayCarrier) Send(packet []byte) error {
	<-c.attached
	event, id, err := c.sealer.Seal(c.event[:0], packet, time.Now())
	if err != nil {
		return err
	}
	c.event = event
	index := c.sends
	c.sends++
	return c.post.publish(c.ctx, event, id, func(accepted bool, reason string) { c.onOK(index, accepted, reason) })
}

// Close implements session.Carrier.
func (c *relayCarrier) Close() error {
	c.inbox.redirect(nil)
	c.opener.Close()
	c.cancel()
	return nil
}

// receive has an event opened and its packet given to the session. The event's own
// signature is not checked: the key that opens it is known to the two ends
// only, and the packet inside says which session, direction and number it has,
// so that a relay can neither forge, reflect, replay nor transplant it.
func (c *relayCarrier) receive(ev *envelope.Event, _ []byte) {
	if ev.PubKey != c.bundle.secrets.peer {
		return
	}
	_ = c.opener.Open(ev.Content) // what it does not take is noise
}

func (c *relayCarrier) opened(packet []byte) {
	<-c.attached
	c.path.Receive(packet)
	c.bundle.hear()
}

// onOK hears what the relay did with an event.
func (c *relayCarrier) onOK(index uint64, accepted bool, reason string) {
	switch prefix := relay.Prefix(reason); { // NIP-01's and NIP-42's words
	case accepted:
	case prefix == "rate-limited":
		c.path.Rejected(index)
		return
	case prefix == "mute":
		c.bundle.mute()
	case isFinal(prefix):
		select {
		case c.refused <- fmt.Errorf("relay %s refuses our events: %s", c.post.url, oneLine(reason)):
		default:
		}
	}
	// Of everything else the session learns what arrived from the other end.
	c.path.Accepted(index)
}

// isFinal reports whether a refusal with this prefix holds for whatever we
// would send next.
func isFinal(prefix string) bool {
	switch prefix {
	case "blocked", "restricted", "invalid", "auth-required", "pow":
		return true
	}
	return false
}
