package relayd

import (
	"errors"
	"slices"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
)

// publish handles an event whose check is over.
func (c *conn) publish(j *job) {
	if j.verdict != nil {
		c.faults++
		c.verdict(j, false, "invalid: "+plain(j.verdict))
		return
	}
	s, e, now := c.server, &j.event, time.Now()
	if err := c.mayPublish(j, now); err != nil {
		c.verdict(j, false, err.Error())
		return
	}
	passing := classOf(e.Kind) == ephemeral
	var ticket uint64
	if !passing {
		var what outcome
		if what, ticket = s.store.put(e, j.parsed.Event, now); what != added {
			c.notAdded(j, what, ticket)
			return
		}
	}
	subs := c.matcher.match(e)
	defer c.matcher.forget()
	if passing && len(subs) == 0 {
		c.verdict(j, false, "mute: no one is listening for this event")
		return
	}
	n := c.forward(j, subs)
	s.stats.forwarded.Add(uint64(n))
	s.stats.bytesOut.Add(uint64(n * len(j.parsed.Event)))
	c.acknowledge(j, ticket, "")
	if s.observe != nil {
		s.observe(Observation{Kind: e.Kind, Author: e.PubKey, Recipient: recipient(e), Size: len(j.parsed.Event), Subscribers: n})
	}
}

// mayPublish says why a good event is not accepted from this client, or nil.
func (c *conn) mayPublish(j *job, now time.Time) error {
	if err := c.admit(); err != nil {
		return err
	}
	if err := c.protects(&j.event); err != nil {
		return err
	}
	// Only now, so that nobody can use an author's rate up with forged events.
	return c.server.settings.Load().keyRate.take(j.event.PubKey, len(j.parsed.Event), now)
}

func (c *conn) notAdded(j *job, what outcome, ticket uint64) {
	switch what {
	case duplicate:
		c.acknowledge(j, ticket, "duplicate: already have this event")
	case outdated:
		c.verdict(j, false, "duplicate: have a newer version of this event")
	case deleted:
		c.verdict(j, false, "blocked: its author has deleted this event")
	default:
		c.verdict(j, false, "error: the event cannot be kept now, try later")
	}
}

// ack is an event that is accepted once the disk has it.
type ack struct {
	id     [32]byte
	ticket uint64
	reason string
}

// maxAcks bounds the events of a connection that wait for the disk.
const maxAcks = 256

// acknowledge accepts an event; one with a ticket when the disk has it, which
// the connection's acknowledger waits for.
func (c *conn) acknowledge(j *job, ticket uint64, reason string) {
	if ticket == 0 {
		c.verdict(j, true, reason)
		return
	}
	if c.acks == nil {
		c.acks = make(chan ack, maxAcks)
		c.acking.Go(c.acknowledgeAll)
	}
	c.acks <- ack{j.event.ID, ticket, reason}
}

func (c *conn) acknowledgeAll() {
	for a := range c.acks {
		if err := c.server.store.disk.wait(a.ticket); err != nil {
			reason := "error: the event could not be written to disk, try later"
			c.server.stats.refuse(reason)
			c.answer(nip01.AppendOK(nil, a.id, false, reason))
			continue
		}
		c.server.stats.accepted.Add(1)
		c.answer(nip01.AppendOK(nil, a.id, true, a.reason))
	}
}

// fanOut is how a publisher treats subscribers whose queues are full. To the one
// subscriber that it publishes to at a time it goes at the subscriber's pace.
// When it serves several, none of them shall hold up the others, whether with
// the same events or with their own: it waits a small share of its time, and
// then those who are too slow lose events.
type fanOut struct {
	last    *conn     // that took an event
	changed time.Time // when that was last another
	credit  bucket    // milliseconds to wait for one of several
}

const (
	// waitShare is the milliseconds of a second that a publisher waits at most
	// for some of several subscribers, waitBurst how many of them at once.
	waitShare = 10
	waitBurst = 100
)

// alone reports whether the publisher serves only that subscriber.
func (f *fanOut) alone(to *conn, now time.Time, memory time.Duration) bool {
	if f.last == nil {
		f.last = to
	}
	if f.last != to {
		f.last, f.changed = to, now
	}
	return f.changed.IsZero() || now.Sub(f.changed) > memory
}

