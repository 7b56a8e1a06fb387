package relay

import (
	"context"
	"sync"
	"time"
)

// leaveTimeout bounds how long a relay may take to hear that a query has ended.
const leaveTimeout = time.Second

// Query asks the relay, once it is connected, for what it has. It returns when
// the relay has sent all of that (EOSE) and linger has gone by, in which more may
// come, or when ctx ends or the connection does. Nothing of it is left then: it
// is not repeated on a later connection, and a relay that does not answer is not
// left for that. No other subscription may have the id at the time. onEvent is
// as in [Conn.Subscribe], and is not called any more after Query has returned.
func (c *Client) Query(ctx context.Context, id string, filters []Filter, linger time.Duration, onEvent func(raw []byte)) error {
	conn, err := c.connected(ctx)
	if err != nil {
		return err
	}
	calls := &callback{onEvent: onEvent}
	defer calls.end()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
		defer cancel()
		conn.Unsubscribe(ctx, id) // a connection that ended needs none
	}()
	if err := conn.Subscribe(ctx, id, filters, calls.call); err != nil {
		return err
	}
	after := time.NewTimer(linger)
	defer after.Stop()
	select {
	case <-after.C:
	case <-ctx.Done():
	case <-conn.Done():
	}
	return nil
}

// callback is a function that is not called any more after end.
type callback struct {
	mu      sync.Mutex
	onEvent func(raw []byte) // nil after end
}

func (c *callback) call(raw []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onEvent != nil {
		c.onEvent(raw)
	}
}

func (c *callback) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onEvent = nil
}
