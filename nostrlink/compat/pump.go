package compat

import (
	"context"
	"net"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/wire"
)

// maxChunk is the most of a stream that one message holds: the reference drops
// what does not fit its buffer of 32 KiB, and sometimes reads with a smaller
// one.
const maxChunk = 24 << 10

// pump sees that what is to be sent is sent. A stream with nothing to send has
// no goroutine. c.mu is held.
func (c *Conn) pump() {
	if c.pumping || c.over || c.request == nil && len(c.out) == 0 {
		return
	}
	c.pumping = true
	c.of.wg.Go(c.sendAll)
}

// sendAll sends, one message after another, until nothing waits.
func (c *Conn) sendAll() {
	for {
		plain, n, err := c.next()
		if err == nil && plain == nil {
			return
		}
		if err == nil {
			err = c.of.sender.Send(c.ctx, c.peer, plain)
		}
		if err != nil {
			if c.end(&wire.Error{Code: wire.CodeNetUnreachable, Text: "no relay took a message: " + err.Error()}) {
				c.of.unsent.Add(1)
			}
			continue
		}
		c.sent(n)
	}
}

// next waits until something may be sent and returns it with the number of the
// stream's bytes in it. It returns nothing when there is nothing, and ends the
// pump.
func (c *Conn) next() (plain []byte, n int, err error) {
	limit := c.of.opts.Limit(c.peer)
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.over && (c.request != nil || len(c.out) > 0) {
		if left := c.notBefore.Sub(c.of.now()); left > 0 {
			c.mu.Unlock()
			sleep(c.ctx, left)
			c.mu.Lock()
			continue
		}
		m := c.request
		if m == nil {
			n = min(c.maxData(limit), len(c.out))
			m = &wire.Message{Key: c.id.String(), Type: c.speaks, Data: c.out[:n], Destination: c.dest}
		}
		plain, err = wire.AppendMessage(nil, m)
		return plain, n, err
	}
	c.pumping = false
	if c.closed && !c.over { // all that was written has left
		c.mu.Unlock()
		c.end(net.ErrClosed)
		c.mu.Lock()
	}
	return nil, 0, nil
}

// messageFrame is what a message has besides data and destination: a UUID, a
// type, the names of the fields, and room for escapes.
const messageFrame = 160

// maxData is how much of the stream fits a message that is at most limit bytes
// long, or 0 for any.
func (c *Conn) maxData(limit int) int {
	most := c.of.opts.MaxMessage
	if limit > 0 {
		most = min(most, max(limit, minMaxMessage))
	}
	room := most - messageFrame - len(c.dest)
	return min(maxChunk, max(room, 4)/4*3) // base64
}

// sent takes note of a message that a relay has taken, with n bytes of the
// stream.
func (c *Conn) sent(n int) {
	gap := c.of.opts.Gap(c.peer)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.of.books.sent.Add(uint64(n))
	if c.request != nil {
		c.request = nil
		// An exit that has not got the request drops what belongs to it.
		gap = max(gap, settle)
		close(c.opened)
	}
	c.out = c.out[:copy(c.out, c.out[n:])]
	c.active = c.of.now()
	c.notBefore = c.active.Add(gap)
	c.writable.Broadcast()
}

// settle is what passes at least between CONNECT and the first data.
const settle = DefaultGap

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
