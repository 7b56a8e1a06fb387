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

	// before is what had the id until now, and has it again if the relay refuses
	// this one; nil once this was confirmed.
	before  *wanted
	refused error // why it is not wanted any more
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
// is not connected it waits for that. When ctx ends first the subscription stays
// wanted, and is made as soon as the relay lets it. The same id again replaces
// filters and callback. onEvent is as in [Conn.Subscribe]; after a reconnection
// it may get stored events again, unless the filter has a limit of 0.
//
// When the relay refuses, the error is a [*RefusedError] and the subscription is
// forgotten. If it was to replace another, that one is wanted again, and made
// anew, as the relay's refusal has ended it. When the relay refuses on a later
// connection what it had confirmed, the refusal is in the Status, and the client
// tries again.
func (c *Client) Subscribe(ctx context.Context, id string, filters []Filter, onEvent func(raw []byte)) error {
	if err := c.takeTurn(ctx); err != nil {
		return err
	}
	defer func() { <-c.turn }()
	want := c.want(id, filters, onEvent)
	for {
		conn, err := c.connected(ctx)
		if err != nil {
			return err
		}
		if err = c.make(ctx, conn, id, want); err == nil {
			return nil
		}
		if c.fallBack(id, want, err) {
			c.askRepair()
			return err
		}
		if isRefusal(err) {
			c.forget(id, want)
			return err
		}
		if ctx.Err() != nil {
			c.askRepair()
			return err
		}
		// Neither yes nor no: this connection is of no use. The next one
		// subscribes.
		conn.ws.Fail(err)
		<-conn.Done()
		c.retire(conn, err)
	}
}

// takeTurn waits until nobody else is subscribing, so that the relay sees the
// changes of one id in order. Whoever has the turn gives it back by receiving
// from c.turn.
func (c *Client) takeTurn(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// want notes what an id stands for from now on.
func (c *Client) want(id string, filters []Filter, onEvent func(raw []byte)) *wanted {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.subs[id]
	if before != nil && before.before != nil {
		before = before.before // the other was never confirmed
	}
	w := &wanted{filters: filters, onEvent: onEvent, before: before}
	c.subs[id] = w
	return w
}

func isRefusal(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused)
}

// fallBack has an id stand for what it did before, if err is the relay's refusal
// of the change and there is such. It is for the relay to confirm anew.
func (c *Client) fallBack(id string, want *wanted, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !isRefusal(err) || c.subs[id] != want || want.before == nil {
		return false
	}
	want.refused = err
	want.before.made = nil
	c.subs[id] = want.before
	return true
}

// askRepair has Serve make the subscriptions that may be missing.
func (c *Client) askRepair() {
	select {
	case c.repair <- struct{}{}:
	default:
	}
}

// make has the relay confirm a subscription, unless it has done so.
func (c *Client) make(ctx context.Context, conn *Conn, id string, want *wanted) error {
	c.mu.Lock()
	made, refused := want.made == conn, want.refused
	c.mu.Unlock()
	if made || refused != nil {
		return refused
	}
	if err := conn.Subscribe(ctx, id, want.filters, want.onEvent); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if want.refused == nil { // by a connection after this one
		want.made, want.before = conn, nil
	}
	return want.refused
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

// resubscribe makes the wanted subscriptions that are missing on a connection,
// also those that are added meanwhile, and declares it usable.
func (c *Client) resubscribe(ctx context.Context, conn *Conn) error {
	for {
		id, want, ready := c.missing(conn)
		if want != nil {
			if err := c.make(ctx, conn, id, want); err != nil && !c.fallBack(id, want, err) {
				return err
			}
			continue
		}
		if ready {
			c.announce()
		}
		return nil
	}
}

// missing returns a wanted subscription that the connection does not have. When
// there is none it puts the connection to use, and ready tells that it was not.
func (c *Client) missing(conn *Conn) (id string, want *wanted, ready bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, w := range c.subs {
		if w.made != conn {
			return id, w, false
		}
	}
	if c.conn == conn {
		return "", nil, false
	}
	c.setStateLocked(Connected, conn, nil)
	return "", nil, true
}
