package main

import (
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

// subscribe receives events for a key and prints how many came, how many
// seconds passed from the first to the last. Arguments: relay URL, key, number.
func subscribe(ctx context.Context, args []string) error {
	want, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	c, err := relay.Dial(ctx, args[0], relay.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	var got atomic.Int64
	var first, last time.Time // of the reader; read when it is done
	done := make(chan struct{})
	none := 0
	err = c.Subscribe(ctx, "bench", []relay.Filter{{
		Kinds: []int{envelope.KindNWS}, Tags: map[string][]string{"p": {args[1]}}, Limit: &none,
	}}, func([]byte) {
		last = time.Now()
		switch got.Add(1) {
		case 1:
			first = last
		case want:
			close(done)
		}
	})
	if err != nil {
		return err
	}
	fmt.Println("subscribed")
	for seen := int64(-1); ; {
		select {
		case <-done:
			fmt.Println(want, last.Sub(first).Seconds())
			return nil
		case <-c.Done():
			return c.Err()
		case <-time.After(silence):
		}
		if n := got.Load(); n > 0 && n == seen {
			return fmt.Errorf("only %d of %d events came", n, want)
		} else {
			seen = n
		}
	}
}

// publish signs a number of the largest events beforehand, then sends them to a
// key. Arguments: relay URL, key, number.
func publish(ctx context.Context, args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	events, ids, err := signed(args[1], n)
	if err != nil {
		return err
	}
	c, err := relay.Dial(ctx, args[0], relay.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	var refused atomic.Pointer[string]
	for i, event := range events {
		err := c.Publish(ctx, event, ids[i], func(accepted bool, reason string) {
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

func signed(to string, n int) (events [][]byte, ids [][32]byte, err error) {
	recipient, err := envelope.ParsePublicKey(to)
	if err != nil {
		return nil, nil, err
	}
	author, err := envelope.GenerateSecretKey()
	if err != nil {
		return nil, nil, err
	}
	key, err := envelope.Conversation(author, recipient)
	if err != nil {
		return nil, nil, err
	}
	sealer := envelope.NewSealer(author, recipient, key)
	plaintext := make([]byte, envelope.MaxPlaintext)
	for range n {
		event, id, err := sealer.Seal(nil, plaintext, time.Now())
		if err != nil {
			return nil, nil, err
		}
		events, ids = append(events, event), append(ids, id)
	}
	return events, ids, nil
}
