package relaytest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
)

// maxWaiting bounds the deliveries that wait for one connection; a test that
// goes beyond loses the connection.
const maxWaiting = 64 << 20

const challenge = "relaytest-challenge"

// conn is one client. Its fields below mu are guarded by the relay's mu.
type conn struct {
	relay *Relay
	ws    *websocket.Conn
	// network is what ws runs over.
	network net.Conn
	ctx     context.Context // ends with the connection
	cut     context.CancelFunc
	wake    chan struct{}

	subs     map[string]subscription
	waiting  []delivery // sorted by time
	bytes    int
	raw      []byte    // to be written to the network, see SendBytes
	last     time.Time // of the latest delivery
	authed   bool
	second   int64 // of the rate limit
	inSecond int
	messages int
}

type subscription struct {
	token   string
	filters []nip01.Filter
}

type delivery struct {
	at  time.Time
	msg []byte
}

type event struct {
	raw []byte
	envelope.Event
}

func parse(raw []byte) (event, error) {
	raw = slices.Clone(raw)
	e, err := envelope.ParseEvent(raw)
	return event{raw: raw, Event: e}, err
}

// passing is the event as an attack is shown it.
func (e *event) passing() Passing {
	p := Passing{ID: e.ID, Author: e.PubKey, CreatedAt: e.CreatedAt, Kind: e.Kind, Content: string(e.Content), Raw: e.raw}
	for name, value := range e.Tags {
		if string(name) == "p" {
			_ = p.Recipient.UnmarshalText(value) // what is no key stays zero
			break
		}
	}
	return p
}

func newConn(r *Relay, ws *websocket.Conn, b Behaviour) *conn {
	c := &conn{
		relay: r, ws: ws,
		wake:   make(chan struct{}, 1),
		subs:   make(map[string]subscription),
		authed: !b.Auth,
	}
	c.ctx, c.cut = context.WithCancel(context.Background())
	return c
}

// run serves the connection until it ends.
func (c *conn) run(b Behaviour) {
	var tasks sync.WaitGroup
	tasks.Go(c.write)
	for _, msg := range b.Greeting {
		c.answer([]byte(msg))
	}
	if b.Auth {
		c.answer(nip01.AppendAuth(nil, challenge))
	}
	if b.Deaf {
		<-c.ctx.Done()
	}
	for {
		_, msg, err := c.ws.Read(c.ctx)
		if err != nil {
			break
		}
		if f := c.relay.opts.OnMessage; f != nil {
			f(msg)
		}
		b := c.relay.now()
		c.messages++
		if b.CutAfter > 0 && c.messages >= b.CutAfter {
			break
		}
		if !b.Mute {
			c.handle(b, msg)
		}
	}
	c.cut()
	tasks.Wait()
	c.ws.CloseNow()
}

func (c *conn) handle(b Behaviour, msg []byte) {
	m, err := nip01.ParseClientMessage(msg)
	if err != nil {
		c.answer(nip01.AppendNotice(nil, err.Error()))
		return
	}
	switch m.Verb {
	case nip01.Req:
		c.subscribe(b, m)
	case nip01.Close:
		c.relay.mu.Lock()
		delete(c.subs, string(m.Subscription))
		c.relay.mu.Unlock()
	case nip01.Event, nip01.Auth:
		e, err := parse(m.Event)
		if err != nil {
			c.answer(nip01.AppendNotice(nil, err.Error()))
			return
		}
		if m.Verb == nip01.Auth {
			c.authenticate(b, e)
		} else {
			c.publish(b, e)
		}
	default:
		c.answer(nip01.AppendNotice(nil, "unknown verb"))
	}
}

func (c *conn) subscribe(b Behaviour, m nip01.ClientMessage) {
	refusal := b.Closed
	switch {
	case !c.authed:
		refusal = "auth-required: this relay wants to know you"
	case b.MaxFilters > 0 && len(m.Filters) > b.MaxFilters:
		refusal = "error: filter too long"
	}
	if refusal != "" || b.ClosedWithoutWords {
		// CLOSED names an id, and so ends what has had it until now.
		c.relay.mu.Lock()
		delete(c.subs, string(m.Subscription))
		c.relay.mu.Unlock()
	}
	if refusal != "" {
		c.answer(nip01.AppendClosed(nil, m.Token, refusal))
		return
	}
	if b.ClosedWithoutWords {
		c.answer(fmt.Appendf(nil, `["CLOSED",%s]`, m.Token))
		return
	}
	filters, err := nip01.ParseFilters(m.Filters, 1000)
	if err != nil {
		c.answer(nip01.AppendClosed(nil, m.Token, err.Error()))
		return
	}
	sub := subscription{token: string(m.Token), filters: filters}
	r := c.relay
	r.mu.Lock()
	c.subs[string(m.Subscription)] = sub
	for _, e := range r.kept {
		if sub.matches(e) {
			c.schedule(b, sub, e.raw)
		}
	}
	r.mu.Unlock()
	if !b.NoEOSE {
		c.answer(nip01.AppendEOSE(nil, m.Token))
	}
}

func (c *conn) authenticate(b Behaviour, e event) {
	if b.AuthVerdict == "" {
		c.authed = true
	}
	c.answer(nip01.AppendOK(nil, e.ID, b.AuthVerdict == "", b.AuthVerdict))
}

