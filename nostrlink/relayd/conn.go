package relayd

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
)

// pipeline is how many messages of a connection may be under way between its
// reader and its sequencer.
const pipeline = 4

// conn is one client.
type conn struct {
	server  *Server
	ws      *ws.Conn
	jobs    chan *job // from the reader to the sequencer, in order
	matcher matcher
	asked   time.Time // when an unanswered ping was sent; of Server.watch only

	// Of the sequencer only:
	subs   map[string]*subscription
	values int // of all filters
	faults int
}

// job is a message on its way from the reader to the sequencer.
type job struct {
	message *message
	parsed  nip01.ClientMessage
	event   envelope.Event
	fault   error         // why the message cannot be handled
	ready   chan struct{} // closed when the event has been verified; nil: nothing to wait for
	verdict error         // of the verification
}

type subscription struct {
	conn    *conn
	head    []byte // ["EVENT",<id>,
	filings []*filing
	filters []*filter
	values  int
}

var tail = []byte{']'}

// read is the connection's reader. It returns when the connection has ended.
func (c *conn) read() {
	defer close(c.jobs)
	s := c.server
	rate := s.rate.limiter(s.limits.MaxEvent, time.Now())
	for {
		if c.ws.Next() != nil {
			return
		}
		m := s.memory.take(c.ws.Done())
		if m == nil {
			return
		}
		b, err := c.ws.ReadMessage(m.b, s.limits.MaxMessage, s.limits.MessageTimeout)
		if err != nil {
			m.Release()
			if errors.Is(err, ws.ErrTooBig) {
				c.farewell(ws.StatusTooBig, fmt.Sprintf("message is larger than %d bytes", s.limits.MaxMessage))
				c.ws.Drain()
			}
			return
		}
		s.stats.bytesIn.Add(uint64(len(b)))
		j := &job{message: s.memory.fit(m, b)}
		j.parse()
		if j.parsed.Verb == nip01.Event && j.fault == nil {
			if j.fault = s.acceptable(j); j.fault == nil {
				j.fault = rate.take(len(j.parsed.Event), time.Now())
			}
			if j.fault == nil {
				j.ready = make(chan struct{})
				s.work <- j
			}
		}
		c.jobs <- j
	}
}

func (j *job) parse() {
	if !utf8.Valid(j.message.b) {
		// A client that gets this forwarded would have to drop its connection.
		j.fault = errors.New("message is not UTF-8")
		return
	}
	j.parsed, j.fault = nip01.ParseClientMessage(j.message.b)
	if j.fault == nil && j.parsed.Verb == nip01.Event {
		j.event, j.fault = envelope.ParseEvent(j.parsed.Event)
	}
}

// sequence is the connection's sequencer. It returns after the reader.
func (c *conn) sequence() {
	for j := range c.jobs {
		if j.ready != nil {
			<-j.ready
		}
		c.handle(j)
		j.message.Release()
		if c.faults > c.server.limits.MaxFaults {
			c.farewell(ws.StatusPolicy, "too many malformed messages")
		}
	}
	for id := range c.subs {
		c.unsubscribe(id)
	}
}

func (c *conn) handle(j *job) {
	switch verb := j.parsed.Verb; {
	case j.fault != nil:
		c.refuse(j)
	case verb == nip01.Event:
		c.publish(j)
	case verb == nip01.Req:
		c.request(j)
	case verb == nip01.Close:
		c.unsubscribe(string(j.parsed.Subscription))
	case verb == nip01.Count:
		c.answer(nip01.AppendClosed(nil, j.parsed.Token, "unsupported: this relay does not count"))
	case verb == nip01.Auth:
		c.notice("unsupported: this relay asks nobody to authenticate")
	default:
		c.notice(fmt.Sprintf("unsupported: unknown message type %.20q", string(verb)))
	}
}

// refuse answers a message that cannot be handled, as specifically as NIP-01
// allows.
func (c *conn) refuse(j *job) {
	reason := "invalid: " + plain(j.fault)
	var r refusal
	switch {
	case errors.As(j.fault, &r):
		c.verdict(j, false, r.Error())
		return
	case j.parsed.Token != nil:
		c.answer(nip01.AppendClosed(nil, j.parsed.Token, reason))
	default:
		c.notice(reason)
	}
	c.faults++
}

// plain is an error's text without the packages it came through.
func plain(err error) string {
	text := err.Error()
	for _, p := range []string{"nip01: ", "envelope: "} {
		text = strings.TrimPrefix(text, p)
	}
	return text
}

// refusal is a no to an event, with the prefix of NIP-01.
type refusal string

func (r refusal) Error() string { return string(r) }

// publish handles an event whose check is over.
func (c *conn) publish(j *job) {
	if j.verdict != nil {
		c.faults++
		c.verdict(j, false, "invalid: "+plain(j.verdict))
		return
	}
	s, e, now := c.server, &j.event, time.Now()
	if classOf(e.Kind) != ephemeral {
		switch duplicate, outdated := s.store.put(e, j.parsed.Event, expiration(e), now); {
		case duplicate:
			c.verdict(j, true, "duplicate: already have this event")
			return
		case outdated:
			c.verdict(j, false, "duplicate: have a newer version of this event")
			return
		}
	}
	subs := c.matcher.match(e)
	if len(subs) == 0 && classOf(e.Kind) == ephemeral {
		c.verdict(j, false, "mute: no one is listening for this event")
		return
	}
	n := 0
	until := c.patience()
	for _, sub := range subs {
		j.message.retain()
		m := ws.Message{Head: sub.head, Body: j.parsed.Event, Tail: tail, Owner: j.message}
		if c.send(sub.conn, m, until) {
			n++
		}
	}
	s.stats.forwarded.Add(uint64(n))
	s.stats.bytesOut.Add(uint64(n * len(j.parsed.Event)))
	c.verdict(j, true, "")
	if s.observe != nil {
		s.observe(Observation{Kind: e.Kind, Author: e.PubKey, Recipient: recipient(e), Size: len(j.parsed.Event), Subscribers: n})
	}
}