// patience is how long to wait for one of several subscribers.
func (f *fanOut) patience(now time.Time) time.Duration {
	if f.credit.filled.IsZero() {
		f.credit = newBucket(waitShare, waitBurst, 0, now)
	}
	f.credit.fill(now)
	return time.Duration(f.credit.tokens) * time.Millisecond
}

func (f *fanOut) spend(waited time.Duration) {
	f.credit.tokens = max(0, f.credit.tokens-float64(waited)/float64(time.Millisecond))
}

// forward queues an event for its subscribers and returns for how many. If some
// of them have proved to be its recipients, the others are only watching, and
// nobody waits for them.
func (c *conn) forward(j *job, subs []*subscription) (n int) {
	targets, some := addressed(&j.event, subs)
	for _, sub := range subs {
		j.message.retain()
		m := ws.Message{Head: sub.head, Body: j.parsed.Event, Tail: tail, Owner: j.message}
		watching := some && !targets[sub.conn]
		if c.pass(sub.conn, m, watching) {
			n++
		}
	}
	return n
}

// addressed finds out which of several subscribers have proved to be recipients of
// the event, and whether any has. It asks each connection once, however many of
// its subscriptions want the event, which may have hundreds of recipients.
func addressed(e *envelope.Event, subs []*subscription) (targets map[*conn]bool, some bool) {
	if len(subs) < 2 {
		return nil, false // there is nobody to prefer
	}
	var to []envelope.PublicKey
	for _, sub := range subs {
		if _, asked := targets[sub.conn]; asked || !sub.conn.identity.known() {
			continue
		}
		if targets == nil {
			targets, to = make(map[*conn]bool), slices.Collect(recipients(e))
			slices.SortFunc(to, compareKeys)
		}
		is := sub.conn.identity.holdsOneOf(to)
		targets[sub.conn] = is
		some = some || is
	}
	return targets, some
}

// pass queues an event for a subscriber, waiting for room no longer than fanOut
// says.
func (c *conn) pass(to *conn, m ws.Message, watching bool) bool {
	timeout := c.server.limits().SlowTimeout
	room, err := to.ws.TrySend(m, c.server.limits().MaxQueue)
	now := time.Now()
	alone := !watching && c.fanOut.alone(to, now, timeout)
	switch {
	case room == nil && err == nil:
		return true
	case err != nil:
	case alone:
		return c.wait(to, m, room, now.Add(timeout), true)
	case watching:
	default:
		sent := c.wait(to, m, room, now.Add(c.fanOut.patience(now)), false)
		c.fanOut.spend(time.Since(now))
		return sent
	}
	if _, stalled := to.ws.Queued(); err == nil && stalled >= timeout {
		c.cut(to)
	}
	c.drop(m)
	return false
}

// send queues a message for a connection. While its queue is full it waits, for
// Limits.SlowTimeout; then the connection is cut.
func (c *conn) send(to *conn, m ws.Message) bool {
	room, err := to.ws.TrySend(m, c.server.limits().MaxQueue)
	switch {
	case err != nil:
		c.drop(m)
		return false
	case room == nil:
		return true
	}
	return c.wait(to, m, room, time.Now().Add(c.server.limits().SlowTimeout), true)
}

// wait waits for room in a queue until a time. A connection that takes nothing
// for Limits.SlowTimeout is cut, and if must is set so is one that has no room
// by then; otherwise it only goes without the message.
func (c *conn) wait(to *conn, m ws.Message, room <-chan struct{}, until time.Time, must bool) bool {
	var err error
	for room != nil && err == nil {
		_, stalled := to.ws.Queued()
		if stalled >= c.server.limits().SlowTimeout {
			c.cut(to)
			break
		}
		left := time.Until(until)
		if left <= 0 {
			if must {
				c.cut(to)
			}
			break
		}
		timer := time.NewTimer(min(left, c.server.limits().SlowTimeout-stalled))
		select {
		case <-room:
		case <-timer.C:
		}
		timer.Stop()
		if room, err = to.ws.TrySend(m, c.server.limits().MaxQueue); room == nil && err == nil {
			return true
		}
	}
	c.drop(m)
	return false
}

func (c *conn) cut(slow *conn) {
	c.server.stats.slow.Add(1)
	slow.ws.Fail(errSlow)
}

func (c *conn) drop(m ws.Message) {
	c.server.stats.dropped.Add(1)
	if m.Owner != nil {
		m.Owner.Release()
	}
}

var errSlow = errors.New("relayd: the client reads too slowly")
