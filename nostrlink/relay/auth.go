package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// authenticator is the state of NIP-42 on one connection.
type authenticator struct {
	mu        sync.Mutex
	challenge string // the newest, not yet answered
	newest    string // answered or not
	running   bool
	err       error
	done      chan struct{} // closed after the first attempt
	ended     bool
}

func (a *authenticator) init() { a.done = make(chan struct{}) }

// maxChallenge bounds what a relay may have signed.
const maxChallenge = 1024

// challenged starts to answer the relay's challenge, unless an answer is under
// way; then the newest challenge is answered next.
func (c *Conn) challenged(challenge string) {
	if len(challenge) <= maxChallenge {
		c.auth.mu.Lock()
		c.auth.newest = challenge
		c.auth.mu.Unlock()
	}
	if c.opts.Auth == nil || len(challenge) > maxChallenge {
		c.opts.Log.Debug("relay asks for authentication, which is not answered", "relay", c.url)
		return
	}
	a := &c.auth
	a.mu.Lock()
	defer a.mu.Unlock()
	a.challenge = challenge
	if !a.running {
		a.running = true
		c.tasks.Go(c.answerChallenges)
	}
}

func (c *Conn) answerChallenges() {
	a := &c.auth
	for {
		a.mu.Lock()
		challenge := a.challenge
		a.challenge = ""
		a.mu.Unlock()
		ctx, cancel := context.WithTimeout(c.ending, c.opts.ReplyTimeout)
		err := c.authenticate(ctx, challenge, c.opts.Auth)
		cancel()
		a.mu.Lock()
		a.err = err
		if !a.ended {
			a.ended = true
			close(a.done)
		}
		if a.challenge == "" || c.ending.Err() != nil {
			a.running = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
	}
}

// A Signer answers a relay's challenge with a signed kind-22242 event for the
// relay's URL.
type Signer = func(ctx context.Context, url, challenge string) (event []byte, id [32]byte, err error)

// Authenticate answers the relay's newest challenge with one more key, besides
// the one of Options.Auth. It returns the relay's verdict, or ErrNoChallenge.
func (c *Conn) Authenticate(ctx context.Context, sign Signer) error {
	c.auth.mu.Lock()
	challenge := c.auth.newest
	c.auth.mu.Unlock()
	if challenge == "" {
		return fmt.Errorf("relay %s: %w", c.url, ErrNoChallenge)
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.ReplyTimeout)
	defer cancel()
	return c.authenticate(ctx, challenge, sign)
}

// Authenticate is [Conn.Authenticate] on the present connection, which it waits
// for. A later connection knows nothing of it.
func (c *Client) Authenticate(ctx context.Context, sign Signer) error {
	conn, err := c.connected(ctx)
	if err != nil {
		return err
	}
	return conn.Authenticate(ctx, sign)
}

// ErrNoChallenge says that the relay has asked nobody to authenticate.
var ErrNoChallenge = errors.New("the relay has sent no challenge to answer (NIP-42)")

// authenticate sends the signed answer and waits for the relay's verdict.
func (c *Conn) authenticate(ctx context.Context, challenge string, sign Signer) error {
	event, id, err := sign(ctx, c.url, challenge)
	if err != nil {
		return fmt.Errorf("relay %s: cannot authenticate: %w", c.url, err)
	}
	verdict := make(chan error, 1)
	onOK := func(accepted bool, reason string) {
		if accepted {
			verdict <- nil
			return
		}
		verdict <- fmt.Errorf("relay %s: did not accept our authentication: %s", c.url, describe(reason))
	}
	if err := c.sendEvent(ctx, `["AUTH",`, event, id, onOK, func() {}); err != nil {
		return err
	}
	select {
	case err := <-verdict:
		if ended := c.Err(); err != nil && ended != nil {
			return ended
		}
		return err
	case <-ctx.Done():
		if ended := c.Err(); ended != nil {
			return ended
		}
		return fmt.Errorf("relay %s: did not answer our authentication: %w", c.url, ctx.Err())
	}
}

// authenticated waits for the end of the first attempt to authenticate.
func (c *Conn) authenticated(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.ReplyTimeout)
	defer cancel()
	select {
	case <-c.auth.done:
		c.auth.mu.Lock()
		defer c.auth.mu.Unlock()
		return c.auth.err
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("relay %s: requires authentication but sent no challenge (NIP-42): %w", c.url, ctx.Err())
		}
		return ctx.Err()
	}
}