func (c *conn) verdict(j *job, accepted bool, reason string) {
	if accepted {
		c.server.stats.accepted.Add(1)
	} else {
		c.server.stats.refused.Add(1)
	}
	c.answer(nip01.AppendOK(nil, j.event.ID, accepted, reason))
}

func (c *conn) notice(text string) { c.answer(nip01.AppendNotice(nil, text)) }

func (c *conn) answer(msg []byte) { c.send(c, ws.Message{Body: msg}, c.patience()) }

// patience is until when one message may wait for room in queues.
func (c *conn) patience() time.Time { return time.Now().Add(3 * c.server.limits.SlowTimeout) }

// send queues a message for a connection, perhaps our own. While its queue is
// full it waits: until it has taken nothing for Limits.SlowTimeout, then it is
// cut; and not beyond until, then it goes without the message.
func (c *conn) send(to *conn, m ws.Message, until time.Time) bool {
	room, err := to.ws.TrySend(m, c.server.limits.MaxQueue)
	if room == nil && err == nil {
		return true
	}
	for err == nil {
		_, stalled := to.ws.Queued()
		slow := c.server.limits.SlowTimeout - stalled
		wait := min(slow, time.Until(until))
		if wait <= 0 {
			if slow <= 0 {
				c.server.stats.slow.Add(1)
				to.ws.Fail(errSlow)
			}
			break
		}
		timer := time.NewTimer(wait)
		select {
		case <-room:
		case <-timer.C:
		}
		timer.Stop()
		if room, err = to.ws.TrySend(m, c.server.limits.MaxQueue); room == nil && err == nil {
			return true
		}
	}
	c.server.stats.dropped.Add(1)
	if m.Owner != nil {
		m.Owner.Release()
	}
	return false
}

var errSlow = errors.New("relayd: the client reads too slowly")

// request handles a REQ.
func (c *conn) request(j *job) {
	s, m := c.server, &j.parsed
	sub := c.compile(j)
	if sub == nil {
		c.refuse(j)
		return
	}
	if refusal := c.subscribe(string(m.Subscription), sub); refusal != "" {
		c.answer(nip01.AppendClosed(nil, m.Token, refusal))
		return
	}
	// From here on new events are forwarded. One that is stored in this moment
	// may come twice, none is missed.
	for _, e := range s.store.query(sub.filters, time.Now()) {
		if !c.send(c, ws.Message{Head: sub.head, Body: e.raw, Tail: tail}, c.patience()) {
			return
		}
	}
	c.answer(nip01.AppendEOSE(nil, m.Token))
}

// compile makes the subscription that a REQ asks for, or sets the job's fault.
// As filters take more memory than their text, only as many connections do this
// at a time as there are processors.
func (c *conn) compile(j *job) *subscription {
	s := c.server
	s.compiling <- struct{}{}
	defer func() { <-s.compiling }()
	var filters []nip01.Filter
	if filters, j.fault = nip01.ParseFilters(j.parsed.Filters, s.limits.MaxFilters); j.fault != nil {
		return nil
	}
	sub := &subscription{conn: c, head: append(append([]byte(`["EVENT",`), j.parsed.Token...), ',')}
	for i := range filters {
		f := newFilter(&filters[i], s.limits.MaxLimit)
		sub.filters = append(sub.filters, f)
		sub.filings = append(sub.filings, &filing{sub, f})
		sub.values += f.values()
	}
	return sub
}

// subscribe puts a subscription in the place of the one with its id, or says why
// not. What it does not replace it closes, so that the client need not guess
// which filters are in force.
func (c *conn) subscribe(id string, sub *subscription) (refusal string) {
	limits, old := &c.server.limits, c.subs[id]
	values := c.values + sub.values
	if old != nil {
		values -= old.values
	}
	switch {
	case old == nil && len(c.subs) >= limits.MaxSubscriptions:
		return fmt.Sprintf("error: more than %d subscriptions", limits.MaxSubscriptions)
	case values > limits.MaxFilterValues:
		c.unsubscribe(id)
		return fmt.Sprintf("error: more than %d values in the filters", limits.MaxFilterValues)
	case !c.server.index.replace(old, sub):
		c.unsubscribe(id)
		return "error: the relay has too many subscriptions, try later"
	}
	c.subs[id], c.values = sub, values
	if old == nil {
		c.server.stats.subscriptions.Add(1)
	}
	return ""
}

func (c *conn) unsubscribe(id string) {
	if sub := c.subs[id]; sub != nil {
		c.server.index.replace(sub, nil)
		c.server.stats.subscriptions.Add(-1)
		c.values -= sub.values
		delete(c.subs, id)
	}
}

// farewell tells the client why it is cut, and cuts it. It does not wait.
func (c *conn) farewell(code uint16, reason string) {
	c.ws.TrySend(ws.Message{Body: nip01.AppendNotice(nil, "error: "+reason)}, c.server.limits.MaxQueue)
	c.ws.Finish(code, reason)
}

// recipient is the key in the event's first p tag that holds one.
func recipient(e *envelope.Event) (key envelope.PublicKey) {
	for name, value := range e.Tags {
		if string(name) == "p" && nip01.IsHex32(string(value)) {
			return keys[envelope.PublicKey]([]string{string(value)})[0]
		}
	}
	return key
}