func (c *conn) publish(b Behaviour, e event) {
	r := c.relay
	reason := b.Reject
	r.mu.Lock()
	r.published++
	if now := time.Now().Unix(); now != c.second {
		c.second, c.inSecond = now, 0
	}
	c.inSecond++
	switch {
	case !c.authed:
		reason = "auth-required: this relay wants to know you"
	case len(e.raw) > r.opts.MaxEvent:
		reason = "invalid: event too large"
	case b.PerSecond > 0 && c.inSecond > b.PerSecond:
		reason = "rate-limited: slow down"
	}
	r.mu.Unlock()
	if !b.NoOK {
		c.answer(nip01.AppendOK(nil, e.ID, reason == "", reason))
	}
	if reason == "" {
		r.route(e)
	}
}

// route delivers an event to all subscriptions that want it.
func (r *Relay) route(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.behaviour
	if b.Keep > 0 {
		r.kept = append(r.kept, e)
		r.kept = r.kept[max(0, len(r.kept)-b.Keep):]
	}
	if b.Mute {
		return
	}
	var before, after []Fake
	if b.Attack != nil {
		before, after = b.Attack(e.passing())
	}
	r.fake(b, before)
	for c := range r.conns {
		for _, sub := range c.subs {
			if sub.matches(e) {
				c.schedule(b, sub, e.raw)
			}
		}
	}
	r.fake(b, after)
}

// fake delivers what an attack made up. The relay's mu is held.
func (r *Relay) fake(b Behaviour, fakes []Fake) {
	for _, f := range fakes {
		for c := range r.conns {
			for _, sub := range c.subs {
				if sub.wants(f.To) {
					c.schedule(b, sub, f.Event)
					r.faked++
				}
			}
		}
	}
}

// schedule decides when a delivery leaves, and whether. The relay's mu is held.
func (c *conn) schedule(b Behaviour, sub subscription, raw []byte) {
	rnd := c.relay.rand
	if rnd.Float64() < b.Drop {
		return
	}
	copies := 1
	if rnd.Float64() < b.Duplicate {
		copies = 2
	}
	msg := append([]byte(`["EVENT",`), sub.token...)
	msg = append(append(append(msg, ','), raw...), ']')
	for range copies {
		at := time.Now().Add(b.Delay)
		if b.Jitter > 0 {
			at = at.Add(time.Duration(rnd.Int64N(int64(b.Jitter))))
		}
		if b.Batch > 0 {
			at = at.Truncate(b.Batch).Add(b.Batch)
		} else if !b.Reorder && at.Before(c.last) {
			at = c.last
		}
		c.last = at
		c.deliver(at, msg, b.Batch > 0)
	}
}

// answer sends a message at once.
func (c *conn) answer(msg []byte) {
	c.relay.mu.Lock()
	defer c.relay.mu.Unlock()
	c.deliver(time.Now(), msg, false)
}

// deliver queues a message for a point in time, behind those for the same or
// shuffled among them. The relay's mu is held.
func (c *conn) deliver(at time.Time, msg []byte, shuffle bool) {
	if c.bytes += len(msg); c.bytes > maxWaiting {
		c.cut()
		return
	}
	from, _ := slices.BinarySearchFunc(c.waiting, at, func(d delivery, t time.Time) int { return d.at.Compare(t) })
	to := from
	for to < len(c.waiting) && c.waiting[to].at.Equal(at) {
		to++
	}
	if shuffle {
		to = from + c.relay.rand.IntN(to-from+1)
	}
	c.waiting = slices.Insert(c.waiting, to, delivery{at, msg})
	c.nudge()
}

// nudge wakes the writer.
func (c *conn) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write sends the deliveries when their time has come.
func (c *conn) write() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		msg, raw, wait := c.next()
		if raw != nil {
			if _, err := c.network.Write(raw); err != nil {
				c.cut()
				return
			}
			continue
		}
		if msg != nil {
			if err := c.ws.Write(c.ctx, websocket.MessageText, msg); err != nil {
				c.cut()
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// next is what is to be written now, or how long to wait for the next message.
func (c *conn) next() (msg, raw []byte, wait time.Duration) {
	c.relay.mu.Lock()
	defer c.relay.mu.Unlock()
	if raw, c.raw = c.raw, nil; raw != nil {
		return nil, raw, 0
	}
	if len(c.waiting) == 0 {
		return nil, nil, time.Hour
	}
	d := c.waiting[0]
	if wait := time.Until(d.at); wait > 0 {
		return nil, nil, wait
	}
	c.waiting = slices.Delete(c.waiting, 0, 1)
	c.bytes -= len(d.msg)
	return d.msg, nil, 0
}

// wants reports whether the subscription asks for events to a key.
func (s *subscription) wants(to envelope.PublicKey) bool {
	return slices.ContainsFunc(s.filters, func(f nip01.Filter) bool { return slices.Contains(f.Tags["p"], to.Hex()) })
}

func (s *subscription) matches(e event) bool {
	return slices.ContainsFunc(s.filters, func(f nip01.Filter) bool { return matches(&f, e) })
}

func matches(f *nip01.Filter, e event) bool {
	if f.Kinds != nil && !slices.Contains(f.Kinds, e.Kind) ||
		f.Authors != nil && !slices.Contains(f.Authors, e.PubKey.Hex()) ||
		f.IDs != nil && !slices.Contains(f.IDs, envelope.PublicKey(e.ID).Hex()) ||
		f.Since != nil && e.CreatedAt < *f.Since ||
		f.Until != nil && e.CreatedAt > *f.Until {
		return false
	}
	for letter, wanted := range f.Tags {
		found := false
		e.Tags(func(name, value []byte) bool {
			found = string(name) == letter && slices.Contains(wanted, string(value))
			return !found
		})
		if !found {
			return false
		}
	}
	return true
}
