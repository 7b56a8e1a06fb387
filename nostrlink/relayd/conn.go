package relayd

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
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
	server    *Server
	ws        *ws.Conn
	source    source
	local     netip.AddrPort // that the client is connected to, or zero
	challenge string
	identity  identity
	jobs      chan *job // from the reader to the sequencer, in order
	asked     time.Time // when an unanswered ping was sent; of Server.watch only

	// Of the sequencer only:
	matcher matcher
	subs    map[string]*subscription
	values  int // of all filters
	faults  int
	fanOut  fanOut
	acks    chan ack // to the acknowledger, once there is one
	acking  sync.WaitGroup
}

// job is a message on its way from the reader to the sequencer.
type job struct {
	message *message
	parsed  nip01.ClientMessage
	event   envelope.Event
	fault   error         // why the message cannot be handled
	vouched bool          // the client has proved to be the author: no signature is needed
	ready   chan struct{} // closed when the event has been checked; nil: nothing to wait for
	verdict error         // of the check
}

var tail = []byte{']'}

// serve is the connection's life.
func (c *conn) serve() {
	c.answer(nip01.AppendAuth(nil, c.challenge))
	var sequencer sync.WaitGroup
	sequencer.Go(c.sequence)
	c.read()
	c.ws.CloseNow() // free the queue: the sequencer may be waiting for room in it
	sequencer.Wait()
}

// read is the connection's reader. It returns when the connection has ended.
func (c *conn) read() {
	defer close(c.jobs)
	s := c.server
	var rate limiter
	var of *settings
	for {
		if c.ws.Next() != nil {
			return
		}
		m := s.memory.take(c.ws.Done())
		if m == nil {
			return
		}
		b, err := c.ws.ReadMessage(m.b, s.limits().MaxMessage, s.limits().MessageTimeout)
		if err != nil {
			m.Release()
			if errors.Is(err, ws.ErrTooBig) {
				c.farewell(ws.StatusTooBig, fmt.Sprintf("message is larger than %d bytes", s.limits().MaxMessage))
				c.ws.Drain()
			}
			return
		}
		s.stats.bytesIn.Add(uint64(len(b)))
		if set := s.settings.Load(); set != of {
			of, rate = set, set.rate.limiter(set.limits.MaxEvent, time.Now())
		}
		j := &job{message: s.memory.fit(m, b)}
		j.parse()
		if j.fault == nil {
			j.fault = c.limit(j, &rate, time.Now())
		}
		if j.fault == nil && j.hasEvent() {
			// Only what is forwarded at once needs no signature: what is kept
			// is also given to those who did not see who published it.
			j.vouched = j.parsed.Verb == nip01.Event && classOf(j.event.Kind) == ephemeral && c.identity.holds(j.event.PubKey)
			j.ready = make(chan struct{})
			s.work <- j
		}
		c.jobs <- j
	}
}

// limit says why a message is not even looked at closely, or nil. A request it
// holds up until it is its turn.
func (c *conn) limit(j *job, rate *limiter, now time.Time) error {
	s := c.server
	switch j.parsed.Verb {
	case nip01.Event, nip01.Auth:
		var err error
		if j.parsed.Verb == nip01.Event {
			err = s.acceptable(j, now)
		}
		if err == nil {
			err = rate.take(len(j.parsed.Event), now)
		}
		if err == nil && c.source.bounded() {
			err = s.settings.Load().addressRate.take(c.source, len(j.parsed.Event), now)
		}
		return err
	case nip01.Req, nip01.Count:
		wait := rate.request(now)
		if c.source.bounded() {
			wait = max(wait, s.settings.Load().addressRate.request(c.source, now))
		}
		c.pause(wait)
	}
	return nil
}

// pause holds the reader up, but not beyond the connection's end.
func (c *conn) pause(wait time.Duration) {
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ws.Done():
	}
}

func (j *job) hasEvent() bool { return j.parsed.Verb == nip01.Event || j.parsed.Verb == nip01.Auth }

func (j *job) parse() {
	if !utf8.Valid(j.message.b) {
		// A client that gets this forwarded would have to drop its connection.
		j.fault = errors.New("message is not UTF-8")
		return
	}
	j.parsed, j.fault = nip01.ParseClientMessage(j.message.b)
	if j.fault == nil && j.hasEvent() {
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
		if c.faults > c.server.limits().MaxFaults {
			c.farewell(ws.StatusPolicy, "too many malformed messages")
		}
	}
	for id := range c.subs {
		c.unsubscribe(id)
	}
	if c.acks != nil {
		close(c.acks)
		c.acking.Wait()
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
	case verb == nip01.Count:
		c.count(j)
	case verb == nip01.Close:
		c.unsubscribe(string(j.parsed.Subscription))
	case verb == nip01.Auth:
		c.authenticate(j)
	default:
		c.faults++
		c.notice(fmt.Sprintf("unsupported: unknown message type %.20q", string(verb)))
	}
}

// refuse answers a message that cannot be handled, as specifically as NIP-01
// allows.
func (c *conn) refuse(j *job) {
	reason := "invalid: " + plain(j.fault)
	var r refusal
	if errors.As(j.fault, &r) {
		reason = r.Error()
	} else {
		c.faults++
	}
	switch {
	case r != "" && j.hasEvent():
		c.verdict(j, false, reason)
	case j.parsed.Token != nil:
		c.answer(nip01.AppendClosed(nil, j.parsed.Token, reason))
	default:
		c.notice(reason)
	}
}

// plain is an error's text without the packages it came through.
func plain(err error) string {
	text := err.Error()
	for _, p := range []string{"nip01: ", "envelope: "} {
		text = strings.TrimPrefix(text, p)
	}
	return text
}

// refusal is a no, with the prefix of NIP-01.
type refusal string

func (r refusal) Error() string { return string(r) }

// verdict answers an event.
func (c *conn) verdict(j *job, accepted bool, reason string) {
	if accepted {
		c.server.stats.accepted.Add(1)
	} else {
		c.server.stats.refuse(reason)
	}
	c.ok(j, accepted, reason)
}

func (c *conn) ok(j *job, accepted bool, reason string) {
	c.answer(nip01.AppendOK(nil, j.event.ID, accepted, reason))
}

func (c *conn) notice(text string) { c.answer(nip01.AppendNotice(nil, text)) }

// answer sends to the client itself, for which nobody else waits.
func (c *conn) answer(msg []byte) { c.send(c, ws.Message{Body: msg}) }

// farewell tells the client why it is cut, and cuts it. It does not wait.
func (c *conn) farewell(code uint16, reason string) {
	c.ws.TrySend(ws.Message{Body: nip01.AppendNotice(nil, "error: "+reason)}, c.server.limits().MaxQueue)
	c.ws.Finish(code, reason)
}
