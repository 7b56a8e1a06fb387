package relay

import (
	"context"
	"errors"
	"fmt"
)

// wanted is a subscription as it should be.
type wanted struct {
	filters []Filter
	onEvent func(raw []byte)
	made    *Conn // the connection on which it was confirmed as it is now
}

// Wait returns when the relay is connected and every subscription is confirmed.
// When ctx ends first, or Serve has ended, the error says what the relay did
// last.
func (c *Client) Wait(ctx context.Context) error {
	_, err := c.connected(ctx)
	return err
}

func (c *Client) connected(ctx context.Context) (*Conn, error) {
	for {
		c.mu.Lock()
		conn, status, change := c.conn, c.status, c.change
		c.mu.Unlock()
		if conn != nil {
			return conn, nil
		}
		if status.State == Stopped {
			return nil, fmt.Errorf("relay %s: %w", c.url, errStopped)
		}
		select {
		case <-change:
		case <-ctx.Done():
			if status = c.Status(); status.Err != nil {
				return nil, fmt.Errorf("%w (%w)", status.Err, ctx.Err())
			}
			return nil, fmt.Errorf("relay %s: not connected yet: %w", c.url, ctx.Err())
		}
	}
}

// Subscribe wants a subscription from now on, on this connection and on every
// later one. It returns when the relay has confirmed it (EOSE); while the relay
// is not connected it waits for that until ctx ends, and the subscription stays
// wanted then. The same id again replaces filters and callback. onEvent is as
// in [Conn.Subscribe]; after a reconnection it may get stored events again,
// unless the filter has a limit of 0.
//
// When the connected relay refuses, the error is a [*RefusedError] and the
// subscription is forgotten. A refusal on a later connection is in the Status,
// and the client tries again.
func (c *Client) Subscribe(ctx context.Context, id string, filters []Filter, onEvent func(raw []byte)) error {
	// One at a time, so that the relay sees the changes of one id in order.
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	want := &wanted{filters: filters, onEvent: onEvent}
	c.mu.Lock()
	c.subs[id] = want
	c.mu.Unlock()
	for {
		conn, err := c.connected(ctx)
		if err != nil {
			return err
		}
		c.mu.Lock()
		made := want.made == conn
		c.mu.Unlock()
		if made {
			return nil
		}
		if err = conn.Subscribe(ctx, id, filters, onEvent); err == nil {
			c.mu.Lock()
			want.made = conn
			c.mu.Unlock()
			return nil
		}
		var refused *RefusedError
		if errors.As(err, &refused) {
			c.forget(id, want)
			return err
		}
		if ctx.Err() != nil {
			return err
		}
		// Neither yes nor no: this connection is of no use. The next one
		// subscribes.
		conn.ws.Fail(err)
		<-conn.Done()
		c.retire(conn, err)
	}
}

// retire takes a dead connection out of use before Serve has noticed.
func (c *Client) retire(conn *Conn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn {
		c.setStateLocked(Connecting, nil, err)
	}
}

func (c *Client) forget(id string, want *wanted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs[id] == want {
		delete(c.subs, id)
	}
}

// Unsubscribe no longer wants a subscription.
func (c *Client) Unsubscribe(ctx context.Context, id string) error {
	c.mu.Lock()
	delete(c.subs, id)
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return nil
	}
	return conn.Unsubscribe(ctx, id)
}

// Publish is [Conn.Publish] on the present connection. While the relay is not
// connected it waits until it is or ctx ends; a publish that was handed to a
// connection which then died gets its verdict (ReasonDisconnected) and is not
// repeated.
func (c *Client) Publish(ctx context.Context, event []byte, id [32]byte, onOK func(accepted bool, reason string)) error {
	for {
		conn, err := c.connected(ctx)
		if err != nil {
			return err
		}
		if err = conn.Publish(ctx, event, id, onOK); err == nil || ctx.Err() != nil {
			return err
		}
		<-conn.Done()
		c.retire(conn, err)
	}
}

// resubscribe makes the wanted subscriptions on a new connection, also those
// that are added meanwhile, and declares it usable.
func (c *Client) resubscribe(ctx context.Context, conn *Conn) error {
	for {
		c.mu.Lock()
		id, want := c.missingLocked(conn)
		if want == nil {
			c.setStateLocked(Connected, conn, nil)
			c.mu.Unlock()
			c.announce()
			return nil
		}
		c.mu.Unlock()
		if err := conn.Subscribe(ctx, id, want.filters, want.onEvent); err != nil {
			return err
		}
		c.mu.Lock()
		want.made = conn
		c.mu.Unlock()
	}
}

func (c *Client) missingLocked(conn *Conn) (string, *wanted) {
	for id, w := range c.subs {
		if w.made != conn {
			return id, w
		}
	}
	return "", nil
}
