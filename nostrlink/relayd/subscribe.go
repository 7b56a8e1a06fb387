package relayd

import (
	"fmt"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
)

type subscription struct {
	conn    *conn
	head    []byte // ["EVENT",<id>,
	filings []*filing
	filters []*filter
	values  int
}

// request handles a REQ.
func (c *conn) request(j *job) {
	s, m := c.server, &j.parsed
	if j.fault = c.admit(); j.fault != nil {
		c.unsubscribe(string(m.Subscription))
		c.refuse(j)
		return
	}
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
		if !c.send(c, ws.Message{Head: sub.head, Body: e.raw, Tail: tail}) {
			return
		}
	}
	c.answer(nip01.AppendEOSE(nil, m.Token))
}

// count handles a COUNT. (NIP-45)
func (c *conn) count(j *job) {
	if j.fault = c.admit(); j.fault != nil {
		c.refuse(j)
		return
	}
	sub := c.compile(j)
	if sub == nil {
		c.refuse(j)
		return
	}
	if most := c.server.limits().MaxFilterValues; sub.values > most {
		c.answer(nip01.AppendClosed(nil, j.parsed.Token, tooManyValues(most)))
		return
	}
	c.answer(nip01.AppendCount(nil, j.parsed.Token, c.server.store.count(sub.filters, time.Now())))
}

// compile makes the subscription that a REQ asks for, or sets the job's fault.
// As filters take more memory than their text, only as many connections do this
// at a time as there are processors.
func (c *conn) compile(j *job) *subscription {
	s := c.server
	s.compiling <- struct{}{}
	defer func() { <-s.compiling }()
	var filters []nip01.Filter
	if filters, j.fault = nip01.ParseFilters(j.parsed.Filters, s.limits().MaxFilters); j.fault != nil {
		return nil
	}
	sub := &subscription{conn: c, head: append(append([]byte(`["EVENT",`), j.parsed.Token...), ',')}
	for i := range filters {
		f := newFilter(&filters[i], s.limits().MaxLimit)
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
	limits, old := c.server.limits(), c.subs[id]
	values := c.values + sub.values
	if old != nil {
		values -= old.values
	}
	switch {
	case old == nil && len(c.subs) >= limits.MaxSubscriptions:
		return fmt.Sprintf("error: more than %d subscriptions", limits.MaxSubscriptions)
	case values > limits.MaxFilterValues:
		c.unsubscribe(id)
		return tooManyValues(limits.MaxFilterValues)
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

func tooManyValues(most int) string {
	return fmt.Sprintf("error: more than %d values in the filters", most)
}

func (c *conn) unsubscribe(id string) {
	if sub := c.subs[id]; sub != nil {
		c.server.index.replace(sub, nil)
		c.server.stats.subscriptions.Add(-1)
		c.values -= sub.values
		delete(c.subs, id)
	}
}
