package relay

import (
	"errors"
	"fmt"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/relay/nip01"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay/ws"
)

// read receives until the connection ends, and then settles what is open.
func (c *Conn) read() {
	var buf []byte
	var err error
	for err == nil {
		if err = c.ws.Next(); err != nil {
			break
		}
		if buf, err = c.ws.ReadMessage(buf, c.opts.MaxMessage, 0); err == nil {
			c.dispatch(buf)
		}
	}
	if errors.Is(err, ws.ErrTooBig) {
		err = fmt.Errorf("sent a message of more than %d bytes", c.opts.MaxMessage)
	}
	c.ws.Fail(err)
	c.mu.Lock()
	c.err = fmt.Errorf("relay %s: connection ended: %w", c.url, err)
	c.mu.Unlock()
	c.end()
	for _, e := range c.wait.close() {
		e.onOK(false, fmt.Sprintf("%s: %v", ReasonDisconnected, err))
	}
	close(c.done)
	c.ws.CloseNow()
}

// dispatch handles one message. What cannot be understood is ignored: a relay
// that sends nonsense is noticed by what it does not answer.
func (c *Conn) dispatch(msg []byte) {
	m, err := nip01.ParseRelayMessage(msg)
	if err != nil {
		c.opts.Log.Debug("relay sent what is not a message of NIP-01", "relay", c.url, "err", err)
		return
	}
	switch m.Verb {
	case nip01.Event:
		c.event(m)
	case nip01.OK:
		if e, ok := c.wait.take(m.ID); ok {
			e.onOK(m.Accepted, shorten(m.Text))
		}
	case nip01.EOSE:
		c.mu.Lock()
		if sub := c.subs[string(m.Subscription)]; sub != nil {
			sub.give(nil)
		}
		c.mu.Unlock()
	case nip01.Closed:
		c.closed(m)
	case nip01.Notice:
		c.notice(m.Text)
	case nip01.Auth:
		c.challenged(m.Text)
	}
}

func (c *Conn) event(m nip01.RelayMessage) {
	c.mu.Lock()
	sub := c.subs[string(m.Subscription)]
	c.mu.Unlock()
	if sub != nil {
		c.inCall.Store(true)
		sub.onEvent(m.Event)
		c.inCall.Store(false)
	}
}

// closed handles the relay's end of a subscription. One that was running is
// what the connection is for, so the connection ends with it.
func (c *Conn) closed(m nip01.RelayMessage) {
	id := string(m.Subscription)
	refused := &RefusedError{URL: c.url, Reason: shorten(m.Text)}
	c.mu.Lock()
	sub := c.subs[id]
	delete(c.subs, id)
	waiting := sub != nil && sub.give(refused)
	c.mu.Unlock()
	if sub != nil && !waiting {
		c.ws.Fail(fmt.Errorf("a running subscription was closed by the relay: %s", describe(m.Text)))
	}
}

func (c *Conn) notice(text string) {
	text = shorten(text)
	c.opts.Log.Debug("relay notice", "relay", c.url, "text", text)
	if c.opts.OnNotice != nil {
		c.opts.OnNotice(text)
	}
}

// keepAlive gives verdicts that the relay does not give, and ends the
// connection when the relay is silent for too long.
func (c *Conn) keepAlive() {
	tick := min(c.opts.PingAfter, c.opts.PongTimeout, c.opts.OKTimeout) / 4
	ticker := time.NewTicker(min(max(tick, time.Millisecond), time.Second))
	defer ticker.Stop()
	var q question
	var busy time.Time // when the reader was last seen in a callback
	for {
		urgent := false
		select {
		case <-c.ending.Done():
			return
		case <-ticker.C:
		case <-c.urgent:
			urgent = true
		}
		if c.inCall.Load() {
			// We are the ones who do not listen.
			q, busy = question{}, time.Now()
			continue
		}
		listening := time.Since(busy)
		if listening >= c.opts.OKTimeout {
			c.expire()
		}
		if urgent {
			q = c.ask(min(c.opts.PongTimeout, urgentTimeout))
			q.urgent = true
			continue
		}
		q = c.follow(q, min(c.ws.Idle(), listening))
	}
}

// urgentTimeout is how long a relay may take to answer when there is reason to
// doubt the network.
const urgentTimeout = 2 * time.Second

// check asks the relay whether it lives, without waiting for the answer. The
// connection ends if none comes in time.
func (c *Conn) check() {
	select {
	case c.urgent <- struct{}{}:
	default: // it is being asked
	}
}

func (c *Conn) expire() {
	for _, e := range c.wait.expired(time.Now().Add(-c.opts.OKTimeout)) {
		e.onOK(false, fmt.Sprintf("%s: no OK within %v", ReasonTimeout, c.opts.OKTimeout))
	}
}

// question is a ping that the relay has not answered; the zero value is none.
type question struct {
	asked   time.Time
	timeout time.Duration
	urgent  bool // the network is in doubt
}

// follow sees to it that a relay which has been silent for a time is asked, and
// that it answers.
func (c *Conn) follow(q question, silent time.Duration) question {
	if !q.asked.IsZero() {
		waited := time.Since(q.asked)
		if silent <= waited {
			return question{}
		}
		if waited >= q.timeout {
			err := fmt.Errorf("the relay has been silent for %v and did not answer a ping: "+
				"the network or the relay is down", silent.Round(time.Second/10))
			if !q.urgent {
				err = silentError{err}
			}
			c.ws.Fail(err)
		}
		return q
	}
	after := c.opts.PingAfter
	if sent, waiting := c.wait.oldest(); waiting && time.Since(sent) >= askEarly {
		after = min(after, askEarly)
	}
	if silent < after {
		return question{}
	}
	return c.ask(c.opts.PongTimeout)
}

func (c *Conn) ask(timeout time.Duration) question {
	c.ws.Ping()
	return question{asked: time.Now(), timeout: timeout}
}
