package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/relay"
)

// silence is after how long without an event a subscriber takes it that no more
// will come.
const silence = 10 * time.Second

// subscribe receives events for a key of its own, which it prints, and prints
// how many came and how many seconds passed from the first to the last.
// Arguments: relay URL, number, and "open" to decrypt each.
func subscribe(ctx context.Context, args []string) error {
	want, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	secret, err := envelope.GenerateSecretKey()
	if err != nil {
		return err
	}
	c, err := relay.Dial(ctx, args[0], relay.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	r := receiver{secret: secret, want: want, done: make(chan struct{})}
	if len(args) > 2 && args[2] == "open" {
		r.plain = make([]byte, 0, 64<<10)
	}
	none := 0
	err = c.Subscribe(ctx, "bench", []relay.Filter{{
		Kinds: []int{envelope.KindNWS}, Tags: map[string][]string{"p": {secret.Public().Hex()}}, Limit: &none,
	}}, r.receive)
	if err != nil {
		return err
	}
	fmt.Println("subscribed", secret.Public().Hex())
	for seen := int64(-1); ; {
		select {
		case <-r.done:
			if r.err != nil {
				return r.err
			}
			fmt.Println(want, r.last.Sub(r.first).Seconds())
			return nil
		case <-c.Done():
			return c.Err()
		case <-time.After(silence):
		}
		if n := r.got.Load(); n > 0 && n == seen {
			return fmt.Errorf("only %d of %d events came", n, want)
		} else {
			seen = n
		}
	}
}

// receiver counts events, and opens them if it has room for that.
type receiver struct {
	secret      envelope.SecretKey
	want        int64
	plain       []byte // nil: leave them closed
	key         envelope.ConversationKey
	got         atomic.Int64
	first, last time.Time // of the reader, as is err; read when it is done
	err         error
	done        chan struct{}
}

func (r *receiver) receive(raw []byte) {
	if r.plain != nil && r.err == nil {
		r.err = r.open(raw)
	}
	r.last = time.Now()
	switch r.got.Add(1) {
	case 1:
		r.first = r.last
	case r.want:
		close(r.done)
	}
}

func (r *receiver) open(raw []byte) error {
	ev, err := envelope.ParseEvent(raw)
	if err != nil {
		return err
	}
	if r.key.IsZero() {
		if r.key, err = envelope.Conversation(r.secret, ev.PubKey); err != nil {
			return err
		}
	}
	_, err = envelope.Open(r.plain, ev.Content, r.key)
	return err
}

// publish sends the largest events to a key. Arguments: relay URL, key, number,
// and "seal" to sign each when it is its turn instead of all beforehand.
func publish(ctx context.Context, args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	next, err := sealing(args[1])
	if err != nil {
		return err
	}
	if len(args) < 4 || args[3] != "seal" {
		if next, err = beforehand(next, n); err != nil {
			return err
		}
	}
	c, err := relay.Dial(ctx, args[0], relay.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	var refused atomic.Pointer[string]
	for range n {
		event, id, err := next()
		if err != nil {
			return err
		}
		err = c.Publish(ctx, event, id, func(accepted bool, reason string) {
			if !accepted {
				refused.Store(&reason)
			}
		})
		if err != nil {
			return err
		}
		if reason := refused.Load(); reason != nil {
			return fmt.Errorf("the relay refused an event: %s", *reason)
		}
	}
	fmt.Println("published")
	<-ctx.Done() // the parent has seen the subscriber's result
	return nil
}

// source gives one event after the other. Each is borrowed until the next.
type source func() (event []byte, id [32]byte, err error)

// sealing is a source of the largest events to a key.
func sealing(to string) (source, error) {
	recipient, err := envelope.ParsePublicKey(to)
	if err != nil {
		return nil, err
	}
	author, err := envelope.GenerateSecretKey()
	if err != nil {
		return nil, err
	}
	key, err := envelope.Conversation(author, recipient)
	if err != nil {
		return nil, err
	}
	sealer := envelope.NewSealer(author, recipient, key)
	plaintext := make([]byte, envelope.MaxPlaintext)
	var buf []byte
	return func() ([]byte, [32]byte, error) {
		event, id, err := sealer.Seal(buf[:0], plaintext, time.Now())
		buf = event
		return event, id, err
	}, nil
}

// beforehand takes n events of a source.
func beforehand(next source, n int) (source, error) {
	events, ids := make([][]byte, n), make([][32]byte, n)
	for i := range n {
		event, id, err := next()
		if err != nil {
			return nil, err
		}
		events[i], ids[i] = bytes.Clone(event), id
	}
	at := -1
	return func() ([]byte, [32]byte, error) {
		at++
		return events[at], ids[at], nil
	}, nil
}
